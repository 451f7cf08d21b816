"""A photo → vectors that can be compared: one of the whole, and some of its regions.

The embedded extractor needs no network; a vision model of `transformers` knows what things are, rather than what they
look like from close by. This is the only place that imports `transformers`, and only where a backbone is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from def_hub.hub.errors import plainly
from def_hub.images import pad_to_multiple, to_pil
from def_hub.reference.features import in_own_precision
from def_hub.reference.matching import CELL
from def_hub.reference.matching.pose import resized
from def_hub.reference.selection import embedded_network

POOLED = "def-mini"
DINO = "facebook/dinov2-small"
PROJECTION = Path(__file__).resolve().parents[2] / "weights" / "library.safetensors"
"""Made by `examples/def-mini/library_projection.py` from the training pictures."""
SCALES = ((128, 1, 1), (192, 4, 3), (256, 4, 2))
"""At which sizes a photo is seen: the side of the square with as many pixels, into how many rows and columns of blocks
it is cut, and how many of them a region has along each side. So all regions have about the same number of pixels: a
photo that shows the image among other things has one in which it fills the picture."""
COARSER = 96
"""Another size at which the image as a whole is compared, so that a photo which shows it a little smaller is found."""


@dataclass(frozen=True)
class Query:
    """vectors: `[Q, D]`, of norm one. weights: `[Q]`, how much each counts; their sum is one."""

    vectors: Tensor
    weights: Tensor


class Embedder(Protocol):
    """name: kept in the library; vectors of another one are not comparable. side: pixels of the shorter side of a photo
    that are enough for it."""

    name: str
    side: int

    def photo(self, picture: Tensor) -> Tensor:
        """A photo `[1, 3, H, W]` in [0, 1] → `[R, D]`: the whole and its regions, of norm one."""
        ...

    def query(self, small: Tensor, large: Tensor) -> Query:
        """An image as it is, and enlarged by the network, both `[1, 3, …, …]`; the same where it is large enough."""
        ...


def make_embedder(name: str, backbone: str | None = None) -> Embedder:
    """The embedder that a library names.

    Args:
        backbone: what the caller named. A model that only the library names is loaded if it is `DINO`: the file may be
            anybody's, and shall not decide what is fetched.

    Raises:
        ValueError: for a library whose model the caller did not name, or for another one than the library's.
        OSError: where the model cannot be had.
    """
    if backbone not in (None, name):
        raise ValueError(f"the library was made with {name}, not with {backbone}: build it again, or leave that out")
    if name == POOLED:
        return PooledFeatures()
    if name not in (backbone, DINO):
        raise ValueError(f"the library was made with the model {name}: name it as backbone if you trust it")
    return Backbone(name)


class PooledFeatures:
    """Second-order statistics of the embedded extractor's coarsest features.

    Which features occur together in a region says what it shows, wherever in it (bilinear pooling, Lin et al. 2015).
    The signed root keeps repeated texture from deciding alone; whitening does the same for what most pictures have in
    common (Jégou and Chum 2012).
    """

    name = POOLED
    side = SCALES[-1][0]

    def __init__(self, whiten: bool = True) -> None:
        """whiten: otherwise the statistics themselves are returned, for whoever learns the projection."""
        self._extractor = embedded_network().feature_extractor
        self._extract = in_own_precision(self._extractor)
        self._projection = _projection() if whiten else None

    @torch.no_grad()
    def photo(self, picture: Tensor) -> Tensor:
        return self._projected(torch.cat([self._regions(picture, *scale) for scale in SCALES]))

    @torch.no_grad()
    def query(self, small: Tensor, large: Tensor) -> Query:
        side = SCALES[0][0]
        seen = [(large, side), (large, COARSER), (small, side)]
        whole = torch.cat([self._regions(picture, side, 1, 1) for picture, side in seen])
        parts = self._regions(large, *SCALES[-1])
        weights = torch.cat([torch.full((len(some),), 0.5 / len(some)) for some in (whole, parts)])
        return Query(self._projected(torch.cat((whole, parts))), weights)

    def _regions(self, picture: Tensor, side: int, blocks: int, wide: int) -> Tensor:
        device = next(self._extractor.parameters()).device
        picture = resized(picture.to(device), side / (picture.shape[2] * picture.shape[3]) ** 0.5)
        features = F.normalize(self._extract(pad_to_multiple(picture, blocks * CELL))[-1].float(), dim=1)[0]
        sums = _block_sums(features, blocks)
        places = range(blocks - wide + 1)
        regions = [sums[i : i + wide, j : j + wide].sum((0, 1)) for i in places for j in places]
        return _rooted(torch.stack(regions))

    def _projected(self, statistics: Tensor) -> Tensor:
        if self._projection is None:
            return statistics.cpu()
        mean, basis = self._projection
        return F.normalize((statistics.cpu() - mean) @ basis, dim=1)


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


@cache
def _projection() -> tuple[Tensor, Tensor]:
    """Mean `[S]` and whitening basis `[S, D]` of the statistics of the training pictures."""
    stored = load_file(PROJECTION)
    return stored["mean"].float(), stored["basis"].float()


class Backbone:
    """A vision model of `transformers`: its pooled output for the whole photo and five overlapping parts.

    Args:
        name: any model that `AutoModel` loads and that takes pictures, on the Hub or in a folder.

    Raises OSError where it cannot be had, and ValueError where it is no vision model.
    """

    side = 448
    PARTS = ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5))
    """Corners, in widths and heights, of where parts of 60 % of the sides begin: 0 at one end, 1 at the other."""
    SHARE = 0.6

    def __init__(self, name: str) -> None:
        from transformers import AutoImageProcessor, AutoModel

        self.name = name
        with plainly(name):
            # without torchvision the processors on Pillow are the ones that load
            self._processor: Any = AutoImageProcessor.from_pretrained(name, backend="pil", trust_remote_code=False)
            model: nn.Module = AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)

    def photo(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[2:]
        tall, wide = round(self.SHARE * height), round(self.SHARE * width)
        parts = [picture]
        for down, right in self.PARTS:
            top, left = round(down * (height - tall)), round(right * (width - wide))
            parts.append(picture[..., top : top + tall, left : left + wide])
        return self._vectors(parts)

    def query(self, small: Tensor, large: Tensor) -> Query:
        return Query(self._vectors([large]), torch.ones(1))

    @torch.no_grad()
    def _vectors(self, pictures: Sequence[Tensor]) -> Tensor:
        given = self._processor(images=[to_pil(picture) for picture in pictures], return_tensors="pt")
        output = self._model(pixel_values=given["pixel_values"].to(self._device))
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            hidden = output.last_hidden_state  # [B,tokens,D], or [B,D,h,w] of a convolutional network
            pooled = hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))
        return F.normalize(pooled.flatten(1).float(), dim=1)
