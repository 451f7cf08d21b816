"""How a reference shows the place: how large, turned by how many quarters, mirrored or not.

Features know one scale and one orientation, so a reference must first be brought to those of the image. Small copies of
both are compared: every cell of the image, in all eight orientations, votes for where it lies in copies of the
reference of several sizes (a Hough transform); matches of the true pose agree on one displacement. The poses with most
votes are confirmed by aligned matches. The largest copy has a bounded number of times the cells of the image's, so the
cost does not depend on the size of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from def_hub.reference.matching.correspondence import CELL, Correspondence, KeptViews, Views, mean_around
from def_hub.reference.matching.pyramid import match_coarse_to_fine

VOTING, CONFIRMING = 16, 32
"""Side, in cells, of the square that has as many cells as the image is seen with, while poses are voted for and while
they are confirmed."""
LARGER, SMALLER = 16.0, 1 / 12
"""Area of a copy of the reference, in areas of the image: it shows at most so much more of the place, or less."""
USUAL = 4.0
"""The same for the copies that are confirmed where votes did not tell, or looked at for mirror images, which are rare:
larger ones cost the most."""
OCTAVE = 0.5
"""Step between the sizes of copies, as a logarithm; votes are still found a quarter octave away."""
COARSEST, FINEST = 2.0, -4.0
"""Logarithms of the factors that are tried: from references that must be enlarged four times to those that are 16 times
finer than the result."""
UPRIGHT = 3
"""How many upright poses are confirmed, beside one that is turned and one that is mirrored."""
CERTAIN = 3.0
"""Votes, in multiples of what chance gives, from which the best upright pose is confirmed alone."""
DOUBTFUL = 1.5
"""The same, from which a turned or mirrored pose is confirmed at all; unrelated pictures reach 2.3."""
TURN_PENALTY, MIRROR_PENALTY = 1.1, 1.4
"""A turned, or mirrored, pose must have so many times the support of one that is not: façades resemble their mirror
images."""
STEP = 4
"""Pixels between what is compared when a pose is confirmed, see `matching.align`."""
SERVED = 0.3
"""Confidence from which a cell counts as served."""
CLOSE = 0.1
"""Logarithm of the factor by which a copy may differ from the size of the image and still be measured at."""
LEAST = 0.08
"""Support from which a pose is believed; unrelated pictures reach 0.06 (`examples/ranking.py`, 28 November 2026)."""
UNSURE = 0.04
"""Support below which a pose is no more than a guess."""
PROMISING = 0.02
"""Support on the small copies that vote, from which a pose without votes is confirmed, too; unrelated pictures rarely
reach it."""
DIRECTIONS = 128
"""Of the patches that vote: they hold 97 % of what the image's patches are, at a quarter of the cost of all 576."""
COMPANY, ALONE, SURE = 5, 0.2, 0.5
"""Side, in cells, of the surroundings that support a match, and mean confidence there from which it begins to count,
and counts in full."""


@dataclass(frozen=True)
class Pose:
    """quarters: turns by 90°, counter-clockwise, and mirrored: whether left and right are then exchanged, that bring
    the reference to the orientation of the image. octave: logarithm (base 2) of the factor that brings it to the scale
    of the result.
    """

    quarters: int = 0
    mirrored: bool = False
    octave: float = 0.0

    @property
    def upright(self) -> bool:
        return self.quarters == 0 and not self.mirrored

    def turned(self, picture: Tensor) -> Tensor:
        """A picture `[..., H, W]` in the orientation of the image."""
        picture = picture.rot90(self.quarters, (-2, -1)) if self.quarters else picture
        return picture.flip(-1) if self.mirrored else picture

    def unturned(self, picture: Tensor) -> Tensor:
        """The inverse of `turned`."""
        picture = picture.flip(-1) if self.mirrored else picture
        return picture.rot90(-self.quarters, (-2, -1)) if self.quarters else picture


ORIENTATIONS = tuple(Pose(quarters, mirrored) for mirrored in (False, True) for quarters in range(4))


