"""A reference counts by the detail that it adds, not by its agreement."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub import DEFPipeline, rank_references
from def_hub.images import to_tensor
from def_hub.observation.downsample import Downsample
from def_hub.reference.matching.detail import detail_worth, stepped

from .test_pipeline import EXAMPLES, generator


@pytest.fixture(scope="module")
def street() -> Tensor:
    return to_tensor(EXAMPLES / "street_hr.webp")[..., 96:352, 64:320]


@pytest.fixture(scope="module")
def y(street: Tensor) -> Tensor:
    return Downsample().forward(street).clamp(0, 1)


def enlarged(y: Tensor, factor: float, mode: str = "bicubic") -> Tensor:
    return F.interpolate(y, scale_factor=factor, mode=mode).clamp(0, 1)


def dotted(picture: Tensor) -> Tensor:
    x, y = torch.meshgrid(*(torch.arange(n) for n in picture.shape[2:]), indexing="ij")
    return (picture > 0.5 + 0.45 * torch.cos(0.9 * (x + y)) * torch.cos(0.9 * (x - y))).float()


HARMFUL = {
    "copy": lambda y, sharp: enlarged(y, 4),
    "larger copy": lambda y, sharp: enlarged(y, 7),
    "copy of repeated pixels": lambda y, sharp: enlarged(y, 4, "nearest"),
    "larger copy of repeated pixels": lambda y, sharp: enlarged(y, 5.5, "nearest"),
    "print": lambda y, sharp: dotted(sharp),
    "dither": lambda y, sharp: (sharp > torch.rand(sharp.shape, generator=generator(3))).float(),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_harmful_references_do_no_harm(pipe: DEFPipeline, street: Tensor, y: Tensor, kind: str) -> None:
    """Alone they change nothing; beside the sharp one, neither."""

    def error(*references: Tensor) -> Tensor:
        result = pipe(y, list(references), preset="fast", precision="float32", generator=generator(), output_type="pt")
        return (result.images[0] - street[0]).square().mean()

    harmful = HARMFUL[kind](y, street)
    decibel = 10 * torch.log10(error(harmful) / error())
    assert decibel < 0.05
    assert 10 * torch.log10(error(street, harmful) / error(street)) < 0.1


def test_ranked_by_the_detail_that_is_added(y: Tensor, street: Tensor) -> None:
    candidates = [change(y, street) for change in HARMFUL.values()]
    ranked = rank_references(y, [*candidates, street])
    assert ranked[0].index == len(candidates) and ranked[0].verdict == "likely"
    assert all(r.verdict == "unlikely" for r in ranked[1:])


def test_detail_that_was_expected_adds_nothing() -> None:
    operator, rand = Downsample(), torch.rand(1, 3, 64, 64, generator=generator())
    assert detail_worth(rand, rand, operator) == 0
    assert detail_worth(torch.full_like(rand, 0.5), rand, operator) == 0
    assert detail_worth(rand, torch.rand(1, 3, 64, 64, generator=generator(1)), operator) == 0  # nothing in common
    half = rand.lerp(torch.rand(1, 3, 64, 64, generator=generator(1)), 0.5)
    assert detail_worth(rand, half, operator) == 1


@pytest.mark.parametrize("factor", (2, 3.3, 4))
def test_repeated_pixels_are_recognised(street: Tensor, y: Tensor, factor: float) -> None:
    assert stepped(enlarged(y, factor, "nearest"))
    assert not stepped(enlarged(y, factor)) and not stepped(street)
    border = F.pad(enlarged(y, factor, "nearest"), (40, 40, 0, 0))
    assert stepped(border)


@pytest.mark.parametrize("value", (0.0, 0.5))
def test_flat_pictures_have_no_steps(value: float) -> None:
    assert not stepped(torch.full((1, 3, 64, 64), value))
