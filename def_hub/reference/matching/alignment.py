"""Each match turned, scaled and shifted until the surroundings of the cell agree with those of its match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.reference.matching.correspondence import CELL, Correspondence, mean_around
from def_hub.reference.matching.refinement import NOISE, TRUST, check_images, luma

NEIGHBOURS = ((0, 3), (3, 0), (0, -3), (-3, 0))
"""Offsets (rows, columns) of the cells whose matches each cell tries. Three cells cross a small mistake, and
four trials are few enough not to agree by chance. Chosen by hand."""
TOLERANCE = 2.0
"""Two neighbours agree if their matches differ by less than this many HR pixels. Chosen by hand."""
NOWHERE = -1
"""Stands for a reference where a cell has no guess."""
COMPANY = 17
"""Side, in cells, of the neighbourhood that supports a match."""
SUPPORT = (0.15, 0.35)
"""A match counts from the first mean confidence of its neighbourhood on, and in full from the second. Unrelated
pictures reach 0.18 (`examples/ranking.py`)."""
FARTHEST, TURN = 2.0, 0.35
"""Alignment moves a match by at most `FARTHEST` HR pixels and changes each entry of its frame by at most `TURN`."""


@torch.no_grad()
def align(
    starts: Correspondence | Sequence[Correspondence],
    query: Tensor,
    references: Sequence[Tensor],
    *,
    patch: int = 28,
    step: int = 2,
    iterations: int = 2,
    rounds: int = 3,
    memory: int = 2**23,
) -> Correspondence:
    """Find the affine frame and the sub-pixel position at which the surroundings of each match agree best.

    Another view may show a place larger, turned or slanted. A match then needs a frame, not only a position. This step
    is not in the paper, which leaves it to the learned offsets.

    1. Each cell takes the best of its `starts`.
    2. `iterations` of Lucas and Kanade's method (1981; six parameters per cell) maximise the zero-mean normalised
       correlation of luma.
    3. `rounds` times, each cell tries the matches of its neighbours, carried on to its own place (the propagation of
       PatchMatch, Barnes et al. 2009), and aligns the best of them. After the first round only cells that disagree with
       a neighbour do so. On a railing or a row of windows a whole region may follow a wrong period: there the right one
       spreads from the region's border. With one round, how much a reference had been enlarged before decided which
       regions were wrong, and over 0.4 dB (group 0 of MultiView, balanced, 28 November 2026).
    4. The confidence is the correlation to the power of `TRUST`, times the share of neighbours that agree. A true match
       lies on a surface with others; a chance resemblance lies alone.

    Args:
        starts: one or several correspondences of the same cells.
        query: the enhanced image, `[B, 3, H, W]`.
        references: each `[B, 3, Hr, Wr]`, degraded and enhanced like the image. The correlation then measures the match
            and not what the enhancer could not restore (`examples/matching_table.py`).
        patch: side of the window that is compared, in HR pixels.
        step: HR pixels between its samples.
        iterations, rounds: see above.
        memory: bound of the working storage in bytes, beside three planes per reference. The size of a core's cache is
            fastest.

    Raises:
        ValueError: if query or references do not fit the correspondence, without a start, or for settings below one.
    """
    starts = [starts] if isinstance(starts, Correspondence) else list(starts)
    if not starts:
        raise ValueError("starts: expected at least one correspondence, got none")
    for start in starts:
        check_images(start, query, references)
    if patch < CELL or step < 1 or iterations < 1 or rounds < 0:
        raise ValueError(
            f"expected patch >= {CELL}, step and iterations >= 1 and rounds >= 0, got {patch}, {step}, {iterations} "
            f"and {rounds}"
        )
    windows = _Surroundings(query, references, patch, step, memory)
    found = windows.measured(starts[0].reference, _place(starts[0]))
    for start in starts[1:]:
        found = windows.better(found, start.reference, _place(start))
    found = windows.aligned(found, iterations)
    for number in range(rounds):
        doubtful = None if number == 0 else _agreement(found.reference, found.place) < 1
        found = windows.propagated(found, max(iterations - 1, 1), doubtful)
    confidence = found.similarity.clamp(0, 1).pow(TRUST) * _agreement(found.reference, found.place)
    batch, h, w = found.reference.shape
    return Correspondence(
        found.reference,
        found.place[..., :2].movedim(-1, 1).contiguous(),
        confidence[:, None],
        found.place[..., 2:].movedim(-1, 1).reshape(batch, 2, 2, h, w),
    )


def supported(confidence: Tensor) -> Tensor:
    """The confidence [B,1,h,w] times a factor 0 … 1 that depends on the mean confidence of `COMPANY`² cells around.

    A match by chance may agree with its neighbours by chance, but it does not lie in a whole region that matches.
    """
    around = mean_around(confidence, COMPANY)
    chance, sure = SUPPORT
    return confidence * ((around - chance) / (sure - chance)).clamp(0, 1)


@dataclass(frozen=True)
class _Found:
    """Which reference [B,h,w], the place in it [B,h,w,6] (x, y, and the frame row by row), and the correlation there
    [B,h,w]."""

    reference: Tensor
    place: Tensor
    similarity: Tensor


def _place(correspondence: Correspondence) -> Tensor:
    """[B,h,w,6]: x, y, and the frame row by row."""
    frame = correspondence.frames.flatten(1, 2)
    return torch.cat((correspondence.position, frame), dim=1).movedim(1, -1)


def _carried(place: Tensor, x: float, y: float) -> Tensor:
    """Where the surroundings of `place` put what lies (x, y) HR pixels from its cell; the frame stays."""
    there = place[..., :2] + place[..., 2::2] * x + place[..., 3::2] * y
    return torch.cat((there, place[..., 2:]), dim=-1)


def _agreement(reference: Tensor, state: Tensor) -> Tensor:
    """[B,h,w]: the share of a cell's four neighbours that agree with its match.

    A neighbour agrees if its frame, carried on to the cell, predicts the cell's position. Neighbours that look at
    another reference do not count: where one reference ends and another begins, both may be right.
    """
    agree, count = torch.zeros(reference.shape, device=state.device), torch.zeros_like(reference)
    h, w = reference.shape[1:]
    for rows, columns in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        here = (..., slice(max(rows, 0), h + min(rows, 0)), slice(max(columns, 0), w + min(columns, 0)))
        there = (..., slice(max(-rows, 0), h + min(-rows, 0)), slice(max(-columns, 0), w + min(-columns, 0)))
        carried = _carried(state[(*there, slice(None))], CELL * columns, CELL * rows)
        near = (carried[..., :2] - state[(*here, slice(None))][..., :2]).norm(dim=-1) < TOLERANCE
        same = reference[there] == reference[here]
        agree[here] += near & same
        count[here] += same
    return agree / count.clamp_min(2)  # one neighbour is too little company


class _Surroundings:
    """The surroundings of the cells of a query, and of places in the references, as rows of samples."""

    def __init__(self, query: Tensor, references: Sequence[Tensor], patch: int, step: int, memory: int) -> None:
        self.keys = [_with_gradient(luma(image)[:, None]) for image in references]
        self.limit = query.new_tensor([(k.shape[3], k.shape[2]) for k in self.keys]) - (CELL + 1) / 2
        offset = torch.arange(0, patch, step, device=query.device) - (patch - step) / 2
        self.y, self.x = (t.flatten() for t in torch.meshgrid(offset, offset, indexing="ij"))
        self.chunk = max(1, memory // (4 * 20 * len(self.x)))  # about twenty numbers live per sample
        batch, _, height, width = query.shape
        home = _place(Correspondence.identity(batch, height // CELL, width // CELL, query.device))
        x, y = home[0, 0, :, :1] + self.x, home[0, :, 0, 1:2] + self.y  # [w,s] and [h,s]
        self.within_x, self.within_y = ((t > -0.5) & (t < n - 0.5) for t, n in ((x, width), (y, height)))
        plane = luma(query)[:, None]
        self.around = query.new_empty((*home.shape[:3], len(self.x)), dtype=torch.float16)
        rows = max(1, self.chunk // home.shape[2])  # at a time
        for b in range(batch):
            for part, place, within_y in zip(
                self.around[b].split(rows), home[b].split(rows), self.within_y.split(rows), strict=True
            ):
                seen = (self.within_x & within_y[:, None]).flatten(0, 1)
                around, _ = _normalised(self._at(plane[b : b + 1], place.flatten(0, 1))[0], seen)
                part.copy_(around.view_as(part))
        """The samples around each cell of the query, [B,h,w,s], with norm one. They take the most memory, so they are
        stored in half precision, which changes no correlation noticeably."""

    def measured(self, reference: Tensor, place: Tensor) -> _Found:
        """`place` [B,h,w,6] of the named references [B,h,w], moved so that each cell lies inside, and what it is
        worth: nothing, -inf, where the reference is `NOWHERE`."""
        low = (CELL - 1) / 2
        place = torch.cat((place[..., :2].clamp_min(low).minimum(self.limit[reference]), place[..., 2:]), dim=-1)
        similarity = torch.full(reference.shape, -torch.inf, device=place.device)
        for cells, _, plane in self._parts(reference):
            samples, _ = _normalised(self._at(plane[:, :1], place[cells])[0], self._seen(cells))
            similarity[cells] = (self.around[cells] * samples).sum(-1)
        return _Found(reference, place, similarity)

    def better(self, found: _Found, reference: Tensor, place: Tensor) -> _Found:
        """For each cell, what was found or the guess, whichever correlates more."""
        guess = self.measured(reference, place)
        wins = guess.similarity > found.similarity
        return _Found(
            torch.where(wins, guess.reference, found.reference),
            torch.where(wins[..., None], guess.place, found.place),
            torch.where(wins, guess.similarity, found.similarity),
        )

    def propagated(self, found: _Found, iterations: int, chosen: Tensor | None = None) -> _Found:
        """For each cell, or only the `chosen` ones [B,h,w], what was found or what its neighbours found, carried on to
        its place, whichever correlates more; aligned."""
        before = found
        for rows, columns in NEIGHBOURS:
            # Beyond the border it is the far side's: one more guess, which costs nothing if wrong.
            reference, guess = (t.roll((rows, columns), (1, 2)) for t in (found.reference, found.place))
            if chosen is not None:
                reference = reference.masked_fill(~chosen, NOWHERE)
            found = self.better(found, reference, _carried(guess, CELL * columns, CELL * rows))
        changed = None if chosen is None else found.similarity > before.similarity
        return self.aligned(found, iterations, changed)

    def aligned(self, found: _Found, iterations: int, chosen: Tensor | None = None) -> _Found:
        """The best places met on the way, for the `chosen` cells [B,h,w] or all."""
        place, similarity = found.place.clone(), found.similarity.clone()
        reference = found.reference if chosen is None else found.reference.masked_fill(~chosen, NOWHERE)
        for cells, number, plane in self._parts(reference):
            place[cells], similarity[cells] = self._descend(
                plane, self.limit[number], self.around[cells].float(), self._seen(cells), place[cells], iterations
            )
        return _Found(found.reference, place, similarity)

    def _seen(self, cells: tuple[Tensor, ...]) -> Tensor:
        """Which samples lie in the query, [n,s]: at its border only these are compared."""
        _, rows, columns = cells
        return self.within_x[columns] & self.within_y[rows]

    def _parts(self, reference: Tensor) -> Iterator[tuple[tuple[Tensor, ...], int, Tensor]]:
        """All cells, a bounded number of one sample and one reference at a time: their indices, the number of the
        reference and its planes [1,3,Hr,Wr]."""
        for b in range(len(reference)):
            for number, plane in enumerate(self.keys):
                for part in (reference[b] == number).nonzero().split(self.chunk):
                    rows, columns = part.unbind(1)
                    yield (torch.full_like(rows, b), rows, columns), number, plane[b : b + 1]

    def _at(self, plane: Tensor, place: Tensor) -> Tensor:
        """[C,n,s] of a plane [1,C,H,W] at `place` [n,6]."""
        x, y = (
            place[:, i, None] + place[:, 2 + 2 * i, None] * self.x + place[:, 3 + 2 * i, None] * self.y for i in (0, 1)
        )
        height, width = plane.shape[2:]
        grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)[None]
        return F.grid_sample(plane, grid, padding_mode="border", align_corners=False)[0]

    def _descend(
        self, plane: Tensor, limit: Tensor, query: Tensor, seen: Tensor, start: Tensor, iterations: int
    ) -> tuple[Tensor, Tensor]:
        """Gauss-Newton from `start` [n,6]; the best place met, and the correlation [n] there."""
        # The place may not run away from where it was, nor out of its reference, nor the frame from the identity.
        frame = start.new_tensor((1.0, 0.0, 0.0, 1.0)).expand(len(start), 4)
        low = torch.cat(((start[:, :2] - FARTHEST).clamp_min((CELL - 1) / 2), frame - TURN), dim=1)
        high = torch.cat(((start[:, :2] + FARTHEST).minimum(limit), frame + TURN), dim=1)
        best, most, place = start, start.new_full(start.shape[:1], -torch.inf), start
        for iteration in range(iterations + 1):
            samples, dx, dy = self._at(plane, place)
            key, norm = _normalised(samples, seen)
            similarity = (query * key).sum(-1)
            better = similarity > most
            best, most = torch.where(better[:, None], place, best), torch.where(better, similarity, most)
            if iteration < iterations:
                slopes = torch.stack((dx, dy, dx * self.x, dx * self.y, dy * self.x, dy * self.y)) / norm  # [6,n,s]
                # What normalisation takes away cannot be reached by moving.
                slopes = _centred(slopes, seen)
                slopes = slopes - key * (key * slopes).sum(-1, keepdim=True)
                place = place + _gauss_newton(slopes.movedim(1, 0), query - key, float(self.x.max()))
                place = place.maximum(low).minimum(high)
        return best, most


def _gauss_newton(slopes: Tensor, rest: Tensor, radius: float) -> Tensor:
    """The step [n,6] that explains `rest` [n,s] best by `slopes` [n,6,s], damped where they say little."""
    square = slopes @ slopes.mT
    slope = (slopes @ rest[..., None])[..., 0]
    steepness = square[:, :2, :2].diagonal(dim1=1, dim2=2).mean(1)
    # A frame that moves the window's border by a pixel is as large a change as a shift by one.
    damping = square.new_tensor((0.0, 0.0, *4 * (0.02 * radius**2,))) + 1e-3
    step = torch.linalg.solve(square + torch.diag_embed(damping * steepness[:, None] + 1e-6), slope)
    return torch.cat((step[:, :2].clamp(-1, 1), step[:, 2:]), dim=1)


def _with_gradient(plane: Tensor) -> Tensor:
    """[B,1,H,W] → [B,3,H,W]: the plane, and its slopes along x and y."""
    padded = F.pad(plane, (1, 1, 1, 1), mode="replicate")
    dx = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    dy = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return torch.cat((plane, dx, dy), dim=1)


def _normalised(samples: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """[n,s] with mean 0 and norm 1 over those that are `seen` [n,s], 0 elsewhere, and the norms [n,1] it was divided
    by."""
    samples = _centred(samples, seen)
    norm = (samples.square().sum(-1, keepdim=True) + NOISE**2 * seen.sum(-1, keepdim=True)).sqrt()
    return samples / norm, norm


def _centred(samples: Tensor, seen: Tensor) -> Tensor:
    """[...,n,s] less its mean over those that are `seen` [n,s], 0 elsewhere."""
    mean = (samples * seen).sum(-1, keepdim=True) / seen.sum(-1, keepdim=True)
    return (samples - mean) * seen