@dataclass(frozen=True)
class Sighting:
    """A pose, and what speaks for it.

    query: the small copy of the image `[1, 3, H, W]`; key: that of the reference, turned. matches: of `query` in `key`.
    scale (x, y): pixels of `key` per pixel of the turned reference. support: mean confidence of the matches that lie
    among confident ones, 0 … 1; unrelated pictures reach 0.05. `pose.octave` is that of `key`, whose sides are whole
    cells.
    """

    pose: Pose
    query: Tensor
    key: Tensor
    matches: Correspondence
    scale: tuple[float, float]
    support: float

    @property
    def trusted(self) -> Tensor:
        """`[h, w]`: the matches that may be believed."""
        confidence = self.matches.confidence
        return ((confidence >= SERVED) & (mean_around(confidence, COMPANY) >= ALONE))[0, 0]

    @property
    def askew(self) -> float:
        """Degrees by which the reference is turned beside the pose, as the frames of the matches have it."""
        if int(self.trusted.sum()) < 8:
            return 0.0
        frame = self.matches.frames[0][..., self.trusted]  # [2,2,n]
        turn = torch.atan2(frame[1, 0] - frame[0, 1], frame[0, 0] + frame[1, 1])
        return math.degrees(float(turn.median())) * (-1 if self.pose.mirrored else 1)

    @property
    def remaining(self) -> float:
        """Logarithm of the factor by which `key` should be larger, as the frames of the matches have it."""
        if int(self.trusted.sum()) < 8:
            return 0.0
        frame = self.matches.frames[0][..., self.trusted]  # [2,2,n]
        area = (frame[0, 0] * frame[1, 1] - frame[0, 1] * frame[1, 0]).clamp_min(1e-3)
        return -0.5 * float(area.log2().median())


class ImageCopies:
    """The LR image `[1, 3, h, w]` as poses are sought with, the same for any number of references; `extract` gives the
    pyramid of features of a picture. upright: references are looked for as they stand, neither turned nor mirrored,
    which takes less than half of the time where nothing is found."""

    def __init__(self, image: Tensor, extract: Callable[[Tensor], Sequence[Tensor]], upright: bool = False) -> None:
        self.image, self.upright = image, upright
        self.orientations = ORIENTATIONS[:1] if upright else ORIENTATIONS
        self._extract, self._features = extract, WeakTensorKeyDictionary()  # a copy's features live as long as it does
        self._copies: dict[int, Views] = {}

    def extract(self, picture: Tensor) -> Sequence[Tensor]:
        """The pyramid of features of a picture, computed once as long as the picture is held."""
        if picture not in self._features:
            self._features[picture] = self._extract(picture)
        return self._features[picture]

    @cached_property
    def voting(self) -> tuple[list[tuple[int, int]], Tensor, Tensor]:
        """For each of `orientations`, the cells of a small copy, (h, w), and the patches there, `[8, h·w, d]`, along
        the `DIRECTIONS` in which all of them vary most, `[9·C, d]`."""
        small = self.copy(VOTING).bicubic
        features = [self.extract(orientation.unturned(small))[-1] for orientation in self.orientations]
        patches = torch.stack([_patches(one) for one in features])
        every = patches.flatten(0, 1)
        directions = torch.linalg.eigh(every.T @ every).eigenvectors[:, -DIRECTIONS:]
        return [(one.shape[2], one.shape[3]) for one in features], patches @ directions, directions

    def copy(self, cells: int) -> Views:
        """The image, enlarged to the result's scale or less, with so many cells², or fewer where it has fewer."""
        if cells not in self._copies:
            small = resized(self.image, CELL * _shrunk(self.image, cells))
            self._copies[cells] = KeptViews(small, small)
        return self._copies[cells]


@torch.no_grad()
def sight(image: ImageCopies, picture: Tensor, usable: Tensor | None = None) -> Sighting:
    """The pose that the most matches speak for, and these matches.

    Args:
        picture: the reference `[1, 3, Hr, Wr]`, sides multiples of 4. usable: see `Views`.
    """
    search = _Search(image, picture, usable)
    poses = search.candidates()
    best = max(map(search.confirm, poses), key=_weight)
    if best.support < LEAST:  # too few cells are alike to outvote chance, but matches may still agree
        others = [Pose(octave=octave) for octave in search.octaves(USUAL)]
        others = [pose for pose in others if pose not in poses and search.confirm(pose, VOTING).support >= PROMISING]
        best = max([best, *map(search.confirm, others)], key=_weight)
    if abs(best.remaining) > CLOSE and best.support > UNSURE:  # seen between two sizes: look again at the right one
        again = search.confirm(replace(best.pose, octave=best.pose.octave + best.remaining))
        best = again if again.support >= 0.9 * best.support else best
    return replace(best, pose=replace(best.pose, octave=best.pose.octave + best.remaining))


