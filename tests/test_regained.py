"""Images that lost more than shrinking takes get more from their references than the network adds."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.evaluation.metrics import psnr
from def_hub.images import to_tensor
from def_hub.observation.degradation import Degradation, degrade
from def_hub.observation.downsample import Downsample
from def_hub.observation.observed import observed
from def_hub.reference.restoring.regained import regained

from .test_pipeline import EXAMPLES, generator
from .test_samples import matches

LOST = ("blur3", "jpeg40", "noise15", "phone", "box")


@pytest.fixture(scope="module")
def street() -> Tensor:
    return to_tensor(EXAMPLES / "street_hr.webp")[..., 96:352, 64:320]


@pytest.fixture(scope="module")
def soft(street: Tensor) -> Tensor:
    """What is left of it, restored badly."""
    return F.avg_pool2d(street, 9, stride=1, padding=4, count_include_pad=False)


def confident(value: float) -> Tensor:
    return torch.full((1, 1, 64, 64), value)


def test_right_references_replace_the_guess(street: Tensor, soft: Tensor) -> None:
    """Where image and reference were restored to the same, the reference's own pixels are what is missing."""
    result = regained(soft, soft, street, (soft, soft), matches(confident(1.0)), 1.0)
    assert psnr(result, street) > psnr(soft, street) + 20


def test_references_that_show_something_else_change_little(street: Tensor, soft: Tensor) -> None:
    other = street.roll((40, 25), (-2, -1))
    alike = F.avg_pool2d(other, 9, stride=1, padding=4, count_include_pad=False)
    result = regained(soft, soft, other, (soft, alike), matches(confident(1.0)), 1.0)
    assert psnr(result, street) > psnr(soft, street) - 1


def test_a_reference_without_more_detail_changes_nothing(street: Tensor, soft: Tensor) -> None:
    result = regained(street, street, soft, (soft.roll(2, -1), soft), matches(confident(1.0)), 1.0)
    assert torch.allclose(result, street, atol=1e-3)


@pytest.mark.parametrize(("strength", "confidence"), [(0.0, 1.0), (1.0, 0.0)])
def test_references_count_where_they_may(street: Tensor, soft: Tensor, strength: float, confidence: float) -> None:
    result = regained(soft, soft, street, (soft, soft), matches(confident(confidence)), strength)
    assert torch.allclose(result, soft, atol=1e-6)


def test_what_the_network_took_from_scattered_matches_is_taken_back(street: Tensor, soft: Tensor) -> None:
    """A match in a hundred, as unrelated references have. `strength` is part of every confidence, and no reason."""
    scattered = confident(0.0)
    scattered[..., ::10, ::10] = 1.0
    noisy = (street + 0.2 * torch.randn(street.shape, generator=generator())).clamp(0, 1)
    result = regained(noisy, street, noisy, (soft, soft), matches(scattered), 1.0)
    assert psnr(result, street) > psnr(noisy, street) + 20
    for strength in (0.5, 1.0):
        kept = regained(street, soft, soft, (street, soft), matches(confident(strength)), strength)
        assert torch.allclose(kept, street, atol=1e-3)


def test_what_is_not_matched_keeps_its_pixels(street: Tensor, soft: Tensor) -> None:
    confidence = confident(0.0)
    confidence[..., :32] = 1.0  # the left half
    result = regained(soft, soft, street, (soft, soft), matches(confidence), 1.0)
    assert torch.allclose(result[..., 128:], soft[..., 128:], atol=1e-6)
    assert psnr(result[..., :120], street[..., :120]) > psnr(soft[..., :120], street[..., :120]) + 20


@pytest.mark.parametrize("name", LOST)
def test_what_lost_more_is_known(street: Tensor, name: str) -> None:
    y = degrade(street, Degradation.parse(name)).picture
    assert observed(y, name, Downsample()).lost_more
    assert not observed(y, "clean", Downsample()).lost_more and not observed(y, "nearest", Downsample()).lost_more


def test_a_reference_brings_back_what_a_blur_took(pipe: DEFPipeline, street: Tensor) -> None:
    """More than the network alone takes from it, which `reference_mask` and `mask` keep away as before; a reference
    that shows another place changes next to nothing."""
    y = degrade(street, Degradation.parse("blur3")).picture
    given = {"degradation": "blur3", "precision": "float32", "output_type": "pt"}

    def enlarged(reference: object, **more: object) -> Tensor:
        return pipe(y, reference, generator=generator(), **given, **more).images[0][None]

    reference = to_tensor(EXAMPLES / "street_ref1.jpg")
    alone, helped = enlarged(None), enlarged(reference)
    assert psnr(helped, street) > psnr(alone, street) + 1
    nowhere = torch.zeros(1, 64, 64)
    assert torch.equal(enlarged(reference, mask=nowhere), alone)
    other = enlarged(to_tensor(EXAMPLES / "banana_ref1.jpg"))
    assert psnr(other, street) > psnr(alone, street) - 0.03
