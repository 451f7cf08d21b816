"""Enlarge a photograph with the help of one reference."""

from pathlib import Path

import torch

from def_hub import DEFPipeline

here, out = Path(__file__).parent, Path("outputs/one_reference.png")

pipe = DEFPipeline.from_pretrained()
result = pipe(here / "street_lr.png", here / "street_ref1.jpg", generator=torch.Generator().manual_seed(0))

out.parent.mkdir(parents=True, exist_ok=True)
result.images[0].save(out)
print(f"{out}: {result.images[0].size}, consistency error {result.consistency_error[0]:.2f}/255")
