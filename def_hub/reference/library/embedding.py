"""Global descriptors: a photo → one vector of the whole and one of each of some regions.

The embedded extractor needs no network. A vision model of `transformers` (`backbone.Backbone`) knows better what things
are, and worse how they look from close by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.images import pad_to_multiple
from def_hub.reference.features import in_own_precision
from def_hub.reference.library.projection import PROJECTION, whitening
from def_hub.reference.matching import CELL
from def_hub.reference.matching.pose import resized
from def_hub.reference.selection import embedded_network

POOLED = "def-mini"
DINO = "facebook/dinov2-small"
SCALES = ((128, 1, 1), (192, 4, 3), (256, 4, 2))
"""Sizes at which a photo is seen: the side, in pixels, of the square with as many pixels; the number of rows and of
columns of blocks; the number of blocks along each side of a region. All regions have about the same number of pixels.
If a photo shows the image among other things, the image fills one of them."""
COARSER = 96
"""Another side at which the whole image is compared: it finds photos that show it a little smaller."""


@dataclass(frozen=True)
class Query:
    """vectors: `[Q, D]`, of norm one. weights: `[Q]`, how much each vector counts; their sum is one."""

    vectors: Tensor
    weights: Tensor


class Embedder(Protocol):
    """name: kept in the library. side: a photo may be reduced until its shorter side has this many pixels."""

    name: str
    side: int

    @property
    def fingerprint(self) -> str:
        """Of the weights: vectors of other weights cannot be compared. See `fingerprint_of`."""
        ...

    def photo(self, picture: Tensor) -> Tensor:
        """A photo `[1, 3, H, W]` in [0, 1] → `[R, D]`, of norm one: the whole and its regions."""
        ...

    def query(self, small: Tensor, large: Tensor) -> Query:
        """The LR image and its enlargement by the network, both `[1, 3, …, …]` in [0, 1]. An image that is large enough
        is given twice."""
        ...


def make_embedder(name: str, backbone: str | None = None) -> Embedder:
    """The embedder that a library names.

    Args:
        name: `POOLED`, or a vision model of `transformers`.
        backbone: the model that the caller named. A model that only the library names is not loaded, because the
            library may come from anybody. `DINO` is an exception.

    Raises:
        ValueError: if the caller named another model than the library, or did not name the library's.
        OSError: if the model cannot be loaded.
    """
    if backbone not in (None, name):
        raise ValueError(f"the library was made with {name}, not with {backbone}: build it again, or leave that out")
    if name == POOLED:
        return PooledFeatures()
    if name not in (backbone, DINO):
        raise ValueError(f"the library was made with the model {name}: name it as backbone if you trust it")
    from def_hub.reference.library.backbone import Backbone

    return Backbone(name)


def fingerprint_of(weights: Mapping[str, Tensor], settings: object) -> str:
    """A short hash of all that decides the descriptors of a library, besides the code: the embedder's weights and
    settings, and the embedded extractor and the whitening, which every library uses for local descriptors."""
    digest = sha256(repr(settings).encode())
    extractor = embedded_network().feature_extractor.state_dict()
    for part in (weights, extractor):
        for name, tensor in sorted(part.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(PROJECTION.read_bytes())
    return digest.hexdigest()[:16]


class PooledFeatures:
    """Second-order statistics of the embedded extractor's coarsest features.

    The statistics say which features occur together in a region, wherever in it (bilinear pooling, Lin et al. 2015).
    A signed root keeps repeated texture from deciding alone. Whitening does the same for what most pictures have in
    common (Jégou and Chum 2012).
    """

    name = POOLED
    side = SCALES[-1][0]

    def __init__(self, whiten: bool = True) -> None:
        """whiten: False gives the statistics themselves, from which the whitening is learned."""
        self._extractor = embedded_network().feature_extractor
        self._extract = in_own_precision(self._extractor)
        self._whiten = whiten

    @property
    def fingerprint(self) -> str:
        return fingerprint_of({}, (SCALES, COARSER))

    @torch.no_grad()
    def photo(self, picture: Tensor) -> Tensor:
        return self._described(torch.cat([self._regions(picture, *scale) for scale in SCALES]))

    @torch.no_grad()
    def query(self, small: Tensor, large: Tensor) -> Query:
        side = SCALES[0][0]
        seen = [(large, side), (large, COARSER), (small, side)]
        whole = torch.cat([self._regions(picture, side, 1, 1) for picture, side in seen])
        parts = self._regions(large, *SCALES[-1])
        weights = torch.cat([torch.full((len(some),), 0.5 / len(some)) for some in (whole, parts)])
        return Query(self._described(torch.cat((whole, parts))), weights)

    def _regions(self, picture: Tensor, side: int, blocks: int, wide: int) -> Tensor:
        device = next(self._extractor.parameters()).device
        picture = resized(picture.to(device), side / (picture.shape[2] * picture.shape[3]) ** 0.5)
        features = F.normalize(self._extract(pad_to_multiple(picture, blocks * CELL))[-1].float(), dim=1)[0]
        sums = _block_sums(features, blocks)
        places = range(blocks - wide + 1)
        regions = [sums[i : i + wide, j : j + wide].sum((0, 1)) for i in places for j in places]
        return _rooted(torch.stack(regions))

    def _described(self, statistics: Tensor) -> Tensor:
        return whitening("regions")(statistics.cpu()) if self._whiten else statistics.cpu()


def _block_sums(features: Tensor, blocks: int) -> Tensor:
    """Features `[C, h, w]` → `[blocks, blocks, C + 1, C]`: of each block the sum of outer products, and of features."""
    channels = features.shape[0]
    parts = features.unfold(1, features.shape[1] // blocks, features.shape[1] // blocks)
    parts = parts.unfold(2, features.shape[2] // blocks, features.shape[2] // blocks)  # [C,b,b,h/b,w/b]
    parts = parts.permute(1, 2, 0, 3, 4).reshape(blocks, blocks, channels, -1)
    return torch.cat((parts @ parts.mT, parts.sum(-1)[..., None, :]), dim=2)


def _rooted(sums: Tensor) -> Tensor:
    """Sums `[R, C + 1, C]` → upper triangle of the means and half the mean feature, signed roots, `[R, S]`."""
    channels = sums.shape[2]
    means = sums / sums[:, :channels].diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp_min(1e-6)
    rows, columns = torch.triu_indices(channels, channels)
    weight = torch.where(rows == columns, 1.0, 2**0.5).to(sums)  # the lower triangle counts, too
    joined = torch.cat((means[:, rows, columns] * weight, 0.5 * means[:, channels]), dim=1)
    return F.normalize(joined.sign() * joined.abs().sqrt(), dim=1)
