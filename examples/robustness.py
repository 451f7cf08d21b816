"""How much of a reference's gain is left when the reference is changed, on groups of views (CUFED5 layout).

    python examples/robustness.py DATA/MultiView [--every 5] [--preset balanced] [--precision float32]
        [--only x2 turned90] [--stability] [--output robustness.csv]

Every picture is enlarged alone, with its first reference, and with that reference changed in many ways. Three tables
are printed: the share of the gain that each change leaves; what a harmful reference costs when it is the only one; and
what it takes from the sharp one beside it. PSNR is measured on Y without cropping. With --output, rows that the file
already holds are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.evaluation.datasets import Dataset, load_dataset
from def_hub.evaluation.metrics import psnr
from def_hub.images import to_pil, to_tensor

FIELDS = ("group", "change", "psnr", "served", "seconds")
NONE, UNCHANGED, BESIDE = "none", "unchanged", "sharp+"
Change = Callable[[Tensor], Tensor]


def resized(picture: Tensor, factor: float) -> Tensor:
    """`factor` times as large, as Pillow's bicubic does it."""
    sides = [round(n * factor) for n in picture.shape[2:]]
    return F.interpolate(picture, sides, mode="bicubic", antialias=True).clamp(0, 1)


def exposed(picture: Tensor, stops: float, warmth: float = 0.0) -> Tensor:
    """Lit by so many stops more, and warmer: red and blue are multiplied, in linear light, by 2 to the power of
    `warmth` and of its negative."""
    linear = torch.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4)
    gain = 2 ** torch.tensor((stops + warmth, stops, stops - warmth)).view(1, 3, 1, 1)
    linear = (linear * gain).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def toned(picture: Tensor, gain: float, offset: float) -> Tensor:
    """Hazy (gain below one, offset above zero) or contrasty."""
    return (picture * gain + offset).clamp(0, 1)


def shaded(picture: Tensor) -> Tensor:
    """In shadow at its left border and in the sun at its right one."""
    return (picture * torch.linspace(0.5, 1.3, picture.shape[3])).clamp(0, 1)


def grey(picture: Tensor) -> Tensor:
    return (
        (picture * picture.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1))
        .sum(1, keepdim=True)
        .expand(-1, 3, -1, -1)
    )


