"""A sheet of pictures: panels in rows with captions, lines between them, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, QUIET = (250, 250, 248), (32, 34, 38), (120, 124, 130)
SMOOTHING = 3  # lines and dots are drawn larger by this factor and shrunk: Pillow draws without anti-aliasing


@dataclass(frozen=True)
class Panel:
    picture: Image.Image
    caption: str = ""


@dataclass(frozen=True)
class Line:
    """Joins places in two panels. A panel is (row, column) on the sheet; a place is (x, y) as shares of its size."""

    start_panel: tuple[int, int]
    start: tuple[float, float]
    end_panel: tuple[int, int]
    end: tuple[float, float]
    colour: tuple[int, ...]


@dataclass(frozen=True)
class Legend:
    """Labels with their colours. `bar`, if given, is drawn between the first two labels."""

    entries: Sequence[tuple[str, tuple[int, int, int] | None]]
    bar: Image.Image | None = None


def sheet(rows: list[list[Panel]], legend: Legend | None = None, lines: Sequence[Line] = ()) -> Image.Image:
    """Panels in rows on a light background, with captions above them, lines over them and a legend below."""
    widest = max(sum(panel.picture.width for panel in row) for row in rows)
    size = int(np.clip(widest / 45, 13, 26))
    font = ImageFont.load_default(size=size)
    margin, heading = size, round(1.7 * size)

    corners: dict[tuple[int, int], tuple[int, int]] = {}
    top, right = margin // 2, 0
    for r, row in enumerate(rows):
        top += heading if any(panel.caption for panel in row) else margin // 2
        left = margin
        for c, panel in enumerate(row):
            corners[r, c] = (left, top)
            left += panel.picture.width + margin
        right = max(right, left)
        top += max(panel.picture.height for panel in row) + margin // 2
    placed, legend_height = _place_legend(legend, font, margin, right) if legend else ([], 0)
    top += margin // 2

    page = Image.new("RGB", (right, top + legend_height), PAPER)
    draw = ImageDraw.Draw(page)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            x, y = corners[r, c]
            page.paste(panel.picture, (x, y))
            draw.text((x, y - heading / 2), panel.caption, INK, font, anchor="lm")
    for (x, y), text, mark in placed:
        if isinstance(mark, Image.Image):
            page.paste(mark.resize((mark.width, size)), (x, top + y))
        elif mark is not None:
            draw.rounded_rectangle((x, top + y, x + size, top + y + size), size / 5, mark, QUIET)
        else:
            draw.text((x, top + y + size / 2), text, INK, font, anchor="lm")
    if lines:
        _draw_lines(page, rows, corners, lines, size)
    return page


def _place_legend(
    legend: Legend, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, margin: int, right: int
) -> tuple[list[tuple[tuple[int, int], str, Image.Image | tuple[int, int, int] | None]], int]:
    """Positions of the marks and labels, wrapped at the right edge, and the height of the legend."""
    placed: list[tuple[tuple[int, int], str, Image.Image | tuple[int, int, int] | None]] = []
    x, y = margin, 0
    for number, (text, colour) in enumerate(legend.entries):
        length = round(font.getlength(text))
        mark = margin * 3 // 2 if colour else 0
        if x > margin and x + mark + length > right - margin:
            x, y = margin, y + round(1.7 * margin)
        if colour:
            placed.append(((x, y), "", colour))
        placed.append(((x + mark, y), text, None))
        x += mark + length + margin
        if legend.bar is not None and number == 0:
            placed.append(((x - margin // 2, y), "", legend.bar))
            x += legend.bar.width
    return placed, y + 2 * margin


def _draw_lines(
    sheet: Image.Image,
    rows: list[list[Panel]],
    corners: dict[tuple[int, int], tuple[int, int]],
    lines: Sequence[Line],
    size: int,
) -> None:
    """Draw thin lines with a light halo and a dot at both ends, anti-aliased (see `SMOOTHING`)."""
    layer = Image.new("RGBA", (sheet.width * SMOOTHING, sheet.height * SMOOTHING), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    thin, dot = SMOOTHING * max(1, size // 10), SMOOTHING * size / 5

    def place(panel: tuple[int, int], share: tuple[float, float]) -> tuple[float, float]:
        picture, (left, top) = rows[panel[0]][panel[1]].picture, corners[panel]
        return SMOOTHING * (left + share[0] * picture.width), SMOOTHING * (top + share[1] * picture.height)

    for line in lines:
        ends = place(line.start_panel, line.start), place(line.end_panel, line.end)
        draw.line(ends, (255, 255, 255, 150), thin * 3)
        draw.line(ends, (*line.colour, 255), thin)
        for x, y in ends:
            draw.ellipse((x - dot, y - dot, x + dot, y + dot), (*line.colour, 255), (255, 255, 255, 255), thin)
    # Pillow premultiplies by alpha before it shrinks, so transparent black does not darken the edges.
    small = layer.resize(sheet.size, Image.Resampling.BOX)
    sheet.paste(small, mask=small.getchannel("A"))


def to_height(picture: Image.Image, height: int) -> Image.Image:
    """The picture shrunk or enlarged to a height in pixels."""
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)
