"""The two things about PNG that Pillow does not do: reading over chunks that are too large, and writing 16 bits."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
LARGEST = 1_000_000
"""Bytes, uncompressed, of a text or a profile that is read. Pillow gives up the whole picture at 1 MiB."""
LARGEST_TOGETHER = 16_000_000


def without_large_chunks(path: Path) -> io.BytesIO | None:
    """The file without those texts and profiles that are larger than `LARGEST`; None where there are none such, or the
    file is no PNG. The picture itself does not depend on them.
    """
    with path.open("rb") as file:
        if file.read(8) != SIGNATURE:
            return None
        large, together = [], 0
        for start, kind, length in _chunks(file):
            if kind not in (*TEXTS, b"iCCP"):
                continue
            size = _uncompressed(file, start, kind, length)
            together += size if kind in TEXTS else 0
            if size > LARGEST or together > LARGEST_TOGETHER:
                large.append((start, start + length + 12))
        if not large:
            return None
        file.seek(0)
        data = file.read()
    ends = [0, *(end for _, end in large)]
    starts = [*(start for start, _ in large), len(data)]
    return io.BytesIO(b"".join(data[a:b] for a, b in zip(ends, starts, strict=True)))


def write16(pixels: np.ndarray, compression: int, profile: bytes = b"", exif: bytes = b"", dpi: float = 0) -> bytes:
    """A PNG file of `HxWx1` (grey), `HxWx3` or `HxWx4` (with alpha) uint16; rows are stored as differences."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    above = np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows - above], axis=1)  # 2: PNG's filter "up"
    kind = {1: 0, 3: 2, 4: 6}[channels]
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    if profile and channels > 1:
        chunks.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if dpi:
        metre = round(dpi / 0.0254)
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", metre, metre, 1)))
    if exif:
        chunks.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [_chunk(b"IDAT", zlib.compress(filtered.tobytes(), compression)), _chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(file: BinaryIO) -> Iterator[tuple[int, bytes, int]]:
    """Where each chunk starts, its kind and the length of what is in it; ends where the file does."""
    end = file.seek(0, io.SEEK_END)
    start = 8
    while start + 12 <= end:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        if start + length + 12 > end:
            return
        yield start, kind, length
        start += length + 12


def _uncompressed(file: BinaryIO, start: int, kind: bytes, length: int) -> int:
    """Bytes that a text or a profile takes in memory, counted up to a little over `LARGEST`."""
    if length > LARGEST or kind == b"tEXt":
        return length
    file.seek(start + 8)
    data = file.read(length)
    name, _, rest = data.partition(b"\0")
    if kind == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        if not compressed:
            return length
    else:
        rest = rest[1:]  # the method of compression, of which there is one
    try:
        return len(name) + len(zlib.decompressobj().decompress(rest, LARGEST + 1))
    except zlib.error:
        return length
