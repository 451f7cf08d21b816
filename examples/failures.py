"""Cuts the worst places out of the shipped examples: `python examples/failures.py`; pictures beside the weights.

For each example, the 96×96 window in which the result with all its references is furthest from the truth, by the mean
square error. From left to right: bicubic, without references, with them, truth.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from def_hub import DEFPipeline, images, make_operator

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parent / "def_hub" / "weights" / "def-mini" / "failures"  # where the model card shows them
WINDOW, STEP, ENLARGED = 96, 8, 2


def errors(x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean square error of every window, `[rows, columns]`, one for each `STEP` pixels."""
    return F.avg_pool2d((x - truth).square().mean(1, keepdim=True), WINDOW, STEP)[0, 0]


def main() -> None:
    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    PICTURES.mkdir(exist_ok=True)
    for name in ("street", "robot", "banana"):
        y, truth = images.to_tensor(HERE / f"{name}_lr.png"), images.to_tensor(HERE / f"{name}_hr.webp")
        references = [images.to_tensor(path) for path in sorted(HERE.glob(f"{name}_ref*.jpg"))]
        alone, result = (
            pipe(y, r, generator=torch.Generator().manual_seed(0), output_type="pt").images[0][None]
            for r in (None, references)
        )
        bicubic = make_operator().upsample(y)
        found = errors(result, truth)
        row, column = divmod(int(found.argmax()), found.shape[1])
        top, left = row * STEP, column * STEP
        parts = [x[..., top : top + WINDOW, left : left + WINDOW] for x in (bicubic, alone, result, truth)]
        strip = F.interpolate(torch.cat(parts, dim=-1), scale_factor=ENLARGED, mode="nearest")
        target = PICTURES / f"{name}.jpg"
        images.to_pil(strip).save(target, quality=88)
        psnr = [f"{-10 * float(errors(x, truth)[row, column].log10()):.1f}" for x in (bicubic, alone, result)]
        print(f"{target.name}: at ({left}, {top}), bicubic {psnr[0]} dB, alone {psnr[1]} dB, result {psnr[2]} dB")


if __name__ == "__main__":
    main()
