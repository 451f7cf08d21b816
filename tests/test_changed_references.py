"""References in other light, grey, or with something written over them."""

import pytest
import torch
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.reference.matching.refinement import luma

from .helpers.pictures import generator
from .helpers.references import enlarged, street


@pytest.fixture(scope="module", name="street")
def original() -> Tensor:
    return street()


def squared(pipe: DEFPipeline, street: Tensor, *references: Tensor) -> Tensor:
    """Squared error of the result's luma, `[H, W]`."""
    return luma(enlarged(pipe, street, *references).images[0][None] - street)[0].square()


def photographed(street: Tensor) -> Tensor:
    """A good reference, which gives a few decibels: the same again, with a camera's noise."""
    return (street + 6 / 255 * torch.randn(street.shape, generator=generator(1))).clamp(0, 1)


@pytest.fixture(scope="module")
def errors(pipe: DEFPipeline, street: Tensor) -> tuple[Tensor, Tensor]:
    """Without a reference, and with the good one."""
    return squared(pipe, street), squared(pipe, street, photographed(street))


LIGHT = {
    "hazy": lambda p: 0.6 * p + 0.3,
    "contrasty": lambda p: (1.4 * p - 0.2).clamp(0, 1),
    "grey": lambda p: p.mean(1, keepdim=True).expand_as(p),
    "half as bright at its left border": lambda p: p * torch.linspace(0.5, 1, p.shape[3]),
    "half as bright at its lower border": lambda p: p * torch.linspace(1, 0.5, p.shape[2])[:, None],
}


@pytest.mark.parametrize("kind", LIGHT)
def test_other_light_costs_at_most_a_third_of_the_gain(
    pipe: DEFPipeline, street: Tensor, errors: tuple[Tensor, Tensor], kind: str
) -> None:
    none, good = errors
    changed = squared(pipe, street, LIGHT[kind](photographed(street)))
    gain, whole = (torch.log10(none.mean() / error.mean()) for error in (changed, good))
    assert whole > 0.2 and gain >= whole * 2 / 3


def test_what_is_written_over_a_reference_is_not_carried_over(
    pipe: DEFPipeline, street: Tensor, errors: tuple[Tensor, Tensor]
) -> None:
    """A caption: white bars on black. Under it the result is what it is without a reference; elsewhere it gains."""
    none, _ = errors
    reference, under = street.clone(), (slice(40, 72), slice(32, 128))
    caption = (torch.arange(96) // 6 % 2).float().expand(3, 32, 96)
    reference[0][(slice(None), *under)] = caption
    error = squared(pipe, street, reference)
    assert error[under].mean() < 1.1 * none[under].mean()
    assert error[80:].mean() < 0.7 * none[80:].mean()
