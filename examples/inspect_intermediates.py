"""Save the intermediate results of a call: diffusion steps, matches, confidence, and the provenance of each pixel."""

from pathlib import Path

import torch

from def_hub import DEFPipeline, visualization

here, out = Path(__file__).parent, Path("outputs/inspect")
out.mkdir(parents=True, exist_ok=True)
references = [here / "street_ref1.jpg", here / "street_ref2.jpg"]
steps = []


def remember(pipe, step, timestep, tensors):
    """The pipeline calls this after every step with the current estimate of the clean image, `[1,3,H,W]` in `[0,1]`."""
    steps.append((f"step {step + 1}, t = {timestep}", tensors["x0"][:1].clamp(0, 1)))


pipe = DEFPipeline.from_pretrained()
generator = torch.Generator().manual_seed(0)
result = pipe(here / "street_lr.png", references, generator=generator, callback_on_step_end=remember)

pictures = visualization.pictures(result, 0, references)
pictures["steps"] = visualization.steps_strip(steps)
pictures["before_after"] = visualization.before_after(here / "street_lr.png", result.images[0])
for name, picture in pictures.items():
    picture.save(out / f"{name}.png")
    print(out / f"{name}.png")
