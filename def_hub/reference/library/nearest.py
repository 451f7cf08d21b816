"""The entries of a library that are nearest to an image, by `faiss`. The only place that imports it."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from def_hub.reference.library.embedding import Query

MISSING = "searching a library needs faiss: pip install 'def-hub[library]'"
FEWEST = 20
"""Entries that are looked for at least, also if fewer are wanted."""
SPARE = 4
"""For each vector so many times the regions that the wanted entries have are found."""
AT_ONCE = 500
"""Entries that are compared at a time: their vectors stay in the processor's cache."""


class Nearest:
    """Search among the global descriptors `[N, R, D]` of a library, which all have norm one.

    faiss keeps a copy of them in half precision, as they are in the file: 10,000 photos with 14 regions of 512 numbers
    take 143 MB.

    Raises:
        ModuleNotFoundError: without faiss.
        ValueError: for vectors that are not finite.
    """

    def __init__(self, vectors: Tensor) -> None:
        if find_spec("faiss") is None:
            raise ModuleNotFoundError(MISSING)
        import faiss

        if vectors.numel() and not all(bool(torch.isfinite(extreme)) for extreme in vectors.aminmax()):
            raise ValueError("the vectors of this library are damaged: some are not finite")
        self.vectors = vectors
        kind = faiss.ScalarQuantizer.QT_fp16  # its codes are the numbers themselves, so nothing is converted
        self._index = faiss.IndexScalarQuantizer(vectors.shape[2], kind, faiss.METRIC_INNER_PRODUCT)
        if vectors.numel():
            self._index.add_sa_codes(vectors.flatten(0, 1).contiguous().numpy().view(np.uint8))

    def __call__(self, query: Query, count: int) -> list[tuple[int, float]]:
        """The nearest `count` entries, best first: (number, similarity from -1 to 1).

        The similarity of an entry to a vector of the query is that of its nearest region; the similarity to the query
        is the weighted mean over its vectors. faiss finds the regions that are nearest to the vectors of the largest
        weight. All entries with one of these are then compared with the whole query.
        """
        if self.vectors.numel() and query.vectors.shape[1] != self.vectors.shape[2]:
            made, held = query.vectors.shape[1], self.vectors.shape[2]
            raise ValueError(f"the library has vectors of {held} numbers, its embedding makes {made}")
        regions = self.vectors.shape[1]
        wanted = min(SPARE * max(FEWEST, count) * regions, self._index.ntotal)
        if wanted == 0:
            return []
        heaviest = query.vectors[query.weights == query.weights.max()].float()
        rows = self._index.search(np.ascontiguousarray(heaviest.numpy()), wanted)[1]
        numbers = torch.from_numpy(np.unique(rows // regions))
        similarity = torch.cat([self._similarity(query, some) for some in numbers.split(AT_ONCE)])
        best = similarity.topk(min(count, len(numbers)))
        return [(int(numbers[i]), float(s)) for i, s in zip(best.indices, best.values, strict=True)]

    def _similarity(self, query: Query, numbers: Tensor) -> Tensor:
        """Of some entries: `[n]`."""
        some = self.vectors[numbers]
        pairs = some.flatten(0, 1).float() @ query.vectors.float().T
        return pairs.view(len(some), some.shape[1], -1).amax(1) @ query.weights.float()
