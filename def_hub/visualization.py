"""Pictures that explain a result: confidence, matches, provenance, before/after, steps of the diffusion.

The functions take the fields of `DEFOutput` for one image and return a Pillow image. They open no window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from def_hub.images import ImageLike, to_pil, to_tensor
from def_hub.observation.downsample import SCALE
from def_hub.sheet import PAPER, Legend, Line, Panel, sheet, to_height

# Eleven stops of the colour map viridis. Equal steps of value look equal, also in grey and to the colour-blind.
VIRIDIS = np.array(
    [
        [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
        [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
    ],
    dtype=np.float64,
)  # fmt: skip

# Colours of input, prior, reference 1, 2, …: Okabe and Ito's, which the colour-blind can tell apart, and two dark ones.
INPUT, PRIOR = (200, 200, 196), (230, 159, 0)
REFERENCES = (
    (0, 114, 178), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66),
    (96, 42, 130), (110, 60, 30),
)  # fmt: skip


class Explained(Protocol):
    """The fields of `DEFOutput` that `pictures` reads: lists with one entry per image."""

    images: list
    enhanced: list
    transferred: list
    confidence: list
    correspondence: list
    provenance: list


@dataclass(frozen=True)
class Source:
    """One source of detail: its name, its colour in the drawings, and its share of the whole picture in [0, 1]."""

    name: str
    colour: tuple[int, int, int]
    share: float


def pictures(
    output: Explained, index: int, references: Sequence[ImageLike], sizes: Sequence[tuple[int, int]] | None = None
) -> dict[str, Image.Image]:
    """All pictures that explain image `index` of an output, by name. sizes: see `match_drawing`.

    "enhanced", "confidence" and "provenance"; with references also "transferred" and "matches".
    """
    drawn = {"enhanced": _pil(output.enhanced[index])}
    if references:
        drawn["transferred"] = _pil(output.transferred[index])
    drawn["confidence"] = confidence_map(output.confidence[index])
    if references:
        correspondence, confidence = output.correspondence[index], output.confidence[index]
        drawn["matches"] = match_drawing(output.images[index], references, correspondence, confidence, sizes=sizes)
    drawn["provenance"] = provenance_map(output.provenance[index])
    return drawn


def confidence_map(confidence: Tensor, scale: int = SCALE) -> Image.Image:
    """The confidence of each LR pixel's match, `[h,w]` in `[0,1]`, as a map `scale` times larger with a colour bar.

    Raises ValueError for another shape.
    """
    if confidence.ndim != 2:
        raise ValueError(f"confidence: expected [h,w], got {list(confidence.shape)}")
    values = confidence.detach().float().cpu().numpy()
    picture = Image.fromarray(_viridis(values))
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    bar = Image.fromarray(_viridis(np.tile(np.linspace(0, 1, 160), (12, 1))))
    legend = Legend([("confidence 0", None), ("1", None), (f"mean {values.mean():.2f}", None)], bar)
    return sheet([[Panel(picture)]], legend)


def provenance_map(provenance: Tensor) -> Image.Image:
    """The shares `[2+K,H,W]` of input, prior and reference 1 … K at each pixel, as a mixture of their colours.

    The legend gives each source's share of the whole picture. Raises ValueError for another shape.
    """
    if provenance.ndim != 3 or provenance.shape[0] < 2:
        raise ValueError(f"provenance: expected [2+K,H,W], got {list(provenance.shape)}")
    shown = sources(provenance)
    per_cents = per_cent([source.share for source in shown])
    entries = [(f"{source.name} {n} %", source.colour) for source, n in zip(shown, per_cents, strict=True)]
    return sheet([[Panel(Image.fromarray(_mixed(provenance)))]], Legend(entries))


def provenance_overlay(provenance: Tensor, result: ImageLike) -> Image.Image:
    """The colours of `provenance_map` laid over the result in grey, at the result's size and without a legend.

    Raises ValueError if the sizes differ.
    """
    target = _pil(result)
    if provenance.ndim != 3 or tuple(provenance.shape[1:]) != (target.height, target.width):
        raise ValueError(f"provenance: expected [2+K,{target.height},{target.width}], got {list(provenance.shape)}")
    return _tint(target, _mixed(provenance), np.full(provenance.shape[1:], 0.6))


def sources(provenance: Tensor) -> list[Source]:
    """The sources that the shares `[2+K,H,W]` belong to, in the same order."""
    means = provenance.detach().float().mean(dim=(1, 2)).tolist()
    names = ["input", "diffusion prior", *(f"reference {k + 1}" for k in range(len(means) - 2))]
    colours = [INPUT, PRIOR, *(reference_colour(k) for k in range(len(means) - 2))]
    return [Source(*source) for source in zip(names, colours, means, strict=True)]


def per_cent(shares: Sequence[float]) -> list[int]:
    """Shares as whole per cents with the right sum: those with the largest remainders are rounded up."""
    exact = [100 * share for share in shares]
    whole = [math.floor(value) for value in exact]
    missing = round(sum(exact)) - sum(whole)
    for index in sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])[:missing]:
        whole[index] += 1
    return whole


def thumbnail(picture: ImageLike, side: int) -> Image.Image:
    """A copy that fits into a square of `side` pixels. Smaller pictures keep their size."""
    small = _pil(picture)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def match_drawing(
    result: ImageLike,
    references: Sequence[ImageLike],
    correspondence: Tensor,
    confidence: Tensor,
    lines: int = 40,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Image.Image:
    """The matches, in two rows of panels: the result beside its references.

    In the upper row, lines join the most confident places with their matches. In the lower row, each reference is
    tinted by position, and each cell of the result has the tint of its match; the tint is stronger where the confidence
    is higher. Smooth colours mean coherent matches. The captions say what share of the cells each reference is matched
    with.

    Args:
        correspondence: `[3,h,w]`: number of the reference (-1 for none), x and y in pixels of that reference.
        confidence: `[h,w]` in `[0,1]`.
        lines: the most places that are joined.
        sizes: (width, height) of the references that the correspondence counts in, where `references` are smaller
            copies of them.

    Raises:
        ValueError: for other shapes, and for a reference number without a reference.
    """
    if correspondence.ndim != 3 or correspondence.shape[0] != 3:
        raise ValueError(f"correspondence: expected [3,h,w], got {list(correspondence.shape)}")
    if confidence.shape != correspondence.shape[1:]:
        expected = list(correspondence.shape[1:])
        raise ValueError(f"confidence: expected {expected}, got {list(confidence.shape)}")
    field = correspondence.detach().float().cpu().nan_to_num(-1).numpy()
    sure = confidence.detach().float().cpu().clamp(0, 1).numpy()
    if field[0].max() >= len(references):
        raise ValueError(f"correspondence names reference {int(field[0].max())}, only {len(references)} given")

    target = _pil(result)
    height = min(480, max(240, target.height))
    sharp, full = [], []
    for reference in references:  # kept no larger than it is drawn
        picture = _pil(reference)
        full.append(picture.size)
        sharp.append(to_height(picture, min(height, picture.height)))
    full = list(sizes or full)
    tinted = [_tint(target, _cell_colours(field, full), 0.75 * sure * (field[0] >= 0))]
    for number, source in enumerate(sharp):
        grid_y, grid_x = np.mgrid[: source.height, : source.width].astype(np.float64)
        colours = _position_colours(number, grid_x / source.width, grid_y / source.height)
        tinted.append(_tint(source, colours, np.full(grid_x.shape, 0.75)))
    share = [100 * float((field[0] == number).mean()) for number in range(len(sharp))]
    names = ["result", *(f"reference {n}: {s:.0f} % of cells" for n, s in enumerate(share, start=1))]
    rows = [
        [Panel(to_height(p, height), name) for p, name in zip([target, *sharp], names, strict=True)],
        [Panel(to_height(p, height)) for p in tinted],
    ]
    joined = []
    for row, column in _spread(field, sure, lines):
        number, x, y = int(field[0, row, column]), field[1, row, column], field[2, row, column]
        wide, high = full[number]
        here = ((column + 0.5) / field.shape[2], (row + 0.5) / field.shape[1])
        there = ((x + 0.5) / wide, (y + 0.5) / high)
        colour = _position_colours(number, np.array(there[0]), np.array(there[1]))
        joined.append(Line((0, 0), here, (0, 1 + number), there, tuple(int(c) for c in colour)))
    return sheet(rows, lines=joined)


def before_after(before: ImageLike, after: ImageLike, labels: tuple[str, str] = ("input", "result")) -> Image.Image:
    """The input beside the result. The input is enlarged to the result's size by repeating pixels."""
    result = _pil(after)
    small = _pil(before).resize(result.size, Image.Resampling.NEAREST)
    return sheet([[Panel(small, labels[0]), Panel(result, labels[1])]])


