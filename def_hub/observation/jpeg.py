"""What a JPEG file says: its quantisation tables, how it stores colour, and its coefficients.

Pillow hands out tables and pixels, not coefficients. They are found from the decoded luma and chroma planes, without
the rounding of a conversion to RGB: a table step of 2 or more leaves no doubt about a coefficient, see `read_jpeg`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from def_hub.observation.kept import kept

Source = str | Path | bytes | Image.Image

BLOCK = 8
_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of baseline, extended and progressive frames
_SATURATED_ROUNDS = 6

FROM_RGB = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]], dtype=torch.float64
)
"""Red, green, blue → Y, Cb, Cr with zero at grey: the JFIF standard's, which libjpeg computes."""


@dataclass(frozen=True)
class JpegComponent:
    """One plane of a JPEG file: luma, or a chroma plane that may be stored smaller.

    Attributes:
        steps: quantisation table, float32 `[8, 8]`, rows are vertical frequencies.
        levels: the file's coefficients divided by `steps`, whole numbers as float32 `[rows, columns, 8, 8]` blocks.
        shrunk: how many image rows and columns make one of this plane's, as (2, 2) for the chroma of 4:2:0.
        sure: how far its blocks are within the picture, so that the decoder shows them wholly: (rows, columns).
    """

    steps: Tensor
    levels: Tensor
    shrunk: tuple[int, int]
    sure: tuple[int, int]


@dataclass(frozen=True)
class JpegFile:
    """What a file says about a picture of `height`×`width` as stored; `orientation` is EXIF's, 1 … 8: how it is
    turned to stand upright. Grey pictures have one component, others three: Y, Cb, Cr.
    """

    height: int
    width: int
    components: tuple[JpegComponent, ...]
    orientation: int = 1
    progressive: bool = False

    @cached_property
    def quality(self) -> int:
        """libjpeg's quality with the nearest luma table, 1 … 100."""
        table = self.components[0].steps.flatten()
        return min(range(1, 101), key=lambda q: float((standard_table(q) - table).abs().sum()))

    @property
    def subsampling(self) -> str:
        """ "4:4:4", "4:2:2", "4:2:0" or "grey"; the two numbers of `shrunk` for what has no such name."""
        if len(self.components) == 1:
            return "grey"
        shrunk = self.components[1].shrunk
        return {(1, 1): "4:4:4", (1, 2): "4:2:2", (2, 2): "4:2:0"}.get(shrunk, f"{shrunk[0]}x{shrunk[1]}")

    def stored(self, picture: Tensor) -> Tensor:
        """An upright picture `[..., H, W]` as the file stores it."""
        if self.orientation >= 5:
            picture = picture.mT
        flips = _FLIPS[self.orientation]
        return picture.flip(flips) if flips else picture

    def upright(self, picture: Tensor) -> Tensor:
        """The reverse of `stored`."""
        flips = _FLIPS[self.orientation]
        picture = picture.flip(flips) if flips else picture
        return picture.mT if self.orientation >= 5 else picture


_FLIPS: dict[int, list[int]] = {1: [], 2: [-1], 3: [-2, -1], 4: [-2], 5: [], 6: [-2], 7: [-2, -1], 8: [-1]}
"""Which axes of the stored picture are reversed, after rows and columns are exchanged for orientations 5 … 8."""


def jpeg_of(source: Source) -> JpegFile | None:
    """What a JPEG file says; None for other files, for pictures that no longer know their file, and for rare kinds of
    JPEG (CMYK, RGB without conversion, 12 bits, unusual sampling).

    A Pillow image must be as `Image.open` returned it: once it was turned, cropped or converted, Pillow forgets the
    file, and so it should.
    """
    source = bytes_of(source)
    if isinstance(source, Image.Image):
        return None
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    return read_jpeg(data) if data[:2] == b"\xff\xd8" else None


def is_jpeg(path: Path) -> bool:
    """Whether a file begins as JPEG files do, whatever its name."""
    with path.open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff"


def bytes_of(source: Source) -> Source:
    """The bytes of the JPEG that a Pillow image was opened from, where it still knows; anything else as it is.

    Pillow forgets a file that has no name as soon as it is decoded.
    """
    if not isinstance(source, Image.Image) or getattr(source, "format", None) != "JPEG":
        return source
    file, name = getattr(source, "fp", None), getattr(source, "filename", "")
    if file is not None:
        place = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(place)
        return data
    return Path(name).read_bytes() if name and Path(name).is_file() else source


