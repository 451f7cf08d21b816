"""Cut the worst places out of the shipped examples: `python examples/failures.py` writes to examples/failures.

For each example, the picture shows the 96×96 window with the largest mean squared error of the result with all
references. From left to right: bicubic, without references, with references, truth.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from def_hub import DEFPipeline, images, make_operator

HERE = Path(__file__).resolve().parent
WINDOW, STEP = 96, 8  # side of a window, and distance of neighbouring windows, in pixels
ZOOM = 2  # the saved pictures are this much larger


def errors(x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each window, `[rows, columns]`."""
    return F.avg_pool2d((x - truth).square().mean(1, keepdim=True), WINDOW, STEP)[0, 0]


def main() -> None:
    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    (HERE / "failures").mkdir(exist_ok=True)
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
        shown = (bicubic, without_reference, result, truth)
        parts = [x[..., top : top + WINDOW, left : left + WINDOW] for x in shown]
        strip = F.interpolate(torch.cat(parts, dim=-1), scale_factor=ZOOM, mode="nearest")
        target = HERE / "failures" / f"{name}.jpg"
        images.to_pil(strip).save(target, quality=88)
        psnr = [f"{-10 * float(errors(x, truth)[row, column].log10()):.1f} dB" for x in shown[:3]]
        print(f"{target.name}: at ({left}, {top}), bicubic {psnr[0]}, without references {psnr[1]}, with {psnr[2]}")


if __name__ == "__main__":
    main()
