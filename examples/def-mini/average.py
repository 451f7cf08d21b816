"""Put together what ships from two pipelines: `python examples/def-mini/average.py ONE OTHER OUTPUT [DETAIL]`.

`refsr` is the mean of both, which is as good as either or better where both were trained from one start (Wortsman et
al. 2022, "Model soups"); the prior is OTHER's, `refsr_detail` what part 5 exported to DETAIL, or else ONE's. Half
precision. What they were for the shipped weights stands in `made-by/README.md` beside these.
"""

import sys

import torch
from diffusers import UNet2DModel

from def_hub import DEFPipeline, ReferenceNetwork
from def_hub.assemble import mix

one, other, output, *detail = sys.argv[1:]
pipe = DEFPipeline.from_pretrained(
    one, unet=UNet2DModel.from_pretrained(other, subfolder="unet", use_safetensors=True), torch_dtype=torch.float32
)
mix(pipe.refsr, ReferenceNetwork.from_pretrained(other, subfolder="refsr"), 0.5)
if detail:
    pipe.register_modules(refsr_detail=ReferenceNetwork.from_pretrained(detail[0], subfolder="refsr"))
pipe.to(dtype=torch.float16)
pipe.save_pretrained(output)
