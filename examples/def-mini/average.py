"""Put together what ships from two pipelines: `python examples/def-mini/average.py ONE OTHER OUTPUT`.

`refsr` is the mean of both, which is as good as either or better where both were trained from one start (Wortsman et
al. 2022, "Model soups"); `refsr_detail` is ONE's, the prior OTHER's. Half precision. What ONE and OTHER were for the
shipped weights stands in `made-by/README.md` beside these.
"""

import sys

import torch
from diffusers import UNet2DModel

from def_hub import DEFPipeline, ReferenceNetwork
from def_hub.assemble import mix

one, other, output = sys.argv[1:]
pipe = DEFPipeline.from_pretrained(
    one, unet=UNet2DModel.from_pretrained(other, subfolder="unet", use_safetensors=True), torch_dtype=torch.float32
)
mix(pipe.refsr, ReferenceNetwork.from_pretrained(other, subfolder="refsr"), 0.5)
pipe.to(dtype=torch.float16)
pipe.save_pretrained(output)
