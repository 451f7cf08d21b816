"""Where the pixels of a picture lie in the picture that it was cut, turned and resized from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from def_hub.reference.matching.pose import Pose, Sighting

Matrix = tuple[tuple[float, float], tuple[float, float]]
IDENTITY: Matrix = ((1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True)
class Placement:
    """The map place ↦ matrix · place + offset, from pixels (x, y) of a picture to those of its original; pixel centres
    lie at integers in both."""

    matrix: Matrix = IDENTITY
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of_turn(cls, pose: Pose, size: tuple[int, int]) -> Placement:
        """Of `pose.turned` of a picture of that height and width."""
        height, width = size
        # what is one pixel to the right, or below, in the turned picture lies there in the original
        right, down = (
            [(1, 0), (0, 1), (-1, 0), (0, -1)][pose.quarters % 4],
            [(0, 1), (-1, 0), (0, -1), (1, 0)][pose.quarters % 4],
        )
        x, y = [(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)][pose.quarters % 4]
        if pose.mirrored:
            last = (height if pose.quarters % 2 else width) - 1
            x, y, right = x + last * right[0], y + last * right[1], (-right[0], -right[1])
        return cls(((right[0], down[0]), (right[1], down[1])), (x, y))

    def moved(self, x: float, y: float) -> Placement:
        """The same, where the original itself was cut from a larger one at (x, y)."""
        return Placement(self.matrix, (self.offset[0] + x, self.offset[1] + y))

    def after_resizing(self, x: float, y: float) -> Placement:
        """Of the picture resized by these factors: the outer borders of pixels coincide, not their centres."""
        (a, b), (c, d) = self.matrix
        centre = (0.5 / x - 0.5, 0.5 / y - 0.5)
        offset = (
            self.offset[0] + a * centre[0] + b * centre[1],
            self.offset[1] + c * centre[0] + d * centre[1],
        )
        return Placement(((a / x, b / y), (c / x, d / y)), offset)

    def after(self, first: Placement) -> Placement:
        """Of a picture that `first` places in one that this places."""
        (a, b), (c, d) = self.matrix
        (e, f), (g, h) = first.matrix
        x, y = first.offset
        offset = (a * x + b * y + self.offset[0], c * x + d * y + self.offset[1])
        return Placement(((a * e + b * g, a * f + b * h), (c * e + d * g, c * f + d * h)), offset)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels per pixel of the original, along x and y of the picture."""
        (a, b), (c, d) = self.matrix
        return 1 / (a * a + c * c) ** 0.5, 1 / (b * b + d * d) ** 0.5

    def original(self, place: Tensor) -> Tensor:
        """`[2, ...]` (x, y) in pixels of the picture → in pixels of the original."""
        matrix, offset = (place.new_tensor(v) for v in (self.matrix, self.offset))
        moved = torch.einsum("ij,j...->i...", matrix, place)
        return moved + offset.view(2, *[1] * (place.ndim - 1))


def trusted_places(seen: Sighting, size: tuple[int, int]) -> Tensor:
    """`[2, n]` (x, y): where the trusted matches lie in pixels of the unturned reference of that height and width."""
    place = seen.matches.position[0][:, seen.trusted]
    return Placement.of_turn(seen.pose, size).after_resizing(*seen.scale).original(place)