def steps_strip(steps: Sequence[tuple[str, ImageLike]], height: int = 256) -> Image.Image:
    """Labelled pictures in a row, such as the estimates x₀|ₜ after some diffusion steps."""
    if not steps:
        raise ValueError("steps: expected at least one labelled picture, got none")
    return sheet([[Panel(to_height(_pil(picture), height), label) for label, picture in steps]])


def reference_colour(number: int) -> tuple[int, int, int]:
    """The colour of reference `number`, counted from 0. The colours repeat after eight references."""
    return REFERENCES[number % len(REFERENCES)]


# ---------------------------------------------------------------------------------------------- colours


def _viridis(values: np.ndarray) -> np.ndarray:
    """`[h,w]`, clipped to `[0,1]` → `[h,w,3]` uint8."""
    position = np.clip(values, 0, 1) * (len(VIRIDIS) - 1)
    stops = np.arange(len(VIRIDIS))
    channels = [np.interp(position, stops, VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _position_colours(number: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A colour for each place (x, y in `[0,1]`) of a reference: the hue changes with x, the brightness falls with y.

    Each reference has its own third of the colour circle, so the hue also shows which reference it is.
    """
    x, y = np.clip(x, 0, 1), np.clip(y, 0, 1)
    hue = (0.58 + 0.34 * number + 0.30 * x) % 1.0
    value, saturation = 1.0 - 0.55 * y, 0.45 + 0.5 * y
    channels = [  # HSV to RGB in its closed form
        value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))
        for k in ((shift + 6 * hue) % 6 for shift in (5, 3, 1))
    ]
    return (255 * np.stack(channels, axis=-1)).round().astype(np.uint8)


def _cell_colours(field: np.ndarray, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """`[3,h,w]` correspondence → `[h,w,3]` uint8: the colour of each cell's match."""
    colours = np.full((*field.shape[1:], 3), 160, np.uint8)
    for number, (width, height) in enumerate(sizes):
        own = field[0] == number
        colours[own] = _position_colours(number, field[1][own] / width, field[2][own] / height)
    return colours


def _mixed(provenance: Tensor) -> np.ndarray:
    """Shares `[2+K,H,W]` → the mixture of their sources' colours, `[H,W,3]` uint8."""
    shares = provenance.detach().float().cpu().clamp(0, 1)
    colours = torch.tensor([source.colour for source in sources(shares)], dtype=torch.float32)
    return torch.einsum("khw,kc->hwc", shares, colours).round().clamp(0, 255).to(torch.uint8).numpy()


def _tint(picture: Image.Image, colours: np.ndarray, strength: np.ndarray) -> Image.Image:
    """`picture` in grey, covered by `colours` `[h,w,3]` with the opacity `strength` `[h,w]` in `[0,1]`."""
    grey = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size, PAPER), 0.25)
    veil = Image.fromarray(colours).resize(picture.size, Image.Resampling.NEAREST)
    mask = Image.fromarray((255 * strength).round().astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(veil, grey, mask)


# ---------------------------------------------------------------------------------------------- matches


def _spread(field: np.ndarray, sure: np.ndarray, count: int) -> list[tuple[int, int]]:
    """(row, column) of at most `count` cells with confident and coherent matches, one in each block of the picture.

    A match is coherent if its shift differs from that of the four neighbours by at most twice the width of a cell. This
    allows a reference at three times the scale.
    """
    number, moved = field[0], field[1:] - 4.0 * np.stack(np.meshgrid(*map(np.arange, field.shape[:0:-1])))
    weight = np.where(number >= 0, sure, 0.0)
    for axis in (0, 1):
        jump = np.abs(np.diff(moved, axis=axis + 1)).max(axis=0)
        torn = (jump > 8) | (np.diff(number, axis=axis) != 0)
        before, after = (np.pad(torn, [side if axis == a else (0, 0) for a in (0, 1)]) for side in ((0, 1), (1, 0)))
        weight = np.where(before | after, 0.0, weight)
    rows, columns = weight.shape
    block = max(1, int(np.sqrt(rows * columns / max(count, 1))))
    best = []
    for top in range(0, rows, block):
        for left in range(0, columns, block):
            part = weight[top : top + block, left : left + block]
            row, column = np.unravel_index(int(part.argmax()), part.shape)
            if part[row, column] > 0:
                best.append((float(part[row, column]), top + int(row), left + int(column)))
    return [(row, column) for _, row, column in sorted(best, reverse=True)[:count]]


def _pil(image: ImageLike) -> Image.Image:
    return to_pil(to_tensor(image))
