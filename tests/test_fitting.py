"""References that show things larger or smaller than the image does, turned, mirrored or in other light."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.images import resized_part, save_image, to_tensor
from def_hub.inputs import requests_of
from def_hub.observation.downsample import Downsample
from def_hub.reference.matching.fitting import MOST, fitted
from def_hub.reference.matching.light import Light, Shading
from def_hub.reference.matching.placement import Placement
from def_hub.reference.matching.pose import ORIENTATIONS, ImageCopies, Pose, sides_tried, sight
from def_hub.reference.matching.slant import slanted
from def_hub.reference.picture import ReferencePicture

from .helpers.pictures import generator
from .test_pipeline import EXAMPLES


def scaled(image: Tensor, factor: float) -> Tensor:
    sides = [round(n * factor / 4) * 4 for n in image.shape[2:]]
    return F.interpolate(image, sides, mode="bicubic", antialias=True).clamp(0, 1)


def fit(pipe: DEFPipeline, y: Tensor, reference: Tensor, usable: Tensor | None = None) -> ReferencePicture:
    return fitted(y, ReferencePicture(reference, usable), pipe.refsr.feature_extractor)


def places(height: int, width: int) -> Tensor:
    """`[2, H, W]`: the x and y of every pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((x, y)).float()


@pytest.fixture(scope="module")
def street() -> Tensor:
    return to_tensor(EXAMPLES / "street_hr.webp")[..., :320, :400]


@pytest.fixture(scope="module")
def y(street: Tensor) -> Tensor:
    return Downsample().forward(street)


@pytest.mark.parametrize("factor", (0.4, 0.5, 0.7, 1.3, 2.0, 4.0))
def test_a_reference_of_another_size_is_resized(pipe: DEFPipeline, street: Tensor, y: Tensor, factor: float) -> None:
    found = fit(pipe, y, scaled(street, factor))
    assert all(abs(s * factor - 1) < 0.1 for s in found.scale)


@pytest.mark.parametrize("factor", (1.0, 1.04))
def test_a_reference_of_about_the_size_stays_as_it_is(
    pipe: DEFPipeline, street: Tensor, y: Tensor, factor: float
) -> None:
    reference = scaled(street, factor)
    found = fit(pipe, y, reference)
    assert found.pixels is reference and found.placement == Placement()


def test_a_reference_without_detail_is_not_enlarged(pipe: DEFPipeline, y: Tensor) -> None:
    """The image itself, as in the protocol of Urban100: it would match everywhere and lend nothing."""
    assert fit(pipe, y, y).scale == (1.0, 1.0)


def test_an_unrelated_reference_stays_as_it_is_but_never_large(pipe: DEFPipeline, street: Tensor, y: Tensor) -> None:
    reference = to_tensor(EXAMPLES / "banana_hr.webp")[..., :320, :400]
    assert fit(pipe, y, reference).pixels is reference
    large = fit(pipe, y, scaled(reference, 3)).pixels
    assert large[0, 0].numel() <= 1.05 * MOST * street[0, 0].numel()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turned_and_mirrored_references_are_turned_back(
    pipe: DEFPipeline, street: Tensor, y: Tensor, orientation: Pose
) -> None:
    reference = orientation.unturned(street).contiguous()
    found = sight(ImageCopies(y, pipe.refsr.feature_extractor), reference).pose
    assert (found.quarters, found.mirrored) == (orientation.quarters, orientation.mirrored)
    fitting = fit(pipe, y, reference)
    assert torch.equal(fitting.pixels, street)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("factor", (1.0, 0.5, 2.5))
def test_every_place_of_a_fitted_picture_is_that_of_the_file(orientation: Pose, factor: float) -> None:
    """A picture whose values are its own coordinates is cut, turned and resized: `original` says what it shows."""
    size, (left, top, right, bottom) = (40, 56), (8, 4, 48, 36)
    whole = places(*size)
    picture = orientation.turned(whole[:, top:bottom, left:right])
    placement = Placement.of_turn(orientation, (bottom - top, right - left)).moved(left, top)
    assert torch.equal(placement.original(places(*picture.shape[1:])), picture)

    sides = [round(n * factor) for n in picture.shape[1:]]
    resized = F.interpolate(picture[None], sides, mode="bilinear", align_corners=False)[0]
    placement = placement.after_resizing(sides[1] / picture.shape[2], sides[0] / picture.shape[1])
    inner = (slice(None), slice(3, -3), slice(3, -3))  # where interpolation has both neighbours
    assert torch.allclose(placement.original(places(*sides))[inner], resized[inner], atol=1e-3)
    assert placement.scale == pytest.approx((factor, factor))
    assert torch.equal(orientation.unturned(orientation.turned(whole)), whole)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("degrees", (-45.0, -13.7, 8.0, 30.0))