def agreement(image: ImageCopies, picture: Tensor) -> float:
    """The votes for the pose with the most, in multiples of what chance gives: a quick look, which takes a sixth of the
    time of `sight`. Arguments as for `sight`."""
    search = _Search(image, picture, None)
    return max(share / search.chance(pose.octave) for pose, share in search.votes().items())


def seems_shown(image: ImageCopies, picture: Tensor) -> bool:
    """Whether votes alone say that a reference shows the place, in some orientation. Arguments as for `sight`."""
    return agreement(image, picture) >= CERTAIN


def _weight(seen: Sighting) -> float:
    """What speaks for a pose, less what the orientation takes."""
    penalty = MIRROR_PENALTY if seen.pose.mirrored else 1 if seen.pose.upright else TURN_PENALTY
    return seen.support / penalty


class _Search:
    """Copies of one image and one reference, and what they say about poses."""

    def __init__(self, copies: ImageCopies, picture: Tensor, usable: Tensor | None) -> None:
        self.copies, self.image, self.usable, self.extract = copies, copies.image, usable, copies.extract
        self.sides = tuple(picture.shape[2:])
        # Copies are made of one that is as large as the largest which is confirmed: one pass over what may be huge.
        largest = _shrunk(self.image, CONFIRMING) * 2 ** max(self.octaves())
        self.source = resized(picture, largest) if largest < 1 else picture

    def octaves(self, larger: float = LARGER) -> list[float]:
        """The logarithms that are tried. A copy has at most `larger` times the area of the image, and at least
        `SMALLER`. One is always left.

        They are counted from the copy that is as large as the image: the copies of a reference that was enlarged are
        then those of the reference itself, and so is what is found in them.
        """
        same = -0.5 * math.log2(self._area(0.0))
        most, least = (math.floor(0.5 * math.log2(area) / OCTAVE) for area in (larger, 1 / SMALLER))
        steps = [same + OCTAVE * i for i in range(-least, most + 1)]
        fitting = [octave for octave in steps if FINEST <= octave <= COARSEST]
        return fitting or [min(max(same, FINEST), COARSEST)]

    def candidates(self) -> list[Pose]:
        """Poses worth confirming: the upright ones with most votes, and a turned and a mirrored one that have more."""
        votes = {pose: share / self.chance(pose.octave) for pose, share in self.votes().items()}
        order = sorted(votes, key=lambda pose: -votes[pose])
        upright = [pose for pose in order if pose.upright][:UPRIGHT]
        most = votes[upright[0]]
        others = [pose for pose in order if not pose.upright and votes[pose] >= max(DOUBTFUL, most)]
        kinds = sorted({pose.mirrored for pose in others})
        best = upright[:1] if most >= CERTAIN else upright
        return best + [next(pose for pose in others if pose.mirrored == mirrored) for mirrored in kinds]

    def chance(self, octave: float) -> float:
        """The share of votes that unrelated pictures give, on the mean: more to small copies, which have fewer cells
        (27 photographs of other scenes)."""
        return 0.13 * max(self._area(octave), 0.5) ** -0.15

    def _area(self, octave: float) -> float:
        """Of a copy of the reference, in areas of the image."""
        return math.prod(self.sides) / (math.prod(self.image.shape[2:]) * CELL**2) * 4**octave

    def votes(self) -> dict[Pose, float]:
        """For each pose, the largest share of the image's cells whose best matches lie equally far away. Mirror images
        are looked for among the `USUAL` sizes."""
        grids, patches, directions = self.copies.voting
        votes, usual = {}, self.octaves(USUAL)
        for octave in self.octaves():
            key = self.extract(self.copy(octave, VOTING))[-1]
            theirs = directions.T @ _patches(key).T
            for orientation, grid, ours in zip(self.copies.orientations, grids, patches, strict=True):
                if octave in usual or not orientation.mirrored:
                    nearest = (ours @ theirs).argmax(1)
                    votes[replace(orientation, octave=octave)] = _agreeing(nearest, grid, key.shape[2:])
        return votes

    def confirm(self, pose: Pose, cells: int = CONFIRMING) -> Sighting:
        """The aligned matches of a pose, on copies with which the image is seen with so many cells² at most."""
        query = self.copies.copy(cells)
        key = pose.turned(self.copy(pose.octave, cells))
        usable = None if self.usable is None else mask_of(pose.turned(self.usable), key.shape[2:])
        with torch.autocast(key.device.type, enabled=False):  # a place needs more digits than half precision has
            matches = match_coarse_to_fine(
                query,
                [Views(key, key, usable=usable)],
                self.extract,
                "bicubic",
                step=STEP,
                rounds=1,  # more would help chance, too
            )
        height, width = reversed(self.sides) if pose.quarters % 2 else self.sides
        shown = math.prod(key.shape[2:]) / math.prod(query.bicubic.shape[2:]) / self._area(0.0)
        pose = replace(pose, octave=0.5 * math.log2(shown))
        support = matches.confidence * ((mean_around(matches.confidence, COMPANY) - ALONE) / (SURE - ALONE)).clamp(0, 1)
        scale = (key.shape[3] / width, key.shape[2] / height)
        return Sighting(pose, query.bicubic, key, matches, scale, float(support.mean()))

    def copy(self, octave: float, cells: int) -> Tensor:
        """The reference, unturned, as it is compared with an image that is seen with so many cells."""
        return _to(self.source, scaled_sides(self.sides, _shrunk(self.image, cells) * 2**octave))


