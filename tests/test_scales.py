"""Results of other sizes than ×4: one pass that is reduced, or two."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import DEFPipeline
from def_hub.observation.downsample import Downsample
from def_hub.scales import size_between, target_size

from .helpers.pictures import generator, picture, small

pytestmark = pytest.mark.usefixtures("each_precision")


def shrunk_again(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """By Pillow, one float plane at a time: nothing is cut on the way."""
    planes = [p.convert("F").resize(size, Image.Resampling.BICUBIC) for p in image.split()]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


@pytest.mark.parametrize("scale", (2, 3, 4, 6, 8))
def test_every_scale_has_its_size_and_agrees_with_the_input(tiny_pipe: DEFPipeline, scale: int) -> None:
    truth = Image.fromarray((picture(60, 72)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    lr = truth.resize((18, 15), Image.Resampling.BICUBIC)
    output = tiny_pipe(lr, [picture(64, 64), picture(40, 48)], generator=generator(), scale=scale)
    width, height = 18 * scale, 15 * scale
    assert output.images[0].size == output.enhanced[0].size == output.transferred[0].size == (width, height)
    assert output.confidence[0].shape == (15, 18) and output.correspondence[0].shape == (3, 15, 18)
    assert output.provenance[0].shape == (4, height, width)
    assert torch.allclose(output.provenance[0].sum(0), torch.ones(height, width), atol=1e-4)
    assert np.abs(shrunk_again(output.images[0], lr.size) - np.asarray(lr)).max() <= max(
        2, output.consistency_error[0] + 1e-3
    )
    assert output.consistency_error[0] <= 2


@pytest.mark.parametrize(("size", "wanted"), (((40, 33), (40, 33)), ((70, None), (70, 58)), ((None, 90), (108, 90))))
def test_a_size_can_be_asked_for(tiny_pipe: DEFPipeline, size: tuple[Any, Any], wanted: tuple[int, int]) -> None:
    output = tiny_pipe(small(15, 18), picture(48, 48), generator=generator(), size=size)
    assert output.images[0].size == wanted and output.consistency_error[0] <= 2


def test_four_times_by_size_is_four_times(tiny_pipe: DEFPipeline) -> None:
    a, b = (tiny_pipe(small(9, 10), picture(40, 40), generator=generator(), **o) for o in ({}, {"size": (40, 36)}))
    assert a.images[0].tobytes() == b.images[0].tobytes()


def test_masks_hold_in_both_passes(tiny_pipe: DEFPipeline) -> None:
    """What may not be used is as good as not there."""
    black, nowhere = torch.zeros(1, 64, 64), torch.zeros(1, 12, 12)
    common: dict[str, Any] = {"generator": None, "scale": 8, "output_type": "pt", "refine": False}

    def run(*arguments: Any, **options: Any) -> torch.Tensor:
        return tiny_pipe(small(12, 12), *arguments, **{**common, "generator": generator(), **options}).images[0]

    alone, masked = run(), run(picture(64, 64), reference_mask=black)
    assert torch.allclose(masked, alone, atol=2e-2) and torch.allclose(
        run(picture(64, 64), mask=nowhere), alone, atol=2e-2
    )


def test_what_is_planned_for_a_size() -> None:
    assert target_size((30, 40), 6) == (180, 240)
    assert size_between((30, 40), (120, 160)) is None and size_between((30, 40), (45, 41)) is None
    assert size_between((30, 40), (180, 240)) == (45, 60) and size_between((30, 40), (240, 320)) == (60, 80)
    assert size_between((30, 40), (240, 40)) == (60, 40)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    (
        ({"scale": 5}, ValueError, "scale must be one of 2, 3, 4, 6, 8, got 5"),
        ({"size": (10, 9)}, ValueError, "size: expected 18x15 to 144x120 for this image, got 10x9"),
        ({"size": (400, None)}, ValueError, "expected 18x15 to 144x120 for this image, got 400x333"),
        ({"size": (None, None)}, TypeError, "size: expected .width, height."),
        ({"size": 40}, TypeError, "size: expected .width, height."),
        ({"size": (40.5, 30)}, TypeError, "whole numbers of pixels"),
    ),
)
def test_what_cannot_be_made_is_refused(
    tiny_pipe: DEFPipeline, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny_pipe(small(15, 18), **options)


def test_a_result_made_smaller_is_the_result_made_smaller() -> None:
    """×2 is ×4 reduced by the operator of that scale, but for what agreement changes."""
    x = picture(64, 64)
    assert torch.equal(Downsample.between((64, 64), (32, 32)).forward(x), Downsample("bicubic", 2).forward(x))
