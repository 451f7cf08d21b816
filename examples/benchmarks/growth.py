"""Measure how time and memory of the whole pipeline grow with the size of the pictures: table, exponents, plot.

    python examples/benchmarks/growth.py [--model FOLDER] [--sides 125 250 500 1000] [--plot growth.svg]
    python examples/benchmarks/growth.py --fit

Each row is one call in a fresh process, after a small call to warm up. The image is square, the reference has the size
of the result, and the preset is "balanced". Megabytes are the peak memory of the process, minus its memory with the
model loaded. The exponent is the slope of a line through the logarithms; 1 means linear in the number of pixels.

With --fit the script measures other calls and prints the constants of `def_hub/estimate.py` that fit them best, by
relative error. Then it compares the shipped constants with calls that were not used in the fit.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1]


def measure(
    model: str | None, side: int, reference: tuple[int, int], count: int, preset: str, precision: str
) -> dict[str, float]:
    """Seconds and megabytes of one call in this process, after a small call to warm up."""
    import torch
    from PIL import Image

    from def_hub import DEFPipeline, images

    pipe = DEFPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    image = images.open_rgb(EXAMPLES / "street_hr.webp")
    sharp = images.open_rgb(EXAMPLES / "street_ref1.jpg")

    def call(image: Image.Image, references: list[Image.Image]) -> float:
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(0)
        pipe(image, references or None, preset=preset, generator=generator, precision=precision, output_type="pt")
        return time.perf_counter() - started

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call(image.resize((32, 32)), [sharp.resize((128, 128))])
    small = image.resize((side, side), Image.Resampling.BICUBIC)
    references = [sharp.resize(reference, Image.Resampling.BICUBIC)] * count
    seconds = call(small, references)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "megabytes": (after - before) / 1024, "peak": after / 1024}


def fresh(
    model: str | None, side: int, reference: int, count: int = 1, preset: str = "balanced", precision: str = "auto"
) -> dict[str, float]:
    """`measure` in a fresh process. The reference is square, with `reference` pixels along a side."""
    case = [model, side, [max(reference, 8)] * 2, count, preset, precision]
    command = [sys.executable, __file__, "--here", json.dumps(case)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    measured: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return measured


def exponent(pixels: list[float], values: list[float]) -> float:
    """Slope of log(values) over log(pixels), least squares."""
    x, y = [math.log(p) for p in pixels], [math.log(v) for v in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


FITTED = (  # calls for the fit: side of the image, side and number of the references, preset
    (40, 0, 0, "balanced"),
    (125, 0, 0, "balanced"),
    (300, 0, 0, "balanced"),
    (125, 500, 1, "balanced"),
    (125, 1200, 1, "balanced"),
    (250, 500, 2, "balanced"),
    (300, 1200, 1, "balanced"),
    (500, 1500, 1, "balanced"),
    (50, 800, 2, "balanced"),
    (100, 1200, 1, "fast"),
    (64, 256, 1, "detail"),
    (200, 600, 1, "detail"),
)
CHECKED = (  # other calls, in the same form
    (90, 300, 1, "balanced"),
    (180, 720, 2, "balanced"),
    (220, 0, 0, "balanced"),
    (48, 900, 1, "balanced"),
    (56, 640, 3, "fast"),
    (400, 1600, 1, "fast"),
    (150, 800, 1, "detail"),
    (600, 2000, 1, "balanced"),
)


NETWORKS = ("turned", "step", "searched")
REST = ("calls", "image", "matched", "reference")
MEMORY = ("calls", "image", "part", "reference", "copy")


def positive(rows: list[list[float]], values: list[float]) -> list[float]:
    """The non-negative cost of each column of `rows` that explains the values best, by relative error."""
    import torch

    wanted = torch.tensor(values, dtype=torch.float64)
    columns = torch.tensor(rows, dtype=torch.float64) / wanted[:, None]
    kept = columns.sum(0).nonzero()[:, 0].tolist()
    while True:  # drop the most negative column until none is negative
        costs = torch.linalg.lstsq(columns[:, kept], torch.ones(len(values), 1, dtype=torch.float64)).solution[:, 0]
        if costs.min() >= 0:
            return [float(costs[kept.index(k)]) if k in kept else 0.0 for k in range(columns.shape[1])]
        del kept[int(costs.argmin())]


def written(costs: list[float]) -> str:
    """The costs as Python source, to paste into `def_hub/estimate.py`."""
    from def_hub.estimate import Amounts

    return f"Amounts({', '.join(f'{n}={c:.3g}' for n, c in zip(Amounts._fields, costs, strict=True) if c)})"


def fit(model: str | None) -> None:
    """Print constants for the estimate, and compare the shipped constants with measured calls."""
    import torch

    from def_hub.estimate import Amounts, estimate, load, probe
    from def_hub.precision import fast_bfloat16

    def work(case: tuple[int, int, int, str]) -> Amounts:
        side, reference, count, preset = case
        return load((side, side), [(reference, reference)] * count, preset)

    # Networks run slowly in one precision and fast in the other. This separates their cost from that of the rest.
    precisions = ("float32", "bfloat16") if fast_bfloat16(torch.device("cpu")) else ("float32",)
    here = probe()
    rows, seconds = [], []
    for precision in precisions:
        speed = [now / then for now, then in zip(probe(precision), here, strict=True)]
        for case in FITTED:
            amounts = work(case)
            rows.append([speed[0] * a for a in amounts.only(*NETWORKS)] + [speed[1] * a for a in amounts.only(*REST)])
            seconds.append(fresh(model, *case, precision=precision)["seconds"])
    size = len(Amounts._fields)
    costs = positive(rows, seconds)
    print(f"PROBE = ({here[0]:.4f}, {here[1]:.4f})")
    print(f"NETWORKS = {written(costs[:size])}")
    print(f"REST = {written(costs[size:])}")
    held = [fresh(model, *case)["megabytes"] * 2**20 for case in FITTED]
    print(f"BYTES = {written(positive([list(work(case).only(*MEMORY)) for case in FITTED], held))}")
    print("calls that were not fitted: image, references, preset; measured and estimated seconds, MB")
    for case in CHECKED:
        side, reference, count, preset = case
        measured, guess = fresh(model, *case), estimate((side, side), [(reference, reference)] * count, preset)
        print(
            f"{side:5} {count}x{reference:<5} {preset:9} {measured['seconds']:7.2f} {guess.seconds:7.2f} "
            f"{measured['megabytes']:7.0f} {guess.bytes / 2**20:7.0f}",
            flush=True,
        )


def plot(pixels: list[float], seconds: list[float], megabytes: list[float]) -> str:
    """Time and memory over the megapixels of the result, on logarithmic axes, as SVG."""
    left, top, size, gap = 60, 40, 260, 90

    def panel(number: int, values: list[float], title: str, unit: str) -> str:
        x0 = left + number * (size + gap)
        low = [10 ** math.floor(math.log10(min(v))) for v in (pixels, values)]
        high = [10 ** math.ceil(math.log10(max(v))) for v in (pixels, values)]

        def place(p: float, v: float) -> tuple[float, float]:
            across, up = (math.log(n / a) / math.log(b / a) for n, a, b in zip((p, v), low, high, strict=True))
            return x0 + size * across, top + size * (1 - up)

        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(p, v) for p, v in zip(pixels, values, strict=True)))
        ideal = [place(p, values[0] * p / pixels[0]) for p in (pixels[0], pixels[-1])]
        text = f'<text x="{x0}" y="{top - 14}" font-weight="bold">{title}</text>'
        text += f'<rect x="{x0}" y="{top}" width="{size}" height="{size}" fill="none" stroke="#999"/>'
        for p, v in ((low[0], low[1]), (high[0], high[1])):
            x, y = place(p, v)
            text += f'<text x="{x:.0f}" y="{top + size + 18}" text-anchor="middle">{p:g} MP</text>'
            text += f'<text x="{x0 - 6}" y="{y + 4:.0f}" text-anchor="end">{v:g} {unit}</text>'
        (xa, ya), (xb, yb) = ideal
        text += f'<line x1="{xa:.1f}" y1="{ya:.1f}" x2="{xb:.1f}" y2="{yb:.1f}" stroke="#999" stroke-dasharray="4"/>'
        text += f'<polyline points="{points}" fill="none" stroke="#0d9488" stroke-width="2"/>'
        for x, y in (place(p, v) for p, v in zip(pixels, values, strict=True)):
            text += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#0d9488"/>'
        return text

    width, height = left + 2 * size + gap + 30, top + size + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + panel(0, seconds, "time (dashed: linear)", "s")
        + panel(1, megabytes, "memory (dashed: linear)", "MB")
        + "</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a DEFPipeline; by default the embedded one")
    parser.add_argument("--sides", type=int, nargs="+", default=[125, 250, 500, 1000], help="sides of the LR images")
    parser.add_argument("--plot", type=Path, help="write the curves to this SVG file")
    parser.add_argument("--fit", action="store_true", help="fit the constants of the estimate instead")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(*json.loads(options.here))))
        return

    if options.fit:
        fit(options.model)
        return

    pixels, seconds, megabytes = [], [], []
    print("     image   reference      result  seconds      MB")
    for side in options.sides:
        measured = fresh(options.model, side, 4 * side)
        pixels.append((4 * side) ** 2 / 1e6)
        seconds.append(measured["seconds"])
        megabytes.append(measured["megabytes"])
        sizes = "".join(f"{f'{n}x{n}':>12}" for n in (side, 4 * side, 4 * side))
        print(f"{sizes[2:]} {seconds[-1]:8.2f} {megabytes[-1]:7.0f}", flush=True)
    print(f"exponents: time {exponent(pixels, seconds):.2f}, memory {exponent(pixels, megabytes):.2f}")
    if options.plot:
        options.plot.write_text(plot(pixels, seconds, megabytes), encoding="utf-8")


if __name__ == "__main__":
    main()
