"""Cuts the worst places out of the shipped examples: `python examples/failures.py`; pictures beside the weights.

For each example, the picture shows the 96×96 window with the largest mean squared error of the result with all
references. From left to right: bicubic, without references, with references, truth.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from def_hub import DEFPipeline, images, make_operator

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parent / "def_hub" / "weights" / "def-mini" / "failures"  # where the model card shows them
WINDOW, STEP, ENLARGED = 96, 8, 2


def errors(x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each window, `[rows, columns]`."""
    return F.avg_pool2d((x - truth).square().mean(1, keepdim=True), WINDOW, STEP)[0, 0]


def main() -> None:
    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    PICTURES.mkdir(exist_ok=True)
    for name in ("street", "robot", "banana"):
        y, truth = images.to_tensor(HERE / f"{name}_lr.png"), images.to_tensor(HERE / f"{name}_hr.webp")
        references = [images.to_tensor(path) for path in sorted(HERE.glob(f"{name}_ref*.jpg"))]
        without_reference, result = (
            pipe(y, r, generator=torch.Generator().manual_seed(0), output_type="pt").images[0][None]
            for r in (None, references)
        )
        bicubic = make_operator().upsample(y)
        error = errors(result, truth)
        row, column = divmod(int(error.argmax()), error.shape[1])
        top, left = row * STEP, column * STEP
        parts = [x[..., top : top + WINDOW, left : left + WINDOW] for x in (bicubic, without_reference, result, truth)]
        strip = F.interpolate(torch.cat(parts, dim=-1), scale_factor=ENLARGED, mode="nearest")
        target = PICTURES / f"{name}.jpg"
        images.to_pil(strip).save(target, quality=88)
        shown = (bicubic, without_reference, result)
        psnr = [f"{-10 * float(errors(x, truth)[row, column].log10()):.1f} dB" for x in shown]
        print(f"{target.name}: at ({left}, {top}), bicubic {psnr[0]}, without references {psnr[1]}, with {psnr[2]}")


if __name__ == "__main__":
    main()
