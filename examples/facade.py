"""Make the README's first picture: `python examples/facade.py`. Prints what the references gave.

A JPEG thumbnail, 160 pixels wide, beside two photographs that were taken nearer: the same part of its plain
enlargement, of the result without references, of the result with them, and of what the thumbnail was made of.
"""

from pathlib import Path

import torch

from def_hub import DEFPipeline, images
from def_hub.evaluation.metrics import Protocol, psnr
from def_hub.observation.downsample import make_operator

PART = (slice(54, 254), slice(0, 250))  # rows and columns of the result: statues and columns
here = Path(__file__).resolve().parent

pipe = DEFPipeline.from_pretrained()
small, truth = here / "facade_lr.jpg", images.to_tensor(here / "facade_hr.webp")
references = sorted(here.glob("facade_ref*.jpg"))
pictures = [make_operator().upsample(images.to_tensor(small)).clamp(0, 1)]
for chosen in (None, references):
    output = pipe(small, chosen, generator=torch.Generator().manual_seed(0), output_type="pt")
    pictures.append(output.images[0][None])
trusted = float((output.confidence[0] > 0.3).float().mean())
scores = [f"{float(psnr(picture, truth)):.2f}" for picture in pictures]
print(f"{output.observation[0].words}; {100 * trusted:.0f} % of the picture trust a reference")
print(f"bicubic {scores[0]} dB, without references {scores[1]}, with them {scores[2]} ({Protocol()})")
parts = [picture[..., PART[0], PART[1]] for picture in (*pictures, truth)]
strip = torch.cat([torch.nn.functional.pad(part, (0, 4), value=1.0) for part in parts], dim=3)[..., :-4]
images.to_pil(strip).save(here / "screenshots" / "facade.jpg", quality=88)
