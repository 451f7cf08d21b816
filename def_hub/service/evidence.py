"""Where the detail of a result came from, and how far its matches are trusted: numbers, and colours to lay over it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.visualization import VIRIDIS, sources


def detail_shares(result: Tensor, bicubic: Tensor, provenance: Tensor) -> list[float]:
    """Shares of the added detail that come from the prior and from reference 1 … K; they sum to one.

    Added detail is what bicubic enlargement lacks: |result - bicubic| weighs every pixel. What the input alone decides
    is no added detail, so its share is left out.

    Args:
        result, bicubic: `[1, 3, H, W]` in [0, 1]. provenance: `[2 + K, H, W]`, see `def_hub.provenance`.
    """
    weight = (result - bicubic).abs().mean(1)[0]
    added = (weight * provenance[1:]).sum((1, 2), dtype=torch.float64)
    total = float(added.sum())
    return [float(share) / total for share in added] if total > 0 else [1.0] + [0.0] * (len(added) - 1)


def source_colours(provenance: Tensor) -> Tensor:
    """The colour of each pixel's sources, mixed by their shares: `[2 + K, H, W]` → `[1, 3, H, W]` in [0, 1]."""
    shares = provenance.float().clamp(0, 1)
    colours = torch.tensor([source.colour for source in sources(shares)], dtype=torch.float32) / 255
    return torch.einsum("khw,kc->chw", shares, colours)[None].clamp(0, 1)


def confidence_colours(confidence: Tensor, size: tuple[int, int]) -> Tensor:
    """Confidence `[h, w]` in [0, 1] as the colours of viridis, one flat square a cell: `[1, 3, H, W]` of `size`."""
    stops = torch.from_numpy(VIRIDIS).float() / 255
    position = confidence.float().clamp(0, 1) * (len(stops) - 1)
    below = position.floor().long().clamp(max=len(stops) - 2)
    part = (position - below)[..., None]
    colours = (1 - part) * stops[below] + part * stops[below + 1]  # [h, w, 3]
    return F.interpolate(colours.permute(2, 0, 1)[None], size, mode="nearest")
