"""Enlarge a photograph without a reference. All invented detail comes from the diffusion prior and the network."""

from pathlib import Path

import torch

from def_hub import DEFPipeline

here, out = Path(__file__).parent, Path("outputs/no_reference.png")

pipe = DEFPipeline.from_pretrained()
result = pipe(here / "banana_lr.png", preset="fast", generator=torch.Generator().manual_seed(0))

out.parent.mkdir(parents=True, exist_ok=True)
result.images[0].save(out)
print(f"{out}: {result.images[0].size}")
