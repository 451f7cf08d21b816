"""Exhaustive matching of 3×3 patches by cosine similarity, and laying out what was matched, as published methods do.

The package's own search is another, see `reference.matching`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CORRELATIONS = 2**24
"""Similarities that are held at a time."""


def match(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar key of every query patch.

    Args:
        query, key: features `[B,C,h,w]` and `[B,C,hk,wk]`.

    Returns:
        Index `[B,h-2,w-2]` among the (hk-2)·(wk-2) patches of the key, row by row; cosine similarity of the same shape.
    """
    height, width = query.shape[2] - 2, query.shape[3] - 2
    queries = F.normalize(F.unfold(query, 3), dim=1).mT  # [B,n,9C]
    keys = F.normalize(F.unfold(key, 3), dim=1)  # [B,9C,m]
    found = [(some @ keys).max(dim=2) for some in queries.split(max(1, CORRELATIONS // keys.shape[2]), dim=1)]
    similarity, index = (torch.cat(parts, dim=1).view(-1, height, width) for parts in zip(*found, strict=True))
    return index, similarity


def transfer(features: Tensor, index: Tensor, scale: int, border: int) -> Tensor:
    """Patches of `features` where the index says; where they overlap, their mean.

    Args:
        features: `[B,C,hk·scale,wk·scale]`, a finer level of the map that was searched.
        index: `[B,h,w]`, see `match`.
        border: cells that are cut off on each side of what the patches cover: 0 keeps all, h+2 by w+2 cells; 1 leaves
            h by w.

    Returns:
        `[B,C,H,W]`, H = (h + 2 - 2·border)·scale.
    """
    patches = F.unfold(features, 3 * scale, stride=scale)  # [B,9·scale²·C,m]
    chosen = patches.gather(2, index.flatten(1)[:, None].expand(-1, patches.shape[1], -1))
    height, width = ((side + 2 - 2 * border) * scale for side in index.shape[1:])
    laid = [
        F.fold(x, (height, width), 3 * scale, padding=border * scale, stride=scale)
        for x in (chosen, torch.ones_like(chosen[:1]))
    ]
    return laid[0] / laid[1]