def _shrunk(image: Tensor, cells: int) -> float:
    """How large an LR image is seen with `cells`² cells at most."""
    return min(1.0, cells / math.prod(image.shape[2:]) ** 0.5)


def _patches(features: Tensor) -> Tensor:
    """The 3×3 patches of features `[1, C, h, w]`, of norm one: `[h·w, 9·C]`."""
    return F.normalize(F.unfold(features.float(), 3, padding=1)[0].T, dim=1)


def _agreeing(index: Tensor, query: Sequence[int], key: Sequence[int]) -> float:
    """The largest share of the `query`'s cells whose matches, flat indices `[h·w]` into the `key`'s, lie equally far
    away, to a cell; both are heights and widths."""
    (h, w), (hr, wr) = query, key
    cell = torch.arange(h * w, device=index.device)
    down, right = index // wr - cell // w + h, index % wr - cell % w + w  # 1 and more
    count = torch.zeros(1, 1, hr + h + 1, wr + w + 1, device=index.device)
    count.view(-1).index_add_(0, down * count.shape[3] + right, torch.ones_like(index, dtype=count.dtype))
    return 9 * float(F.avg_pool2d(count, 3, stride=1, padding=1).max()) / (h * w)


def resized(picture: Tensor, scale: float) -> Tensor:
    """`[1, 3, H, W]` → about `scale` times as large, sides whole cells, two at least."""
    return _to(picture, scaled_sides(picture.shape[2:], scale))


def mask_of(usable: Tensor, sides: Sequence[int]) -> Tensor:
    """The mask for a picture of another height and width: a cell that may not be used wholly may not be used."""
    return (F.interpolate(usable, [n // CELL for n in sides], mode="area") == 1).float()


def scaled_sides(picture: Sequence[int], scale: float) -> tuple[int, int]:
    """About `scale` times each side, in whole cells, two at least."""
    height, width = (max(2, round(n * scale / CELL)) * CELL for n in picture)
    return height, width


def _to(picture: Tensor, sides: Sequence[int]) -> Tensor:
    if list(picture.shape[2:]) == list(sides):
        return picture
    return F.interpolate(picture, list(sides), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def sides_tried(image: Sequence[int], picture: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width of the copies of a reference that are confirmed beside an LR image, both of these sizes, if it
    shows as much as the image: for estimates of the cost."""
    shrunk = min(1.0, CONFIRMING / math.prod(image) ** 0.5)
    same = math.log2(math.prod(image) ** 0.5 * CELL / math.prod(picture) ** 0.5)
    return [scaled_sides(picture, shrunk * 2 ** (same + OCTAVE * i)) for i in range(UPRIGHT)]


def enough(image: Sequence[int]) -> int:
    """Pixels along its shorter side from which a reference has more than can be matched with an LR image of this
    height and width. A JPEG of 64 million pixels can then be decoded at a half, or less, of its size."""
    return math.ceil((LARGER * CELL**2 * math.prod(image)) ** 0.5)
