"""In what light a reference shows the place, and how to bring it into the light of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.matching.correspondence import CELL
from def_hub.reference.matching.placement import trusted_places
from def_hub.reference.matching.pose import Sighting
from def_hub.reference.matching.refinement import luma

FEWEST = 64
"""Trusted matches that are needed to tell."""
ALIKE = 0.8
"""Correlation of the colours of matched cells from which a difference is one of light."""
SLIGHT = 0.05
"""Mean difference, in [0, 1], that is left as it is."""
GAINS = (0.4, 2.5)
"""What a channel may be multiplied by."""
UNEVEN, UNEXPLAINED = 0.2, 0.75
"""Light is uneven where nine tenths of the shading span at least `UNEVEN` (natural logarithm), and the ratios of the
matched cells then deviate from it by at most `UNEXPLAINED` times what they deviate from their median. Of the references
of `MultiView` two reach both, which were photographed in other light; of those that were darkened to a half at one
border and brightened to 1.3 at the other, six of eight do (28 November 2026)."""
DARK, BRIGHT = 0.04, 0.95
"""Luma below and above which a ratio says little: noise, and what the camera cut."""
REWEIGHTED = 8
"""Rounds of reweighting, see `_shading`."""

Part = tuple[int, int, int, int]


@dataclass(frozen=True)
class Shading:
    """What a reference is multiplied by, place by place: the exponential of a polynomial of second degree.

    terms: `[6]`, see `_terms`. low, high: between which the polynomial lies at the matched cells and is kept elsewhere.
    """

    terms: Tensor
    low: float
    high: float

    def at(self, place: Tensor) -> Tensor:
        """`[2, ...]` (x, y), -1 … 1 from border to border of the reference, → `[...]`."""
        return (_terms(place) @ self.terms).clamp(self.low, self.high).exp()

    def over(self, part: Part, sides: Sequence[int]) -> Tensor:
        """`[H, W]`, for the pixels of a part (left, top, right, bottom) of the reference at (height, width) `sides`."""
        left, top, right, bottom = part
        y, x = (torch.arange(a, b) for a, b in ((top, bottom), (left, right)))
        y, x = (_centred(pixels, n).to(self.terms) for pixels, n in zip((y, x), sides, strict=True))
        return self.at(torch.stack(torch.meshgrid(x, y, indexing="xy")))


@dataclass(frozen=True)
class Light:
    """gain, offset: `[3]`, by which the channels of the reference become those of the image, after it was multiplied by
    `shading`, if there is one."""

    gain: Tensor
    offset: Tensor
    shading: Shading | None = None

    def on(self, picture: Tensor, part: Part | None = None, sides: Sequence[int] | None = None) -> Tensor:
        """The reference `[1, 3, H, W]` in the light of the image, in [0, 1]; or a part (left, top, right, bottom) of
        it, where it has the (height, width) `sides`."""
        if self.shading is not None:
            sides = picture.shape[2:] if sides is None else sides
            picture = picture * self.shading.over(part or (0, 0, sides[1], sides[0]), sides)
        return (picture * self.gain.view(1, 3, 1, 1) + self.offset.view(1, 3, 1, 1)).clamp(0, 1)


def light(seen: Sighting, sides: tuple[int, int]) -> Light | None:
    """What the matched cells say; None where they are too few, or say that there is no difference worth a change.

    Shading comes first: a shadow over a part, or a lamp at one side. Then mean and deviation of each channel over the
    matched cells become those of the image: exposure, white balance, haze and contrast are, nearly, a gain and an
    offset. Regression would take errors of matching for a lack of contrast.

    Args:
        seen: the pose and its matches. sides: height and width of the reference.
    """
    trusted = seen.trusted
    if int(trusted.sum()) < FEWEST:
        return None
    ours = F.avg_pool2d(seen.query, CELL)[0][:, trusted]  # [3,n]
    theirs = _at(F.avg_pool2d(seen.key, CELL, stride=1), seen.matches.position - (CELL - 1) / 2)[0][:, trusted]
    place = trusted_places(seen, sides)
    place = torch.stack([_centred(along, n) for along, n in zip(place, reversed(sides), strict=True)])
    shading = _shading(ours, theirs, place)
    if shading is not None:
        theirs = theirs * shading.at(place)
    (mean, deviation), (their_mean, their_deviation) = ((t.mean(1), t.std(1)) for t in (ours, theirs))
    alike = ((ours - mean[:, None]) * (theirs - their_mean[:, None])).mean(1) / (deviation * their_deviation)
    if not bool((alike > ALIKE).all()):
        return None
    if float((ours - theirs).abs().mean()) < SLIGHT:
        return None if shading is None else Light(torch.ones_like(mean), torch.zeros_like(mean), shading)
    gain = (deviation / their_deviation).clamp(*GAINS)
    return Light(gain, mean - gain * their_mean, shading)


def _shading(ours: Tensor, theirs: Tensor, place: Tensor) -> Shading | None:
    """What matched cells, `[3, n]` in the image and in the reference, say at `place` `[2, n]`; None where the light is
    even.

    Least squares of the logarithm of the ratio, reweighted by Cauchy's function: cells that lie off are wrong matches,
    or what moved between the photographs, and lose their say.
    """
    ours, theirs = (luma(t[None, :, None])[0, 0] for t in (ours, theirs))
    told = (torch.minimum(ours, theirs) > DARK) & (torch.maximum(ours, theirs) < BRIGHT)
    if int(told.sum()) < FEWEST:
        return None
    ratio, terms = (ours[told] / theirs[told]).log().double(), _terms(place[:, told]).double()
    weight = torch.ones_like(ratio)
    for _ in range(REWEIGHTED):
        weighted = (terms * weight[:, None]).T
        damping = 1e-4 * torch.eye(len(weighted)).to(ratio)
        found = torch.linalg.solve(weighted @ terms + damping, weighted @ ratio)
        off = (ratio - terms @ found).abs()
        weight = 1 / (1 + (off / (2 * off.median().clamp_min(0.01))).square())
    expected = terms @ found
    low, high = torch.quantile(expected, expected.new_tensor((0.05, 0.95))).tolist()
    even = (ratio - ratio.median()).abs().median()
    if high - low < UNEVEN or off.median() > UNEXPLAINED * even:
        return None
    return Shading(found.to(ours), low, high)


def _terms(place: Tensor) -> Tensor:
    """Of a polynomial of second degree in (x, y) `[2, ...]`: `[..., 6]`."""
    x, y = place
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y), dim=-1)


def _centred(pixels: Tensor, count: int) -> Tensor:
    """Pixels 0 … count - 1 → -1 … 1 from border to border."""
    return (2 * pixels + 1) / count - 1


def _at(picture: Tensor, place: Tensor) -> Tensor:
    """Values `[1, C, h, w]` of a picture at `[1, 2, h, w]` (x, y)."""
    height, width = picture.shape[2:]
    x, y = place.unbind(1)
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    return F.grid_sample(picture, grid, padding_mode="border", align_corners=False)
