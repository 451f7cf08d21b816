"""References that show things larger or smaller than the image does."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.images import to_tensor
from def_hub.observation.downsample import Downsample
from def_hub.reference.matching.fitting import fitted, sides_tried
from def_hub.reference.picture import ReferencePicture

from .test_pipeline import EXAMPLES, generator


def scaled(image: Tensor, factor: float) -> Tensor:
    sides = [round(n * factor / 4) * 4 for n in image.shape[2:]]
    return F.interpolate(image, sides, mode="bicubic", antialias=True).clamp(0, 1)


@pytest.fixture(scope="module")
def street() -> Tensor:
    return to_tensor(EXAMPLES / "street_hr.webp")[..., :320, :400]


@pytest.mark.parametrize("factor", (0.4, 0.5, 0.7))
def test_a_smaller_reference_is_enlarged_as_far_as_it_must_be(pipe: DEFPipeline, street: Tensor, factor: float) -> None:
    y = Downsample().forward(street)
    found = fitted(y, ReferencePicture(scaled(street, factor)), pipe.refsr.feature_extractor)
    assert all(abs(s * factor - 1) < 0.15 for s in found.scale)


@pytest.mark.parametrize("factor", (1.0, 1.2))
def test_a_reference_of_about_the_size_stays_as_it_is(pipe: DEFPipeline, street: Tensor, factor: float) -> None:
    reference = scaled(street, factor)
    found = fitted(Downsample().forward(street), ReferencePicture(reference), pipe.refsr.feature_extractor)
    assert found.pixels is reference and found.scale == (1.0, 1.0)


def test_a_reference_without_detail_is_not_enlarged(pipe: DEFPipeline, street: Tensor) -> None:
    """The image itself, as in the protocol of Urban100: it would match everywhere and lend nothing."""
    y = Downsample().forward(street)
    assert fitted(y, ReferencePicture(y), pipe.refsr.feature_extractor).scale == (1.0, 1.0)


def test_an_unrelated_reference_stays_as_it_is(pipe: DEFPipeline, street: Tensor) -> None:
    reference = to_tensor(EXAMPLES / "banana_hr.webp")[..., :320, :400]
    assert fitted(Downsample().forward(street), ReferencePicture(reference), pipe.refsr.feature_extractor).scale == (
        1.0,
        1.0,
    )


def test_places_are_those_of_the_reference_itself(pipe: DEFPipeline, street: Tensor) -> None:
    """A half-size copy that lies in the corner of something larger: it is cut out, enlarged, masked and found."""
    copy = scaled(street, 0.5)  # 160×200
    reference = torch.full((1, 3, 400, 480), 0.5)
    reference[..., 200:360, 240:440] = copy
    usable = torch.zeros(1, 1, 100, 120)
    usable[..., 50:90, 60:110] = 1
    y = Downsample().forward(street)
    found = fitted(y, ReferencePicture(reference, usable), pipe.refsr.feature_extractor)
    assert found.corner[0] > 100 and found.corner[1] > 80 and found.usable is not None
    assert found.usable.shape[-1] * 4 == found.pixels.shape[-1] and 0 < found.usable.mean() < 1
    output = pipe(y, reference, generator=generator())
    _, x, down = output.correspondence[0]
    sure = output.confidence[0] > 0.5
    assert sure.float().mean() > 0.5
    columns, rows = torch.meshgrid(torch.arange(100), torch.arange(80), indexing="xy")
    assert (x - (240 + (4 * columns + 2) * 0.5 - 0.5))[sure].abs().median() < 0.5
    assert (down - (200 + (4 * rows + 2) * 0.5 - 0.5))[sure].abs().median() < 0.5


def test_original_undoes_cutting_and_scaling() -> None:
    place = ReferencePicture(torch.zeros(1, 3, 8, 8), scale=(2.0, 1.0), corner=(40, 20)).original(
        torch.tensor([[0.5], [3.0]])
    )
    assert torch.allclose(place, torch.tensor([[40.0], [23.0]]))


def test_copies_of_a_large_reference_beside_a_tiny_image_are_bounded() -> None:
    # what is not enlarged is always among them
    assert sides_tried((32, 32), (2000, 2000)) == [[1000, 1000], [1416, 1416], [2000, 2000]]
    assert [max(copy) for copy in sides_tried((48, 48), (900, 600))] == [300, 424, 600, 848, 1200, 1696]
    assert len(sides_tried((125, 125), (2000, 2000))) == 6
