"""The estimate of time and memory of a call."""

from typing import Any

import pytest
import torch

from def_hub import DEFPipeline
from def_hub.estimate import BYTES, NETWORKS, REST, estimate, load, probe
from def_hub.reference.features import make_extractor
from def_hub.reference.matching import CELL, Correspondence, Views, levels, match, match_coarse_to_fine
from def_hub.reference.matching.fitting import fitted
from def_hub.reference.matching.pose import CONFIRMING, LARGER, UPRIGHT, sides_tried
from def_hub.reference.picture import ReferencePicture


def test_more_pixels_more_references_more_steps_cost_more() -> None:
    base = estimate((64, 64), [(256, 256)], "fast")
    assert base.seconds > 0 and base.bytes > 0
    for more in (
        estimate((128, 64), [(256, 256)], "fast"),
        estimate((64, 64), [(512, 256)], "fast"),
        estimate((64, 64), [(256, 256), (256, 256)], "fast"),
        estimate((64, 64), [(256, 256)], "balanced"),
        estimate((64, 64), [(256, 256)], "detail"),
        estimate((64, 64), [(256, 256)], "fast", num_inference_steps=9),
    ):
        assert more.seconds > base.seconds and more.bytes >= base.bytes


def test_the_cost_of_large_pictures_is_linear_in_their_pixels() -> None:
    """A full search costs the product of both sizes; the coarse-to-fine search avoids this."""
    small, large = (estimate((side, side), [(4 * side, 4 * side)]) for side in (512, 1024))
    assert 3.5 < large.seconds / small.seconds < 4.2
    assert 3.0 < large.bytes / small.bytes < 4.2


def test_the_amounts_of_work() -> None:
    work = load((100, 50), [(400, 200), (80, 80)])
    assert (work.image, work.part, work.turned) == (0.08, 0.08, 0.32)
    fitted = 0.08 + 0.0064 * 2**1.75  # the second may be enlarged: the mean of its own and the largest size
    assert work.reference == pytest.approx(fitted, rel=0.01) and work.step == pytest.approx(0.08 + fitted, rel=0.01)
    assert work.matched == pytest.approx(0.08 + 2 * UPRIGHT * 0.016384 / 2, rel=0.01)
    assert load((100, 50), preset="fast").turned == 0.08 and load((1000, 1000)).part < 1.1
    assert load((100, 50)).matched == 0 and load((100, 50), num_inference_steps=5).step == pytest.approx(0.4)
    assert work.only("image", "step") == (0, 0.08, 0, 0, 0, 0, work.step, 0, 0, 0)
    for cost in (NETWORKS, REST, BYTES):
        assert min(cost) >= 0 and cost.of(work._replace(step=1.0)) - cost.of(work._replace(step=0.0)) == pytest.approx(
            cost.step
        )


@pytest.mark.parametrize("pairs", [2**25, 2000])
def test_the_search_follows_the_plan(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate uses the same plan (`levels`) as the search."""
    searched: list[list[tuple[int, int]]] = []

    def spied(query: Views, keys: list[Views], *arguments: Any, **options: Any) -> Correspondence:
        searched.append([(k.bicubic.shape[2] // 4, k.bicubic.shape[3] // 4) for k in (query, *keys)])
        return match(query, keys, *arguments, **options)

    monkeypatch.setattr("def_hub.reference.matching.pyramid.match", spied)
    image, keys = torch.rand(1, 3, 200, 264), [torch.rand(1, 3, 140, 132), torch.rand(1, 3, 400, 264)]
    extract = make_extractor("mini")
    match_coarse_to_fine(Views(image, image), [Views(k, k, k) for k in keys], extract, "bicubic", pairs=pairs)
    plan = levels((50, 66), [(35, 33), (100, 66)], pairs)
    assert len(plan) > 1 and plan[-1].searched
    assert searched == [[level.query, *level.keys] for level in reversed(plan) if level.searched]
    assert {level.searched for level in plan} == ({True} if pairs > 2000 else {True, False})


def test_three_comparisons_cost_three_searches() -> None:
    joint, one = (load((100, 50), [(400, 200)], preset).searched for preset in ("balanced", "fast"))
    compared = sum(16e-6 * h * w for level in levels((100, 50), [(100, 50)]) for h, w in level.keys)
    assert joint - one == pytest.approx(2 * compared)


def test_a_pose_is_sought_in_copies_that_do_not_grow_with_the_reference(
    pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def spied(query: Views, keys: list[Views], *arguments: Any, **options: Any) -> Correspondence:
        seen.append(keys[0].bicubic[0, 0].numel())
        return match_coarse_to_fine(query, keys, *arguments, **options)

    monkeypatch.setattr("def_hub.reference.matching.pose.match_coarse_to_fine", spied)
    image, reference = torch.rand(1, 3, 24, 32), torch.rand(1, 3, 800, 1000)
    fitted(image, ReferencePicture(reference), pipe.refsr.feature_extractor)
    assert UPRIGHT <= len(seen) <= UPRIGHT + 3 and max(seen) <= 1.1 * LARGER * 24 * 32 * CELL**2
    small, large = (load((224, 224), [size], "fast") for size in ((900, 900), (9000, 9000)))
    assert large.copy == pytest.approx(small.copy, rel=0.05) and small.copy <= LARGER * (CONFIRMING * CELL) ** 2 / 1e6
    assert len(sides_tried((24, 32), (800, 1000))) == UPRIGHT


def test_the_speed_of_the_machine_is_measured() -> None:
    assert all(seconds > 0 for precision in ("float32", "bfloat16") for seconds in probe(precision))


def test_the_seconds_of_the_stages_add_up() -> None:
    for references, steps in (([], 1), ([(256, 256)], 1), ([(256, 256)], 8)):
        cost = estimate((64, 64), references, num_inference_steps=steps)
        assert sum(cost.stages.values()) == pytest.approx(cost.seconds) and min(cost.stages.values()) > 0
        assert [s for s in cost.stages if s != "match" or references] == list(cost.stages)
    assert list(cost.stages) == ["enhance", "match", "transfer", "restore"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (0, 8)}, "at least 1x1"),
        ({"image_size": (8, 8), "reference_sizes": [(8, -1)]}, "at least 1x1"),
        ({"image_size": (8, 8), "preset": "best"}, "preset must be one of"),
        ({"image_size": (8, 8), "num_inference_steps": -1}, "num_inference_steps"),
    ],
)
def test_impossible_calls_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(**arguments)


def test_two_passes_cost_both() -> None:
    first, both = (estimate((40, 60), [(200, 200)], "fast", scale=scale) for scale in (4, 8))
    again = estimate((80, 120), [(200, 200)], "fast")
    assert both.seconds == pytest.approx(first.seconds + again.seconds) and both.bytes == again.bytes
