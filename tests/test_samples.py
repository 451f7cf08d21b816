"""Pictures that were shrunk by "nearest": what their pixels, which are the scene's own, say of a result."""

import pytest
import torch
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.evaluation.metrics import psnr
from def_hub.images import to_tensor
from def_hub.observation.degradation import Degradation, degrade
from def_hub.observation.downsample import Downsample
from def_hub.observation.observed import observed
from def_hub.reference.matching import Correspondence
from def_hub.reference.restoring.samples import ALIKE, SAMPLING, confirmed, through_samples

from .test_pipeline import EXAMPLES, generator


@pytest.fixture(scope="module")
def street() -> Tensor:
    return to_tensor(EXAMPLES / "street_hr.webp")[..., 96:352, 64:320]


@pytest.fixture(scope="module")
def y(street: Tensor) -> Tensor:
    return degrade(street, Degradation("nearest")).picture


def matches(confidence: Tensor) -> Correspondence:
    batch, _, height, width = confidence.shape
    place = torch.zeros(batch, 2, height, width)
    return Correspondence(torch.zeros(batch, height, width, dtype=torch.long), place, confidence)


def test_the_samples_are_pixels_of_the_large_picture(street: Tensor, y: Tensor) -> None:
    assert torch.equal(SAMPLING.forward(street), y)


def test_a_result_shows_its_samples_and_a_right_one_stays(street: Tensor, y: Tensor) -> None:
    wrong = (street + 0.1 * torch.randn(street.shape, generator=generator())).clamp(0, 1)
    assert torch.allclose(SAMPLING.forward(through_samples(wrong, y)), y, atol=1e-6)
    assert torch.allclose(through_samples(street, y), street, atol=1e-6)


def test_an_error_is_taken_off_its_neighbours_less_the_further_they_are() -> None:
    x, y = torch.zeros(1, 3, 40, 40), torch.zeros(1, 3, 10, 10)
    y[..., 5, 5] = 1.0  # pixel 22 of the large picture
    changed = through_samples(x, y)[0, 0]
    assert torch.allclose(changed[22, 22:26], torch.tensor(ALIKE))
    assert torch.allclose(changed[18:23, 22].flip(0), torch.tensor((*ALIKE, 0.0)))
    assert changed[23, 24] == pytest.approx(ALIKE[1] * ALIKE[2])


def test_smooth_errors_become_smaller_everywhere(street: Tensor, y: Tensor) -> None:
    """As those of networks are: more than `Downsample.project`, which changes the samples alone, can do."""
    wrong = street + 0.1 * torch.nn.functional.avg_pool2d(
        torch.randn(street.shape, generator=generator()), 5, stride=1, padding=2
    )
    errors = [(z - street).square().mean() for z in (wrong, SAMPLING.project(wrong, y), through_samples(wrong, y))]
    assert errors[1] < errors[0] and errors[2] < 0.7 * errors[1]


@pytest.mark.parametrize(("strength", "matched"), [(0.0, 1.0), (1.0, 0.0)])
def test_references_count_where_they_may(street: Tensor, y: Tensor, strength: float, matched: float) -> None:
    soft = SAMPLING.upsample(y)
    expected = through_samples(soft, y)
    assert torch.equal(confirmed(soft, None, y, None, 1.0), expected)
    everywhere = matches(torch.full_like(y[:, :1], matched))
    assert torch.equal(confirmed(soft, street, y, everywhere, strength), expected)


def test_what_is_not_matched_keeps_its_pixels(street: Tensor, y: Tensor) -> None:
    soft = SAMPLING.upsample(y)
    confidence = torch.zeros_like(y[:, :1])
    confidence[..., :, :32] = 0.1  # the left half; how far it is trusted does not matter, the samples say it
    result = confirmed(soft, street, y, matches(confidence), 1.0)
    assert torch.equal(result[..., 128:], through_samples(soft, y)[..., 128:])
    assert psnr(result[..., :120], street[..., :120]) > psnr(through_samples(soft, y)[..., :120], street[..., :120]) + 3


def test_references_count_as_far_as_the_samples_confirm_them(street: Tensor, y: Tensor) -> None:
    """Nearly whole where they are right, and hardly where they show something else."""
    soft, everywhere = SAMPLING.upsample(y), matches(torch.ones_like(y[:, :1]))
    alone = psnr(through_samples(soft, y), street)
    assert psnr(confirmed(soft, street, y, everywhere, 1.0), street) > alone + 10
    other = street.roll((40, 25), (-2, -1))
    assert psnr(confirmed(soft, other, y, everywhere, 1.0), street) > alone - 0.1


def test_only_pictures_to_which_nothing_else_happened_hold_samples(y: Tensor) -> None:
    assert observed(y, "nearest", SAMPLING).sampled
    for name in ("clean", "box", "nearest+noise5", "nearest+jpeg70", "nearest+blur2"):
        assert not observed(y, name, Downsample()).sampled, name


def test_a_reference_is_worth_most_of_a_decibel(pipe: DEFPipeline, street: Tensor, y: Tensor) -> None:
    """For the pipeline, too; and its file is what the result shrinks to."""
    given = {"degradation": "nearest", "precision": "float32", "output_type": "pt"}
    reference = to_tensor(EXAMPLES / "street_ref1.jpg")
    alone, helped, faint = (
        pipe(y, r, generator=generator(), **given, **more).images[0][None]
        for r, more in ((None, {}), (reference, {}), (reference, {"reference_strength": 0.3}))
    )
    scores = [psnr(image, street) for image in (SAMPLING.upsample(y), alone, helped)]
    assert scores[1] > scores[0] + 0.3 and scores[2] > scores[1] + 0.6
    assert scores[1] < psnr(faint, street) < scores[2]
    assert torch.equal((SAMPLING.forward(helped) * 255).round(), (y * 255).round())
