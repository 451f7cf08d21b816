"""The entries of a library that are nearest to an image, by `faiss`. The only place that imports it."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from def_hub.reference.library.embedding import Query

MISSING = "searching a library needs faiss: pip install 'def-hub[library]'"
FEWEST = 20  # entries: as many regions as they have are found for each vector, also if fewer entries are wanted
AT_ONCE = 20_000  # entries that are copied into the search at a time


class Nearest:
    """Exact search among the global descriptors `[N, R, D]` of a library, which all have norm one.

    They are kept in half precision, as in the file: 10,000 photos with 14 regions of 512 numbers take 143 MB.

    Raises:
        ModuleNotFoundError: without faiss.
        ValueError: for vectors that are not finite.
    """

    def __init__(self, vectors: Tensor) -> None:
        if find_spec("faiss") is None:
            raise ModuleNotFoundError(MISSING)
        import faiss

        self.vectors = vectors
        kind = faiss.ScalarQuantizer.QT_fp16
        self._index = faiss.IndexScalarQuantizer(vectors.shape[2], kind, faiss.METRIC_INNER_PRODUCT)
        for some in vectors.split(AT_ONCE):
            values = some.flatten(0, 1).float()
            if not bool(torch.isfinite(values).all()):
                raise ValueError("the vectors of this library are damaged: some are not finite")
            self._index.add(values.numpy())

    def __call__(self, query: Query, count: int) -> list[tuple[int, float]]:
        """The nearest `count` entries, best first: (number, similarity from -1 to 1).

        The similarity of an entry to a vector of the query is that of its nearest region; the similarity to the query
        is the weighted mean over its vectors. For each vector faiss finds the nearest regions, as many as `count`
        entries have, `FEWEST` at least. All entries with one of these are then compared exactly.
        """
        if self.vectors.numel() and query.vectors.shape[1] != self.vectors.shape[2]:
            made, held = query.vectors.shape[1], self.vectors.shape[2]
            raise ValueError(f"the library has vectors of {held} numbers, its embedding makes {made}")
        wanted = min(max(FEWEST, count) * self.vectors.shape[1], self._index.ntotal)
        if wanted == 0:
            return []
        rows = self._index.search(np.ascontiguousarray(query.vectors.float().numpy()), wanted)[1]
        numbers = torch.from_numpy(np.unique(rows // self.vectors.shape[1]))
        pairs = torch.einsum("qd,nrd->qnr", query.vectors.float(), self.vectors[numbers].float())
        similarity = query.weights @ pairs.amax(2)
        best = similarity.topk(min(count, len(numbers)))
        return [(int(numbers[i]), float(s)) for i, s in zip(best.indices, best.values, strict=True)]
