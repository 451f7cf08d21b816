"""Where the detail of a result came from, as shares per pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.observation.downsample import Downsample
from def_hub.reference.matching import Correspondence

REACH = 9  # pixels: shares are those of a small neighbourhood, a single pixel's sign changes too often to mean anything


def provenance_shares(
    operator: Downsample,
    y: Tensor,
    alone: Tensor,
    result: Tensor,
    found: Correspondence | None,
    references: int,
) -> Tensor:
    """Shares `[2 + K, H, W]` of input, priors and reference 1 … K in the local contrast of the result; they sum to one.

    The result is exactly the sum of three layers: `A†y`, which the input alone decides; the null-space part that the
    same networks give without any reference; and what the references changed about that. A layer's share is its mean
    absolute contrast in a 9×9 neighbourhood, `A†y` counted without its local mean. Each pixel's reference layer
    belongs to the reference that its cell was matched with.

    Args:
        y: `[1, 3, h, w]`; alone, result: `[1, 3, H, W]` without and with references; references: K.
    """
    known = operator.pinv(y)
    prior = alone - operator.pinv(operator.forward(alone))
    shares = [_contrast(known - _mean(known, 2 * REACH - 1)), _contrast(prior)]
    # a flat region has no contrast at all: it is the input's
    shares[0] = shares[0] + 0.5 / 255
    lent = torch.zeros_like(shares[0])
    if found is not None:
        lent = _contrast(result - known - prior)
    owner = torch.zeros_like(lent) if found is None else _owner(found.reference, (result.shape[-2], result.shape[-1]))
    shares += [lent * (owner == k) for k in range(references)]
    stacked = torch.cat(shares, dim=1)[0]
    return stacked.div_(stacked.sum(0)).cpu()


def _owner(reference: Tensor, size: tuple[int, int]) -> Tensor:
    """The number of the reference `[B, h, w]` that each pixel of a result of that size looks at, `[B, 1, H, W]`."""
    return F.interpolate(reference[:, None].float(), size, mode="nearest-exact")


def _contrast(layer: Tensor) -> Tensor:
    """Mean absolute value around each pixel, `[1, 1, H, W]`."""
    return _mean(layer.abs().mean(1, keepdim=True), REACH)


def _mean(x: Tensor, side: int) -> Tensor:
    rows = F.avg_pool2d(F.pad(x, (side // 2,) * 4, mode="replicate"), (side, 1), stride=1)
    return F.avg_pool2d(rows, (1, side), stride=1)  # one side after the other: a tenth of the additions