def read_jpeg(data: bytes) -> JpegFile | None:
    """`jpeg_of` for a file's bytes.

    The picture ends within its last blocks where a side is no multiple of theirs. A copy of the file that claims the
    whole blocks' size decodes to the same pixels and the hidden ones.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("RGB", "L") or image.info.get("adobe_transform") == 0:
            return None
        frame = _frame(data)
        if frame is None:
            return None
        layers = [(row, column, table) for _, column, row, table in image.layer]  # type: ignore[attr-defined]
        tables = [torch.tensor(image.quantization[t], dtype=torch.float32).view(8, 8) for *_, t in layers]  # type: ignore[attr-defined]
        orientation = int(image.getexif().get(0x0112, 1))
        width, height = image.size
        progressive = bool(image.info.get("progressive"))
    if len(layers) == 1:
        layers = [(1, 1, layers[0][2])]  # one component has one block after the other, whatever it claims
    tallest, widest = (max(layer[axis] for layer in layers) for axis in (0, 1))
    shrunk = [(tallest // row, widest // column) for row, column, _ in layers]
    if any(s not in ((1, 1), (1, 2), (2, 2)) for s in shrunk) or shrunk[0] != (1, 1):
        return None
    # Progressive files store each component's blocks on their own, no more of them than the picture needs.
    unit = (BLOCK, BLOCK) if progressive else (BLOCK * tallest, BLOCK * widest)
    planes = _decoded(data, frame, -(-height // unit[0]) * unit[0], -(-width // unit[1]) * unit[1])
    components = tuple(
        _component(plane, table, factor, (height, width))
        for plane, table, factor in zip(planes, tables, shrunk, strict=True)
    )
    return JpegFile(height, width, components, orientation if 1 <= orientation <= 8 else 1, progressive)


@kept(128)
def standard_table(quality: int) -> Tensor:
    """libjpeg's luma table of a quality, float32 `[64]`."""
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        return torch.tensor(image.quantization[0], dtype=torch.float32)  # type: ignore[attr-defined]


@kept(8)
def dct_matrix(dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """Orthonormal DCT-II of 8 numbers, `[8 frequencies, 8]`."""
    frequency, place = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * place + 1) * frequency * torch.pi / 16) / 2
    matrix[0] /= 2**0.5
    return matrix.to(device=device, dtype=dtype)


def dct(blocks: Tensor) -> Tensor:
    """Coefficients of blocks `[..., 8, 8]`."""
    matrix = dct_matrix(blocks.dtype, blocks.device)
    return matrix @ blocks @ matrix.mT


def idct(coefficients: Tensor) -> Tensor:
    """The reverse of `dct`."""
    matrix = dct_matrix(coefficients.dtype, coefficients.device)
    return matrix.mT @ coefficients @ matrix


def to_blocks(plane: Tensor) -> Tensor:
    """`[H, W]`, multiples of 8 → `[H/8, W/8, 8, 8]`."""
    return plane.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).transpose(-3, -2)


def from_blocks(blocks: Tensor) -> Tensor:
    """The reverse of `to_blocks`."""
    return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)


def _frame(data: bytes) -> int | None:
    """Where the frame header begins that holds the picture's size; None where there is none that we know."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return at
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0xDA:
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _decoded(data: bytes, frame: int, height: int, width: int) -> list[Tensor]:
    """The planes `[height, width]` of a file told that it has this size, float64, 0 … 255."""
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    with Image.open(io.BytesIO(data[: frame + 5] + size + data[frame + 9 :])) as image:
        image.draft("YCbCr" if image.mode == "RGB" else "L", image.size)
        pixels = torch.from_numpy(np.array(image, dtype=np.float64))
    return list(pixels.unbind(-1)) if pixels.ndim == 3 else [pixels]


def _component(plane: Tensor, steps: Tensor, shrunk: tuple[int, int], size: tuple[int, int]) -> JpegComponent:
    """`plane` `[H, W]` as decoded and enlarged → its coefficients. `size`: of the picture."""
    for axis, factor in enumerate(shrunk):
        if factor == 2:
            plane = torch.linalg.lstsq(_upsampling(plane.shape[axis] // 2), plane if axis == 0 else plane.mT).solution
            plane = plane if axis == 0 else plane.mT
    rows, columns = (-(-side // (BLOCK * factor)) for side, factor in zip(size, shrunk, strict=True))
    sure = (plane.shape[0] // BLOCK, plane.shape[1] // BLOCK)
    missing = (0, max(columns * BLOCK - plane.shape[1], 0), 0, max(rows * BLOCK - plane.shape[0], 0))
    plane = torch.nn.functional.pad(plane[None, None], missing, mode="replicate")[0, 0]
    blocks = to_blocks(plane[: rows * BLOCK, : columns * BLOCK]) - 128
    low, high = blocks <= -128, blocks >= 127
    wide = steps.double()
    guess = blocks
    levels = (dct(guess) / wide).round()
    if low.any() or high.any():
        # The decoder cuts what leaves 0 … 255: there, what the coefficients themselves say counts as long as it
        # would be cut alike.
        for _ in range(_SATURATED_ROUNDS):
            shown = idct(levels * wide)
            guess = torch.where(low, shown.clamp(max=-128), torch.where(high, shown.clamp(min=127), blocks))
            levels = (dct(guess) / wide).round()
    return JpegComponent(steps, levels.float(), shrunk, (min(rows, sure[0]), min(columns, sure[1])))


@kept(16)
def _upsampling(n: int) -> Tensor:
    """libjpeg's "fancy" enlargement of a line of `n` chroma pixels, `[2n, n]` float64: three parts of the nearer and
    one of the farther."""
    matrix = torch.zeros(2 * n, n, dtype=torch.float64)
    here = torch.arange(n)
    for offset, neighbour in ((0, (here - 1).clamp(min=0)), (1, (here + 1).clamp(max=n - 1))):
        matrix[2 * here + offset, here] += 0.75
        matrix[2 * here + offset, neighbour] += 0.25
    return matrix
