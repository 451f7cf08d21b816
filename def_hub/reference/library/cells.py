"""Local descriptors: do the cells of a photo lie as those of the image do?

Global descriptors say that two pictures look alike; that their cells match in one arrangement says that they show the
same place (geometric verification). Every cell of the image votes for the displacement of its best match in the photo.
If the photo shows the place, many votes agree. The image is compared at several sizes, because a photo may show the
place larger or smaller.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.features import in_own_precision
from def_hub.reference.library.descriptors import Descriptors
from def_hub.reference.library.projection import whitening
from def_hub.reference.matching import CELL
from def_hub.reference.matching.pose import resized
from def_hub.reference.selection import embedded_network

SIDE = 32
"""Side, in cells, of the square that has as many cells as a photo."""
MOST = SIDE**2
"""Cells of a photo that are kept. Whole rows and columns make a few more or less."""
SEEN = ((45, 3), (32, 2), (22, 2), (16, 1), (11, 1))
"""Sizes of the image: side, in cells, of the square that has as many, and the step between cells that vote. In photos
the place may be 1.4 times as large as the photo is, down to a third of its sides."""
LEAST = 0.001
"""Added to the deviation, which is zero where no photo agrees."""
AT_ONCE = 128
"""Descriptors that are compared at a time: their products with all cells of a photo stay in the processor's cache."""
LEVELS = 254
"""Steps of a stored number between -0.5 and 0.5; the numbers of a descriptor of norm one are seldom larger."""


@torch.no_grad()
def shares(image: Tensor, photos: Descriptors) -> Tensor:
    """The agreement of each photo with an image, at each of its sizes: `[N, len(SEEN)]`, see `Voters`.

    Raises ValueError for descriptors of another length than this program makes.
    """
    voters = Voters(image)
    if photos.cells.shape[2] != voters.cells.shape[1]:
        held, made = photos.cells.shape[2], voters.cells.shape[1]
        raise ValueError(f"the library has local descriptors of {held} numbers, expected {made}")
    return torch.stack([voters.agreement(photo) for photo in photos])


def standing(values: Tensor) -> Tensor:
    """How far each value `[N]` or `[N, K]` lies above the median of its column, in median deviations.

    Most of the photos that are compared show something else. They say what chance gives for this image.
    """
    above = values - values.median(0).values
    return above / (above.abs().median(0).values + LEAST)


@torch.no_grad()
def cells_of(picture: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The local descriptors of a photo `[1, 3, H, W]` in [0, 1]: `[MOST, E]`, int8, and how many rows and columns of
    cells they are of."""
    described, (rows, columns) = _described(picture, SIDE)
    rows = min(rows, MOST // columns) if columns <= MOST else 0
    kept = torch.zeros(MOST, described.shape[1], dtype=torch.int8)
    kept[: rows * columns] = (described[: rows * columns] * LEVELS).round().clamp(-127, 127).to(torch.int8)
    return kept, (rows, columns)


class Voters:
    """The cells of an image that vote.

    Args:
        image: `[1, 3, H, W]` in [0, 1], enlarged by the network if it is small.
    """

    @torch.no_grad()
    def __init__(self, image: Tensor) -> None:
        parts, places = [], []
        for number, (side, step) in enumerate(SEEN):
            described, (rows, columns) = _described(image, side)
            down, right = (torch.arange(0, n, step) for n in (rows, columns))
            down, right = (axis.flatten() for axis in torch.meshgrid(down, right, indexing="ij"))
            parts.append(described[down * columns + right])
            places.append(torch.stack((torch.full_like(down, number), down, right)))
        self.parts = parts  # for each size, [n,E]
        self.cells = torch.cat(parts)
        self.size, self.down, self.right = torch.cat(places, dim=1)  # of all parts, each [N]
        self.near = torch.tensor([step for _, step in SEEN])[self.size]
        self.sides = int(self.down.max()) + 1, int(self.right.max()) + 1

    @torch.no_grad()
    def agreement(self, photo: Descriptors) -> Tensor:
        """For each size of the image, the largest share of its cells whose matches in a photo lie equally far away, to
        a cell: `[len(SEEN)]`. A match counts if the cell of the image that is most like it is the voter or beside it.

        Args:
            photo: descriptors of one photo.
        """
        rows, columns = photo.grid[0].tolist()
        if rows * columns == 0:
            return torch.zeros(len(SEEN))
        cells = photo.cells[0, : rows * columns].float()
        match = _best(self.cells, cells)
        back = self._voters_like(cells[match])
        beside = (self.down[back] - self.down).abs().le(self.near) & (self.right[back] - self.right).abs().le(self.near)
        tall, wide = self.sides
        down = torch.div(match, columns, rounding_mode="floor") - self.down + tall
        right = match % columns - self.right + wide
        votes = torch.zeros(len(SEEN), 1, rows + tall + 1, columns + wide + 1)
        place = (self.size * votes.shape[2] + down) * votes.shape[3] + right
        votes.view(-1).index_add_(0, place, beside.float())
        most = 9 * F.avg_pool2d(votes, 3, stride=1, padding=1).flatten(1).amax(1)
        return most / torch.tensor([len(part) for part in self.parts])

    def _voters_like(self, matches: Tensor) -> Tensor:
        """For each voter's match `[N, E]`, the number of the voter of the same size that is most like it."""
        found, first = [], 0
        for part in self.parts:
            found.append(_best(matches[first : first + len(part)], part) + first)
            first += len(part)
        return torch.cat(found)


def _best(ours: Tensor, theirs: Tensor) -> Tensor:
    """For each of some descriptors `[N, E]`, the place of the one among others `[M, E]` that is most like it. NumPy
    finds the largest number of a row several times as fast as PyTorch, if the products are still in the cache."""
    found = [(some @ theirs.T).numpy().argmax(1) for some in ours.split(AT_ONCE)]
    return torch.from_numpy(np.concatenate(found))


def patches(picture: Tensor, side: int) -> tuple[Tensor, tuple[int, int]]:
    """A picture `[1, 3, H, W]`, brought to about `side`² cells → the embedded extractor's coarsest features of each
    cell and its eight neighbours, `[cells, 9·C]`, of norm one; and its rows and columns of cells."""
    extractor = embedded_network().feature_extractor
    picture = picture.to(next(extractor.parameters()).device)
    height, width = picture.shape[2:]
    picture = resized(picture, side * CELL / (height * width) ** 0.5)
    features = in_own_precision(extractor)(picture)[-1].float()
    found = F.normalize(F.unfold(features, 3, padding=1)[0].T, dim=1)
    return found.cpu(), (features.shape[2], features.shape[3])


def _described(picture: Tensor, side: int) -> tuple[Tensor, tuple[int, int]]:
    """The descriptors `[cells, E]`, of norm one, of a picture of about `side`² cells, and its rows and columns."""
    found, grid = patches(picture, side)
    return whitening("cells")(found), grid