def jpeg(picture: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    to_pil(picture).save(file, "JPEG", quality=quality)
    return to_tensor(Image.open(file))


def bordered(picture: Tensor) -> Tensor:
    """Black bars on all sides, a tenth of the picture each."""
    height, width = picture.shape[2:]
    return F.pad(picture, (width // 10, width // 10, height // 10, height // 10))


def watermarked(picture: Tensor) -> Tensor:
    """White letters all over the picture, half transparent."""
    height, width = picture.shape[2:]
    stamp = Image.new("L", (width, height))
    draw = ImageDraw.Draw(stamp)
    size = max(width // 16, 8)
    for row, top in enumerate(range(0, height, 2 * size)):
        draw.text((-(row % 2) * size, top), "© SAMPLE   " * 8, fill=128, font_size=size)
    return picture.lerp(torch.ones(()), to_tensor(stamp)[:, :1])


def unsharp(picture: Tensor) -> Tensor:
    return to_tensor(to_pil(picture).filter(ImageFilter.UnsharpMask(2, 250, 0)))


def blurred(picture: Tensor, radius: float) -> Tensor:
    return to_tensor(to_pil(picture).filter(ImageFilter.GaussianBlur(radius)))


def noisy(picture: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return (picture + sigma / 255 * noise).clamp(0, 1)


def halftone(picture: Tensor) -> Tensor:
    """Round dots on a lattice turned by 45°, per channel."""
    height, width = picture.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    wave = torch.cos((x + y) * (math.pi / 3)) * torch.cos((x - y) * (math.pi / 3))
    return (picture > 0.5 + 0.45 * wave).float()


def dithered(picture: Tensor) -> Tensor:
    """Black and white, by error diffusion (Floyd and Steinberg)."""
    return to_tensor(to_pil(picture).convert("1").convert("RGB"))


def pixel_grid(picture: Tensor) -> Tensor:
    """A screen, photographed: every fourth line is dark."""
    height, width = picture.shape[2:]
    dark = (torch.arange(height)[:, None] % 4 == 0) | (torch.arange(width) % 4 == 0)
    return picture * (1 - 0.65 * dark.float())


KEEPING: dict[str, tuple[Change, float]] = {
    "x0.5": (lambda p: resized(p, 0.5), 0),
    "x1.3": (lambda p: resized(p, 1.3), 0.95),
    "x2": (lambda p: resized(p, 2), 0.95),
    "x4": (lambda p: resized(p, 4), 0.95),
    "turned90": (lambda p: p.rot90(1, (2, 3)), 0.90),
    "turned180": (lambda p: p.rot90(2, (2, 3)), 0.90),
    "mirrored": (lambda p: p.flip(3), 0.60),
    "darker, warmer": (lambda p: exposed(p, -1, 0.3), 0.67),
    "brighter": (lambda p: exposed(p, 1), 0.67),
    "colder": (lambda p: exposed(p, 0, -0.3), 0.67),
    "hazy": (lambda p: toned(p, 0.6, 0.3), 0.67),
    "contrasty": (lambda p: toned(p, 1.4, -0.2), 0.67),
    "grey": (grey, 0.67),
    "shaded": (shaded, 0.67),
    "jpeg60": (lambda p: jpeg(p, 60), 0.95),
    "bordered": (bordered, 0.9),
    "watermarked": (watermarked, 0),
}
"""Changes after which a reference must keep so large a share of its gain."""
HARMFUL: dict[str, Change] = {
    "soft": lambda p: blurred(p, 3),
    "halftone": halftone,
    "dithered": dithered,
    "pixel grid": pixel_grid,
    "over-sharpened": unsharp,
    "noisy": lambda p: noisy(p, 25),
}
"""Changes after which a reference shall not cost more than 0.05 dB on the mean."""
ENLARGED = tuple(round(6 ** (step / 9), 2) for step in range(10))
"""Factors between which the result shall hardly differ: within 0.15 dB."""
COPIES: dict[str, Change] = {
    "copy, bicubic": lambda y: resized(y, 4),
    "copy, nearest": lambda y: y.repeat_interleave(4, 2).repeat_interleave(4, 3),
    "copy, JPEG 80": lambda y: jpeg(resized(y, 4), 80),
    "copy, larger": lambda y: resized(y, 9),
}
"""Enlarged copies of the picture itself."""


class Trial:
    """Runs a pipeline on the groups of a data set and records what came of it."""

    def __init__(self, dataset: Dataset, options: argparse.Namespace) -> None:
        self.dataset, self.options = dataset, options
        self.rows: dict[tuple[str, str], dict[str, float]] = {}
        if options.output and options.output.exists():
            with open(options.output, newline="") as file:
                for row in csv.DictReader(file):
                    self.rows[row["group"], row["change"]] = {name: float(row[name]) for name in FIELDS[2:]}
        self.pipe = DEFPipeline.from_pretrained()
        self.pipe.set_progress_bar_config(disable=True)

    def group(self, number: int) -> None:
        """Every change of one group that was not measured before and is asked for."""
        truth, y = self.dataset.load(number)
        sharp = self.dataset.load_references(number, "first")[0]
        harmful = {name: (change, sharp) for name, change in HARMFUL.items()}
        harmful |= {name: (change, y) for name, change in COPIES.items()}
        self._measured(number, NONE, truth, y, [])
        self._measured(number, UNCHANGED, truth, y, [sharp])
        if self.options.stability:
            for factor in ENLARGED:
                self._measured(number, f"enlarged {factor}", truth, y, [(lambda p, f=factor: resized(p, f), sharp)])
            return
        for name, (change, _) in KEEPING.items():
            self._measured(number, name, truth, y, [(change, sharp)])
        for name, (change, source) in harmful.items():
            self._measured(number, name, truth, y, [(change, source)])
            self._measured(number, BESIDE + name, truth, y, [sharp, (change, source)])
        unrelated = self.dataset.load_references(number, "unrelated")[0]
        self._measured(number, "unrelated", truth, y, [unrelated])
        self._measured(number, "unrelated, x4", truth, y, [(lambda p: resized(p, 4), unrelated)])
        self._measured(number, BESIDE + "unrelated", truth, y, [sharp, unrelated])

    def _measured(
        self, number: int, change: str, truth: Tensor, y: Tensor, references: list[Tensor | tuple[Change, Tensor]]
    ) -> None:
        item, only = self.dataset.items[number].name, self.options.only
        if (item, change) in self.rows or (only and change not in (NONE, UNCHANGED, *only)):
            return
        pictures = [r if isinstance(r, Tensor) else to_tensor(to_pil(r[0](r[1]))) for r in references]
        started = time.perf_counter()
        output = self.pipe(
            y,
            pictures or None,
            preset=self.options.preset,
            precision=self.options.precision,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        )
        seconds = time.perf_counter() - started
        score = float(psnr(output.images[0][None], truth))
        served = float((output.confidence[0] > 0.3).float().mean())
        self.rows[item, change] = {"psnr": score, "served": served, "seconds": seconds}
        print(f"{item} {change:24}{score:8.2f} dB, {served:6.1%} trusted, {seconds:6.1f} s", flush=True)
        if self.options.output:
            new = not self.options.output.exists()
            with open(self.options.output, "a", newline="") as file:
                writer = csv.writer(file)
                if new:
                    writer.writerow(FIELDS)
                writer.writerow((item, change, f"{score:.4f}", f"{served:.4f}", f"{seconds:.2f}"))

    def mean_gain(self, change: str, over: str, groups: list[str]) -> float | None:
        """Mean difference in dB between two changes, None where one was not measured in every group."""
        if not all((g, c) in self.rows for g in groups for c in (change, over)):
            return None
        return fmean(self.rows[g, change]["psnr"] - self.rows[g, over]["psnr"] for g in groups)

    def report(self, groups: list[str]) -> None:
        whole = self.mean_gain(UNCHANGED, NONE, groups)
        assert whole is not None
        print(f"\n{len(groups)} groups, preset {self.options.preset}: the reference gives {whole:+.3f} dB\n")
        if self.options.stability:
            for g in groups:
                scores = [self.rows[g, f"enlarged {factor}"]["psnr"] for factor in ENLARGED]
                print(f"{g}: ten enlargements up to 6 differ by {max(scores) - min(scores):.2f} dB")
            return
        print(f"{'change':26}{'gain':>9}{'kept':>8}{'wanted':>9}{'worst':>9}")
        for name, (_, wanted) in KEEPING.items():
            gain = self.mean_gain(name, NONE, groups)
            if gain is not None:
                worst = min(self.rows[g, name]["psnr"] - self.rows[g, NONE]["psnr"] for g in groups)
                print(f"{name:26}{gain:+9.3f}{gain / whole:8.0%}{wanted or '':>9}{worst:+9.2f}")
        print(f"\n{'harmful':26}{'alone':>9}{'worst':>9}{'beside':>9}{'worst':>9}   (dB; beside: the sharp one)")
        for name in (*HARMFUL, *COPIES, "unrelated", "unrelated, x4"):
            cells = []
            for change, over in ((name, NONE), (BESIDE + name, UNCHANGED)):
                gain = self.mean_gain(change, over, groups)
                if gain is not None:
                    worst = min(self.rows[g, change]["psnr"] - self.rows[g, over]["psnr"] for g in groups)
                    cells.append(f"{gain:+9.3f}{worst:+9.2f}")
            if cells:
                print(f"{name:26}{''.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every so many-th group")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--only", nargs="+", help="names of the changes to measure")
    parser.add_argument("--stability", action="store_true", help="ten enlargements of the reference instead")
    parser.add_argument("--output", type=Path, help="CSV file of the rows, which is continued")
    options = parser.parse_args()
    trial = Trial(load_dataset(options.dataset), options)
    numbers = range(0, len(trial.dataset.items), options.every)
    for number in numbers:
        trial.group(number)
    trial.report([trial.dataset.items[number].name for number in numbers])


if __name__ == "__main__":
    main()
