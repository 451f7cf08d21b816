"""Metrics on tensors in `[0,1]`: PSNR, SSIM, feature distance and grid pattern. The protocol is explicit, because
published numbers use different ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Channel = Literal["y", "rgb"]

PIECE = 24
"""Side in pixels of the pieces that `grid_pattern` analyses."""


@dataclass(frozen=True)
class Protocol:
    """What PSNR and SSIM compare. Print `str(protocol)` beside every number.

    Attributes:
        channel: "y" compares the luma of ITU-R BT.601, 16 to 235, as MATLAB's `rgb2ycbcr`. "rgb" compares all three
            channels (one squared error over all of them; SSIM is averaged over them).
        border: pixels cut off at every side before comparing. TTSR and MASA cut 0, C2-Matching 4.
        rounded: round to 8 bits before comparing.

    Raises:
        ValueError: for an unknown channel or a negative border.
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
    """Peak signal-to-noise ratio in dB (peak 255) of each picture: two `[B,3,H,W]` in `[0,1]` → `[B]` float64.

    Infinite for equal pictures. Raises ValueError for different shapes, or if the border leaves no pixels.
    """
    image, truth = _compared(image, truth, protocol)
    return 10 * torch.log10(255**2 / (image - truth).square().mean(dim=(1, 2, 3)))


def ssim(image: Tensor, truth: Tensor, protocol: Protocol = Protocol()) -> Tensor:
    """Structural similarity of each picture: two `[B,3,H,W]` in `[0,1]` → `[B]` float64, 1 for equal pictures.

    Follows the MATLAB code of Wang et al. 2004: an 11×11 Gaussian window of sigma 1.5 at every place where it fits into
    the picture, K1 = 0.01, K2 = 0.03, L = 255. Raises as `psnr` does, and for pictures below 11×11 pixels.
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
    """Distance of two pictures in the features of a network: two `[B,3,H,W]` in `[0,1]` → `[B]`, 0 for equal pictures.

    This is LPIPS (Zhang et al. 2018) without its learned weights: the squared distance of the normalised feature
    vectors, averaged over the places of each level and over the levels. Name the network and the levels beside every
    number.

    Args:
        features: maps a picture to its levels of features, `[B,C,Hl,Wl]` each.

    Raises:
        ValueError: for different shapes.
    """
    if image.shape != truth.shape:
        raise ValueError(f"expected two pictures of one shape, got {list(image.shape)} and {list(truth.shape)}")
    levels = zip(features(image), features(truth), strict=True)
    per_level = [(F.normalize(a) - F.normalize(b)).square().sum(1).mean(dim=(1, 2)) for a, b in levels]
    return torch.stack(per_level).mean(0)


def grid_pattern(image: Tensor, truth: Tensor) -> Tensor:
    """How strongly the error repeats with the LR grid, as lines four pixels apart: two `[B,3,H,W]` in `[0,1]` → `[B]`,
    near 1 without such a pattern.

    The error is averaged along the rows and along the columns of pieces of 24×24 pixels. The result is the power of
    these profiles at a period of 4 pixels, divided by the mean power at the two neighbouring periods. Networks that
    compute on the LR grid and fold pixels into channels tend to draw such lines.

    Raises:
        ValueError: for different shapes, and for pictures below 24×24 pixels.
    """
    error = torch.sub(*_compared(image, truth, Protocol()))[:, 0]
    if min(error.shape[1:]) < PIECE:
        raise ValueError(f"grid_pattern needs at least {PIECE}×{PIECE} pixels, got {list(image.shape)}")
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
    """Both pictures in float64 on the 0-255 scale, reduced to the channels and the area that the protocol compares."""
    if image.shape != truth.shape or image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"expected two [B,3,H,W] of one shape, got {list(image.shape)} and {list(truth.shape)}")
    if min(image.shape[-2:]) <= 2 * protocol.border:
        size = f"{image.shape[-1]}×{image.shape[-2]}"
        raise ValueError(f"a border of {protocol.border} pixels leaves no pixels of {size}")

    def prepare(x: Tensor) -> Tensor:
        x = x.double()
        if protocol.rounded:
            x = (x.clamp(0, 1) * 255).round() / 255
        x = luma(x) if protocol.channel == "y" else x * 255
        border = protocol.border
        return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]

    return prepare(image), prepare(truth)


def _window(x: Tensor) -> Tensor:
    """Mean under the 11×11 Gaussian window, at every place where it fits: `[B,C,H,W]` → `[B,C,H-10,W-10]`."""
    weight = torch.exp(-(torch.arange(-5, 6, dtype=x.dtype, device=x.device) ** 2) / (2 * 1.5**2))
    weight = weight / weight.sum()
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, weight.view(1, 1, -1, 1)), weight.view(1, 1, 1, -1))
    return flat.view(*x.shape[:2], *flat.shape[-2:])
