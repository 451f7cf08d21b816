"""PSNR and SSIM on tensors in `[0,1]`, with the protocol explicit: published numbers differ by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Channel = Literal["y", "rgb"]

PIECE = 24
"""Pixels along a side of what `grid_pattern` looks at at a time."""


@dataclass(frozen=True)
class Protocol:
    """What is compared. Its string belongs beside every number measured under it.

    Attributes:
        channel: "y" is the luma of ITU-R BT.601 from 16 to 235, as MATLAB's `rgb2ycbcr`; "rgb" all three
            channels (one squared error over all of them; SSIM averaged over them).
        border: pixels cut from every side first. TTSR and MASA cut none, C2-Matching 4.
        rounded: compare what an 8-bit file would hold.
    """

    channel: Channel = "y"
    border: int = 0
    rounded: bool = True

    def __post_init__(self) -> None:
        if self.channel not in get_args(Channel):
            raise ValueError(f"channel must be one of {get_args(Channel)}, got {self.channel!r}")
        if self.border < 0:
            raise ValueError(f"border must be 0 pixels or more, got {self.border!r}")

    def __str__(self) -> str:
        channel = "Y (BT.601, 16-235)" if self.channel == "y" else "RGB"
        border = f"{self.border} px border cropped" if self.border else "no border crop"
        return f"{channel}, {border}, {'8 bit' if self.rounded else 'float'}"


PROTOCOLS: dict[str, Protocol] = {
    "ttsr": Protocol(),
    "masa": Protocol(),
    "c2": Protocol(border=4),
    "mmagic": Protocol("rgb", border=4),
}
"""What the published code of TTSR, MASA, C2-Matching and mmagic compares. All four make LR pictures with Pillow's
bicubic, round results to 8 bits, and use the first reference of CUFED5."""


def psnr(image: Tensor, truth: Tensor, protocol: Protocol = Protocol()) -> Tensor:
    """Peak signal-to-noise ratio in dB (peak 255) per picture: two `[B,3,H,W]` in `[0,1]` → `[B]` float64.

    Infinite where they are equal. Raises `ValueError` for shapes that differ or that the border eats up.
    """
    image, truth = _compared(image, truth, protocol)
    return 10 * torch.log10(255**2 / (image - truth).square().mean(dim=(1, 2, 3)))


def ssim(image: Tensor, truth: Tensor, protocol: Protocol = Protocol()) -> Tensor:
    """Structural similarity per picture: two `[B,3,H,W]` in `[0,1]` → `[B]` float64, 1 where they are equal.

    Wang et al. 2004 as its authors' MATLAB code does it: 11×11 gaussian window of sigma 1.5 at every place
    where it fits whole, K1 = 0.01, K2 = 0.03, L = 255. Raises as `psnr` does, and for pictures under 11×11.
    """
    image, truth = _compared(image, truth, protocol)
    if min(image.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs at least 11×11 pixels, got {image.shape[-1]}×{image.shape[-2]}")
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_i, mean_t = _window(image), _window(truth)
    variance_i = _window(image * image) - mean_i**2
    variance_t = _window(truth * truth) - mean_t**2
    covariance = _window(image * truth) - mean_i * mean_t
    luminance = (2 * mean_i * mean_t + c1) / (mean_i**2 + mean_t**2 + c1)
    structure = (2 * covariance + c2) / (variance_i + variance_t + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def feature_distance(image: Tensor, truth: Tensor, features: Callable[[Tensor], Sequence[Tensor]]) -> Tensor:
    """How different two pictures look to a classification network: two `[B,3,H,W]` in `[0,1]` → `[B]`, 0 where equal.

    The squared distance of the feature vectors, each divided by its length, mean over the places of a level and over
    the levels that `features` returns (`[B,C,Hl,Wl]` each): LPIPS (Zhang et al. 2018) without its learned weights. Say
    beside every number which network and which levels. Raises ValueError for shapes that differ.
    """
    if image.shape != truth.shape:
        raise ValueError(f"expected two pictures of one shape, got {list(image.shape)} and {list(truth.shape)}")
    levels = zip(features(image), features(truth), strict=True)
    per_level = [(F.normalize(a) - F.normalize(b)).square().sum(1).mean(dim=(1, 2)) for a, b in levels]
    return torch.stack(per_level).mean(0)


def grid_pattern(image: Tensor, truth: Tensor) -> Tensor:
    """How much of the error repeats with the LR grid, as straight lines four pixels apart: two `[B,3,H,W]` in `[0,1]` →
    `[B]`, near 1 where nothing does.

    The error's profile across 24×24 pixels, in both directions: its power at a period of 4 pixels, divided by that at
    the periods beside it. Networks that compute on the LR grid and fold pixels into channels tend to draw such lines.
    Raises ValueError for shapes that differ, and for pictures under 24×24.
    """
    error = torch.sub(*_compared(image, truth, Protocol()))[:, 0]
    if min(error.shape[1:]) < PIECE:
        raise ValueError(f"a grid is looked for on {PIECE}×{PIECE} pixels at least, got {list(image.shape)}")
    height, width = (side // PIECE * PIECE for side in error.shape[1:])
    error, k = error[:, :height, :width], PIECE // 4
    shares = []
    for lines in (error, error.mT):
        pieces = lines.unflatten(2, (-1, PIECE)).unflatten(1, (-1, PIECE))  # [B,n,24,m,24]
        power = torch.fft.rfft(pieces.mean(2)).abs().square().mean((1, 2))  # [B,13]
        shares.append(2 * power[:, k] / (power[:, k - 1] + power[:, k + 1]))
    return torch.stack(shares).mean(0)


def luma(image: Tensor) -> Tensor:
    """Y of BT.601 on the 0-255 scale (16 to 235): `[B,3,H,W]` in `[0,1]` → `[B,1,H,W]`."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=image.dtype, device=image.device)
    return 16 + (image * weights.view(3, 1, 1)).sum(dim=1, keepdim=True)


def _compared(image: Tensor, truth: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Both pictures in float64 on the 0-255 scale, in the channels and the area that are compared."""
    if image.shape != truth.shape or image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"expected two [B,3,H,W] of one shape, got {list(image.shape)} and {list(truth.shape)}")
    if min(image.shape[-2:]) <= 2 * protocol.border:
        size = f"{image.shape[-1]}×{image.shape[-2]}"
        raise ValueError(f"a border of {protocol.border} pixels leaves nothing of {size}")

    def prepare(x: Tensor) -> Tensor:
        x = x.double()
        if protocol.rounded:
            x = (x.clamp(0, 1) * 255).round() / 255
        x = luma(x) if protocol.channel == "y" else x * 255
        border = protocol.border
        return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]

    return prepare(image), prepare(truth)


def _window(x: Tensor) -> Tensor:
    """Mean under the 11×11 gaussian wherever it fits whole: `[B,C,H,W]` → `[B,C,H-10,W-10]`."""
    weight = torch.exp(-(torch.arange(-5, 6, dtype=x.dtype, device=x.device) ** 2) / (2 * 1.5**2))
    weight = weight / weight.sum()
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, weight.view(1, 1, -1, 1)), weight.view(1, 1, 1, -1))
    return flat.view(*x.shape[:2], *flat.shape[-2:])
