"""Colour profiles made by hand, and the same colours in the numbers of each."""

import io
import struct

import numpy as np
import torch
from PIL import Image, ImageCms

from def_hub import colour

ADOBE = ((0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457))
P3 = ((0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407))
SRGB = tuple(map(tuple, colour.SRGB_TO_D50))


def srgb_curve() -> bytes:
    """As "para" of kind 3, the formula with a straight part."""
    values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para\0\0\0\0\0\3\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def table_curve(gamma: float) -> bytes:
    table = np.rint(np.linspace(0, 1, 1024) ** gamma * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(table)) + table.tobytes()


def icc(primaries: tuple, curve: bytes, space: bytes = b"RGB ") -> bytes:
    """A display profile: the header, the white, primaries relative to D50 and one curve for all channels."""
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249)}
    if space == b"RGB ":
        tags |= {n + b"XYZ": xyz(*(row[i] for row in primaries)) for i, n in enumerate((b"r", b"g", b"b"))}
        tags |= {n + b"TRC": curve for n in (b"r", b"g", b"b")}
    else:
        tags[b"kTRC"] = curve
    return profile_of(tags, space)


def profile_of(tags: dict[bytes, bytes], space: bytes) -> bytes:
    """The header, the table of the tags, the tags."""
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + xyz(0.9642, 1, 0.8249)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


PROFILES = {
    "p3": icc(P3, srgb_curve()),
    "adobe": icc(ADOBE, gamma_curve(563 / 256)),
    "table": icc(P3, table_curve(1.8)),
}


def colours() -> Image.Image:
    """Smooth colours of medium saturation, 48×40."""
    noise = np.random.default_rng(0).integers(60, 200, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((48, 40), Image.Resampling.BICUBIC)


def in_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """The same colours in numbers of another profile, by Little CMS."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    source = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, target, ImageCms.Intent.RELATIVE_COLORIMETRIC)
    assert converted is not None
    converted.info.clear()
    return converted


def lab(image: Image.Image) -> Image.Image:
    """The same colours as LAB of 8 bits."""
    srgb, other = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image, srgb, other, outputMode="LAB")
    assert converted is not None
    return converted


def levels(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() * 255)


def tables(primaries: tuple, gamma: float, both: bool = True) -> bytes:
    """A profile of tables (16-bit, to XYZ), as cameras and printers have; `both`: also those of the way back."""
    unit = 32768 / 65535  # XYZ of 1 as these tables write it
    to_xyz = np.array(primaries)
    cube = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(8, 3)
    tags = {b"A2B0": _table(np.eye(3), gamma, (cube @ to_xyz.T).clip(0) * unit, 1)}
    if both:
        tags[b"B2A0"] = _table(np.linalg.inv(to_xyz) / unit, 1, cube, 1 / gamma)
    return profile_of(tags, b"RGB ")


def _table(matrix: np.ndarray, before: float, nodes: np.ndarray, after: float) -> bytes:
    """A tag of ICC's type "mft2": a matrix, a curve, values at the corners of a cube, another curve."""
    steps = np.linspace(0, 1, 4096)
    parts = (*[steps**before] * 3, nodes.ravel(), *[steps**after] * 3)
    numbers = b"".join(np.rint(part * 65535).astype(">u2").tobytes() for part in parts)
    head = b"mft2\0\0\0\0\3\3\2\0" + np.rint(matrix * 65536).astype(">i4").tobytes()
    return head + struct.pack(">HH", len(steps), len(steps)) + numbers