@pytest.mark.parametrize("factor", (1.0, 0.5, 2.5))
def test_every_place_of_a_slanted_picture_is_that_of_the_file(orientation: Pose, degrees: float, factor: float) -> None:
    """The same for one that hung askew: it is turned straight before anything else. A mask goes with it."""
    whole = places(96, 132) / 132  # the picture is clipped to [0, 1]
    usable = torch.ones(1, 1, 24, 33)
    usable[..., :6] = 0  # its left 24 columns
    straight = slanted(ReferencePicture(F.pad(whole, (0, 0, 0, 0, 0, 1))[None], usable), degrees)
    assert straight.usable is not None
    mask = F.interpolate(straight.usable, scale_factor=4.0)
    size = (straight.pixels.shape[2], straight.pixels.shape[3])
    turn = Placement.of_turn(orientation, size)
    picture, mask = orientation.turned(straight.pixels), orientation.turned(mask)
    sides = [round(n * factor) for n in picture.shape[2:]]
    picture = F.interpolate(picture, sides, mode="bilinear", align_corners=False)[0, :2] * 132
    inside = -F.max_pool2d(-F.interpolate(mask, sides, mode="area"), 9, stride=1, padding=4)[0, 0] > 0.999
    placement = straight.placement.after(turn).after_resizing(
        sides[1] / size[1 - orientation.quarters % 2], sides[0] / size[orientation.quarters % 2]
    )
    there = placement.original(places(*sides))
    assert inside.sum() > 100 * factor**2
    assert (there - picture)[:, inside].abs().max() < 0.05
    assert there[0, inside].min() > 23 and there[0, inside].max() < 132
    assert placement.scale == pytest.approx((factor, factor), rel=0.02)


@pytest.mark.parametrize("degrees", (20.0, -30.0, 45.0))
def test_references_that_hang_askew_are_found(pipe: DEFPipeline, degrees: float) -> None:
    """The picture is part of a reference that was turned; nearly every cell finds its place in it."""
    photo = to_tensor(EXAMPLES / "street_hr.webp")
    y = Downsample().forward(photo[..., 96:288, 64:320])
    askew = slanted(ReferencePicture(photo), degrees)
    output = pipe(y, askew.pixels, preset="fast", generator=generator())
    sure = output.confidence[0] > 0.3
    assert sure.float().mean() > 0.5
    back = askew.placement.original(output.correspondence[0][1:])
    off = (back - 4 * places(48, 64) - torch.tensor([65.5, 97.5]).view(2, 1, 1)).norm(dim=0)
    assert off[sure].median() < 0.7


def test_the_corners_of_a_turned_canvas_are_not_usable() -> None:
    usable = torch.ones(1, 1, 20, 30)
    usable[..., 10:] = 0
    turned = slanted(ReferencePicture(places(80, 120)[None].repeat(1, 2, 1, 1)[:, :3] / 200, usable), 30.0)
    assert turned.usable is not None
    cells = turned.usable[0, 0].nonzero().flip(1).T * 4 + 1.5
    x, y = turned.placement.original(cells)
    assert x.min() > 0 and x.max() < 40 and y.min() > 0 and y.max() < 80
    column, row = cells[:, len(x) // 2].long()
    place = turned.placement.original(torch.tensor([float(column), float(row)]))
    assert torch.allclose(turned.pixels[0, :2, row, column] * 200, place, atol=0.1)


def test_places_are_those_of_the_file_where_less_of_it_is_decoded(
    pipe: DEFPipeline, street: Tensor, tmp_path: Path
) -> None:
    """A JPEG with more pixels than can be matched is decoded at half its size."""
    y = Downsample().forward(street[..., 80:240, 120:320])
    file = tmp_path / "large.jpg"
    save_image(scaled(street, 8), file)
    request = requests_of(y, file)[0]
    assert request.references[0].pixels.shape[2:] == (4 * 320, 4 * 400)
    assert request.references[0].scale == (0.5, 0.5)
    output = pipe(y, file, preset="fast", generator=generator())
    sure = output.confidence[0] > 0.5
    assert sure.float().mean() > 0.5
    expected = 8 * (4 * places(40, 50) + 1.5 + torch.tensor([120.0, 80.0]).view(2, 1, 1) + 0.5) - 0.5
    off = (output.correspondence[0][1:] - expected).norm(dim=0)
    assert off[sure].median() < 0.5 * 8
    whole = requests_of(y, file, reference_mask=torch.ones(1, 8 * 320, 8 * 400))[0].references[0]
    assert whole.scale == (1.0, 1.0)  # a mask fits the whole picture


@pytest.mark.parametrize("orientation", (Pose(), Pose(1), Pose(0, True), Pose(3, True)))
def test_places_are_those_of_the_reference_itself(
    pipe: DEFPipeline, street: Tensor, y: Tensor, orientation: Pose
) -> None:
    """A half-size copy that lies in a corner of something larger, on its side: it is cut out, enlarged, masked, turned
    and found."""
    copy = scaled(street, 0.5)  # 160×200
    reference = torch.full((1, 3, 400, 480), 0.5)
    reference[..., 200:360, 240:440] = copy
    usable = torch.zeros(1, 1, 100, 120)
    usable[..., 50:90, 60:110] = 1
    reference, usable = (orientation.unturned(t).contiguous() for t in (reference, usable))
    found = fit(pipe, y, reference, usable)
    assert found.usable is not None and 0 < found.usable.mean() < 1
    assert found.usable.shape[-1] * 4 == found.pixels.shape[-1] < 2 * 320  # without most of the grey
    mask = F.interpolate(usable, scale_factor=4.0).expand_as(reference)
    output = pipe(y, reference, reference_mask=mask, preset="fast", generator=generator())
    sure = output.confidence[0] > 0.5
    assert sure.float().mean() > 0.5
    # Where the file is asked at the places that were found, in pixels, it shows the turned copy's coordinates.
    truth = Placement.of_turn(orientation, tuple(reference.shape[2:]))  # type: ignore[arg-type]
    cells = places(80, 100)
    expected = truth.original(torch.stack((240 + (4 * cells[0] + 2) * 0.5 - 0.5, 200 + (4 * cells[1] + 2) * 0.5 - 0.5)))
    off = (output.correspondence[0][1:] - expected).norm(dim=0)
    assert off[sure].median() < 0.5


def test_the_choice_is_stable(pipe: DEFPipeline, street: Tensor, y: Tensor) -> None:
    """However much a reference is enlarged, the same part of it is seen, equally large, to a fraction of a pixel."""
    found = [fit(pipe, y, scaled(street, factor)) for factor in (1.5, 2.0, 3.0, 4.5, 6.0)]
    assert len({tuple(f.pixels.shape) for f in found}) == 1
    last = found[-1]
    for factor, other in zip((1.5, 2.0, 3.0, 4.5), found, strict=False):
        assert other.scale[0] * factor == pytest.approx(last.scale[0] * 6, rel=1e-3)
        assert (other.pixels - last.pixels).abs().mean() < 0.01


def test_other_light_is_undone(pipe: DEFPipeline, street: Tensor, y: Tensor) -> None:
    """Haze and a colour cast, which are a gain and an offset per channel."""
    gain, offset = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.6, 0.7), (0.3, 0.2, 0.1)))
    found = fit(pipe, y, street * gain + offset)
    assert (found.pixels - street).abs().mean() < 0.02
    unchanged = fit(pipe, y, street)
    assert unchanged.pixels is street


