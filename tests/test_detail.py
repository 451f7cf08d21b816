"""A reference counts by the detail that it adds, not by its agreement."""

import pytest
import torch
import torch.nn.functional as F
from PIL import ImageFilter
from torch import Tensor

from def_hub import DEFPipeline, rank_references
from def_hub.images import to_pil, to_tensor
from def_hub.observation.downsample import Downsample
from def_hub.reference.matching import Correspondence, Views
from def_hub.reference.matching.detail import believed_beside, detail_worth, stepped

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


def sharpened(picture: Tensor, percent: int = 250) -> Tensor:
    return to_tensor(to_pil(picture).filter(ImageFilter.UnsharpMask(2, percent, 0)))


UNSEEN_ALONE = {"over-sharpened": lambda y, sharp: sharpened(sharp)}
"""What only the image beside it shows to be harmful."""


@pytest.mark.parametrize("kind", [*HARMFUL, *UNSEEN_ALONE])
def test_harmful_references_do_no_harm(pipe: DEFPipeline, street: Tensor, y: Tensor, kind: str) -> None:
    """Alone they change nothing; beside the sharp one, neither."""

    def error(*references: Tensor) -> Tensor:
        result = pipe(y, list(references), preset="fast", precision="float32", generator=generator(), output_type="pt")
        return (result.images[0] - street[0]).square().mean()

    harmful = (HARMFUL | UNSEEN_ALONE)[kind](y, street)
    decibel = 10 * torch.log10(error(harmful) / error())
    assert decibel < 0.05
    assert 10 * torch.log10(error(street, harmful) / error(street)) < 0.1


LIGHT = {
    "as it is": lambda p: p,
    "hazy": lambda p: 0.6 * p + 0.3,
    "contrasty": lambda p: (1.4 * p - 0.2).clamp(0, 1),
    "darker and warmer": lambda p: p * torch.tensor((0.7, 0.5, 0.4)).view(1, 3, 1, 1),
}


@pytest.mark.parametrize("percent", (100, 250))
@pytest.mark.parametrize("kind", LIGHT)
def test_light_and_contrast_are_not_taken_for_sharpening(street: Tensor, kind: str, percent: int) -> None:
    """Of a batch of two: the reference in other light, and the same over-sharpened."""
    both = torch.cat([LIGHT[kind](picture) for picture in (street, sharpened(street, percent))])
    shrunk = Downsample()
    query, key = (shrunk.upsample(shrunk.forward(p).clamp(0, 1)) for p in (street.repeat(2, 1, 1, 1), both))
    found = Correspondence.identity(2, street.shape[2] // 4, street.shape[3] // 4)
    [share] = believed_beside(Views(query, query), [Views(key, key)], found)
    assert share.tolist() == [1, 0]


@pytest.mark.parametrize("confidence, believed", ((0.01, 1), (1.0, 0)))
def test_too_few_matches_say_nothing_of_sharpening(street: Tensor, confidence: float, believed: int) -> None:
    over = sharpened(street)
    found = Correspondence.identity(1, street.shape[2] // 4, street.shape[3] // 4).trusted(confidence)
    [share] = believed_beside(Views(street, street), [Views(over, over)], found)
    assert share.tolist() == [believed]


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
