"""Enlarge a photograph with several references of different sizes, and print how much detail each contributed."""

from pathlib import Path

import torch

from def_hub import DEFPipeline

here, out = Path(__file__).parent, Path("outputs/several_references.png")

pipe = DEFPipeline.from_pretrained()
references = [
    here / "robot_ref1.jpg",
    here / "robot_ref2.jpg",
    here / "street_ref1.jpg",
]  # the last one shows another place and contributes little
result = pipe(here / "robot_lr.png", references, generator=torch.Generator().manual_seed(0))

out.parent.mkdir(parents=True, exist_ok=True)
result.images[0].save(out)
shares = result.provenance[0].mean(dim=(1, 2)).tolist()
for source, share in zip(["input", "prior", *(path.name for path in references)], shares, strict=True):
    print(f"{source:16} {100 * share:5.1f} %")
print(out)
