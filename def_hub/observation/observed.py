"""What is known of one image, as the pipeline uses it: what its networks see, and what its result agrees with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from def_hub.observation.agreement import Agreement, Observation, observe
from def_hub.observation.assessment import Assessment, assess
from def_hub.observation.degradation import Degradation, degrade, planes
from def_hub.observation.downsample import Downsample
from def_hub.observation.jpeg import JpegFile
from def_hub.observation.sets import Exact


@dataclass(frozen=True)
class Observed:
    """assessment: what is assumed of the image, and how sure. observation: the set that A x lies in."""

    assessment: Assessment
    observation: Observation

    @staticmethod
    def of(assessment: Assessment, y: Tensor, operator: Downsample) -> Observed:
        """Of an image `[1, 3, h, w]` that was assessed before."""
        return Observed(assessment, observe(y, assessment.degradation, operator, assessment.file))

    @property
    def clean(self) -> bool:
        """The image was shrunk by the networks' own operator, and nothing else happened."""
        return isinstance(self.observation.known, Exact) and self.assessment.degradation == Degradation()

    @property
    def sampled(self) -> bool:
        """The image holds pixels of the scene, every fourth one, and nothing else happened."""
        return isinstance(self.observation.known, Exact) and self.observation.operator.kernel == "nearest"

    @property
    def lost_more(self) -> bool:
        """The image lost more than the shrinking takes that networks know best, and no sample tells how much."""
        return not self.clean and not self.sampled

    @property
    def project(self) -> Callable[[Tensor], Tensor] | None:
        """The projection for each step of the diffusion; None where the plain one of eq. 9 is right."""
        return None if self.clean else self.observation.project

    def seen_by(self, y: Tensor, known: int) -> Tensor:
        """`y` `[1, 3, h, w]` with the planes that a network of `known` planes is given, `[1, 3 + known, h, w]`."""
        degradation = self.assessment.degradation
        if known == 0 or degradation == Degradation():
            return y
        said = planes(degradation)[:known].to(y).view(1, -1, 1, 1)
        return torch.cat((y, said.expand(1, -1, *y.shape[2:])), dim=1)

    def degraded(self, sharp: Tensor, operator: Downsample) -> Tensor:
        """A reference `[1, 3, H, W]` after what happened to the image, so that like is compared with like."""
        if self.assessment.degradation == Degradation():
            return operator.forward(sharp).clamp(0, 1)
        return degrade(sharp, self.assessment.degradation).picture.to(sharp)

    def project_beside(self, small: Tensor, operator: Downsample) -> Callable[[Tensor], Tensor] | None:
        """`project` for a reference that was `degraded` to `small` `[1, 3, h, w]`; None for the plain projection, which
        did better than the set where the image is noisy or blurred: it keeps more to compare."""
        degradation = self.assessment.degradation
        if self.clean or (degradation.quality is None and not isinstance(self.observation.known, Exact)):
            return None
        return observe(small, degradation, operator).project

    def finish(self, x: Tensor, operator: Downsample, consistency: bool = True) -> tuple[Tensor, Agreement]:
        """The end of every result: `x` in [0, 1], the nearest picture that agrees where `consistency` is wanted.

        operator: from the size of `x` to the image's; its kernel and blur are replaced by those that are known.
        """
        known = self.observation.operator
        whole = replace(self.observation, operator=replace(operator, kernel=known.kernel, blur=known.blur))
        if consistency:
            return whole.finish(x)
        x = x.clamp(0, 1)
        return x, whole.agreement(x)


def check_degradation(name: str) -> None:
    """Raise ValueError where a setting `degradation` is neither "auto" nor a description that can be read."""
    if name != "auto":
        Degradation.parse(name)


def observed(y: Tensor, name: str, operator: Downsample, file: JpegFile | None = None) -> Observed:
    """What is known of an image.

    Args:
        y: `[1, 3, h, w]` in [0, 1].
        name: "auto" (measured, and read from the file), "clean", or a description, see `Degradation.parse`.
        operator: what the networks were made for.
        file: what the JPEG file says that `y` was read from.

    Raises ValueError for a description that cannot be read.
    """
    if name == "auto":
        assessment = assess(y, file)
    else:
        degradation = Degradation.parse(name)
        assessment = Assessment(degradation, file=None if degradation.quality is None else file)
    return Observed.of(assessment, y, operator)