@pytest.mark.parametrize("orientation", (Pose(), Pose(1), Pose(2, True)))
@pytest.mark.parametrize("factor", (1.0, 2.0))
def test_uneven_light_is_undone(pipe: DEFPipeline, street: Tensor, y: Tensor, orientation: Pose, factor: float) -> None:
    """A lamp at one corner of the reference, on whatever side that corner lies in the file."""
    across, down = torch.linspace(0.6, 1, 400), torch.linspace(0.8, 1, 320)
    lit = orientation.unturned(scaled(street * across * down[:, None], factor)).contiguous()
    even = orientation.unturned(scaled(street, factor)).contiguous()
    found, expected = (fit(pipe, y, reference).pixels for reference in (lit, even))
    assert found.shape == expected.shape
    assert (found - expected).abs().mean() < 0.015 < 0.05 < (lit - even).abs().mean()


def test_light_over_a_part_is_a_part_of_that_over_the_whole() -> None:
    shading = Shading(torch.tensor([0.1, -0.3, 0.2, 0.1, 0.05, -0.1]), -0.5, 0.4)
    lit = Light(torch.tensor([1.1, 1.0, 0.9]), torch.tensor([0.0, 0.1, -0.1]), shading)
    picture = torch.rand(1, 3, 48, 60, generator=generator())
    part = (12, 8, 44, 40)
    assert torch.equal(lit.on(picture[..., 8:40, 12:44], part, (48, 60)), lit.on(picture)[..., 8:40, 12:44])
    strength = shading.over((0, 0, 60, 48), (48, 60)).log()
    assert strength.min() >= -0.5 - 1e-6 and strength.max() <= 0.4 + 1e-6


def test_part_of_a_resized_picture_is_a_part_of_it() -> None:
    picture = torch.rand(1, 3, 100, 140, generator=generator())
    for sides, kernel in (((48, 64), Image.Resampling.BICUBIC), ((200, 260), Image.Resampling.LANCZOS)):
        whole = [Image.fromarray(plane.numpy()).resize(sides[::-1], kernel) for plane in picture[0]]
        expected = torch.stack([torch.from_numpy(np.array(plane)) for plane in whole]).clamp(0, 1)
        assert torch.allclose(resized_part(picture, sides, (8, 12, 60, 44))[0], expected[:, 12:44, 8:60], atol=1e-5)


def test_light_stays_in_range() -> None:
    bright = Light(torch.tensor([2.0, 1.0, 0.5]), torch.tensor([0.0, 0.5, -0.5])).on(torch.rand(1, 3, 8, 8))
    assert bright.min() >= 0 and bright.max() <= 1


def test_copies_do_not_grow_with_the_reference() -> None:
    small, large = ([max(sides) for sides in sides_tried((112, 112), size)] for size in ((600, 800), (6000, 8000)))
    assert large == pytest.approx(small, rel=0.05)
