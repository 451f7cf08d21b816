"""How much of each pixel's detail comes from the input, the priors and each reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.observation.downsample import Downsample
from def_hub.reference.matching import Correspondence

NEIGHBOURHOOD = 9
"""Side in HR pixels of the neighbourhood that contrast is averaged over. The contrast of a single pixel is noise: its
sign changes from pixel to pixel."""


def provenance_shares(
    operator: Downsample,
    y: Tensor,
    without_reference: Tensor,
    result: Tensor,
    matches: Correspondence | None,
    references: int,
) -> Tensor:
    """Shares `[2 + K, H, W]` of input, priors and reference 1 … K in the local contrast of the result; they sum to one.

    The result is exactly the sum of three layers:

    1. `A†y`, which the input alone decides;
    2. the null-space part of `without_reference`, which the same networks return without references;
    3. the remainder, which the references changed.

    A layer's share is its mean absolute contrast in a 9×9 neighbourhood. The local mean of `A†y` does not count. At
    each pixel the third layer belongs to the reference that the pixel's cell is matched with.

    Args:
        y: `[1, 3, h, w]`.
        without_reference, result: `[1, 3, H, W]`, the results without and with references.
        matches: None without references.
        references: K, their number.
    """
    known = operator.pinv(y)
    prior = without_reference - operator.pinv(operator.forward(without_reference))
    shares = [_contrast(known - _mean(known, 2 * NEIGHBOURHOOD - 1)), _contrast(prior)]
    shares[0] = shares[0] + 0.5 / 255  # a flat region has no contrast at all: it counts as the input's
    if matches is None:
        shares += [torch.zeros_like(shares[0])] * references
    else:
        changed = _contrast(result - known - prior)
        owner = _owner(matches.reference, (result.shape[-2], result.shape[-1]))
        shares += [changed * (owner == k) for k in range(references)]
    stacked = torch.cat(shares, dim=1)[0]
    return stacked.div_(stacked.sum(0)).cpu()


def _owner(reference: Tensor, size: tuple[int, int]) -> Tensor:
    """The number of the reference `[B, h, w]` that each pixel of a result of that size looks at, `[B, 1, H, W]`."""
    return F.interpolate(reference[:, None].float(), size, mode="nearest-exact")


def _contrast(layer: Tensor) -> Tensor:
    """Mean absolute value of all channels in the neighbourhood of each pixel, `[1, 1, H, W]`."""
    return _mean(layer.abs().mean(1, keepdim=True), NEIGHBOURHOOD)


def _mean(x: Tensor, side: int) -> Tensor:
    """Mean of `side`×`side` pixels (`side` is odd) around each pixel, border pixels repeated."""
    rows = F.avg_pool2d(F.pad(x, (side // 2,) * 4, mode="replicate"), (side, 1), stride=1)
    return F.avg_pool2d(rows, (1, side), stride=1)  # separable: fewer additions than one side×side window
