"""Build the shipped weights from two pipelines: `python examples/def-mini/average.py ONE OTHER OUTPUT [DETAIL]`.

`refsr` is the mean of both networks. If both were trained from the same start, the mean is at least as good as either
(Wortsman et al. 2022, "Model soups"). The prior is OTHER's. `refsr_detail` is the network that part 5 exported to
DETAIL; without DETAIL it is ONE's. All weights are saved in half precision. `made-by/README.md`, beside the shipped
weights, records which pipelines they were built from.
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
