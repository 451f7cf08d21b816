"""PNG and TIFF files of which every byte is ours, for what Pillow does not write."""

import struct
import zlib

import numpy as np


def png(size: tuple[int, int], data: bytes = b"") -> bytes:
    """An 8-bit RGB PNG of any size with any compressed data."""
    head = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png16(pixels: np.ndarray) -> bytes:
    """A PNG file of 16-bit RGB pixels, not filtered."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff16(pixels: np.ndarray, order: str, packed: bool) -> bytes:
    """A TIFF file of 16-bit RGB pixels in one strip; Pillow writes none. order: of the bytes, "<" or ">"."""
    height, width, _ = pixels.shape
    strip = pixels.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if packed else strip
    longs = {256: width, 257: height, 259: 8 if packed else 1, 262: 2, 273: 8, 277: 3, 278: height, 279: len(strip)}
    at = 8 + len(strip) + len(strip) % 2
    entries = [(tag, 4, 1, value) for tag, value in longs.items()]
    entries.append((258, 3, 3, at + 2 + 12 * (len(entries) + 1) + 4))  # three numbers: they lie behind the table
    table = struct.pack(f"{order}H", len(entries)) + b"".join(struct.pack(f"{order}HHII", *e) for e in sorted(entries))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, at)
    return head + strip + bytes(len(strip) % 2) + table + struct.pack(f"{order}I3H", 0, 16, 16, 16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def inserted(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG file with one more chunk, before its pixels."""
    return data[:33] + chunk(kind, content) + data[33:]
