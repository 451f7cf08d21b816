"""What networks are given in training: LR images of several kinds, what is known of them, and an operator for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from def_hub.data import observed
from def_hub.observation.degradation import FILTERS, PLANES, Degradation
from def_hub.observation.downsample import Downsample

OPERATOR = Downsample()
WATCHED = ("jpeg70", "jpeg40", "noise5", "noise15", "blur3", "nearest", "box", "phone")
"""Degradations that the validation of a network which is told about them looks at."""


def degrade(image: Tensor) -> Tensor:
    """The LR image that a user would hold: A x, rounded to 8 bits."""
    return (OPERATOR.forward(image).clamp(0, 1) * 255).round() / 255


@dataclass(frozen=True)
class Given:
    """What a network is given of a batch, and an operator for it.

    y: LR images `[B, 3, h, w]` in [0, 1]. known: planes `[B, K, h, w]` of what is known of their degradation. exact:
    `[B]`, the number of the filter, in `FILTERS`, that shrank an image to which nothing else happened, -1 for the
    others. Only the former say exactly what their enlargement shrinks to, so `project` leaves the others alone.
    """

    y: Tensor
    known: Tensor
    exact: Tensor

    @property
    def seen(self) -> Tensor:
        """Images and planes in one `[B, 3 + K, h, w]`, as networks take them."""
        return torch.cat((self.y, self.known), dim=1)

    def pinv(self, y: Tensor) -> Tensor:
        return OPERATOR.pinv(y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        result = x
        for number, kernel in enumerate(FILTERS):
            these = self.exact == number
            if these.any():
                projected = Downsample(kernel).project(x[these], y[these])  # type: ignore[arg-type]
                result = result.index_put((these.nonzero()[:, 0],), projected)
        return result


def given(batch: dict[str, Tensor], planes: int) -> Given:
    """Of a batch of `def_hub.data.SampleStream`, for a network that takes that many planes."""
    image = batch["image"]
    y = batch["y"] if "y" in batch else degrade(image)
    known = batch["known"] if "known" in batch else y.new_zeros(len(y), len(PLANES), *y.shape[2:])
    exact = batch["exact"] if "exact" in batch else torch.zeros(len(y), dtype=torch.long, device=y.device)
    return Given(y, known[:, :planes], exact)


def given_reference(batch: dict[str, Tensor], planes: int) -> Given:
    """The same of the references of a batch, which are degraded as the images are."""
    y = batch["y_reference"] if "y_reference" in batch else OPERATOR.forward(batch["reference"]).clamp(0, 1)
    return given(batch | {"image": batch["reference"], "y": y}, planes)


def degraded(images: Tensor, name: str) -> dict[str, Tensor]:
    """A batch of `images` after the degradation called `name`, without references."""
    samples = [{"image": image, **observed(image, Degradation.parse(name))} for image in images]
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
