"""What a call costs is told before it is made."""

from typing import Any

import pytest
import torch

from def_hub import DEFPipeline
from def_hub.estimate import BYTES, NETWORKS, REST, estimate, load, probe
from def_hub.reference.fitting import fitted
from def_hub.reference.matching import CELL, Correspondence, Views, find
from def_hub.reference.matching.pose import CONFIRMING, LARGER, UPRIGHT, sides_tried


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


def test_large_pictures_cost_in_proportion_to_their_pixels() -> None:
    """The search stops growing where it would cost the product of both sizes."""
    small, large = (estimate((side, side), [(4 * side, 4 * side)]) for side in (512, 1024))
    assert 3.5 < large.seconds / small.seconds < 4.2
    assert 3.0 < large.bytes / small.bytes < 4.2


def test_what_there_is_to_do() -> None:
    work = load((100, 50), [(400, 200), (80, 80)])
    assert (work.image, work.part, work.turned) == (0.08, 0.08, 0.32)
    lent = 0.08 + 0.0064 * 2**1.75  # the second may be enlarged: between its size and the most that it would get
    assert work.reference == pytest.approx(lent) and work.step == pytest.approx(0.08 + lent)
    assert work.matched == pytest.approx(0.08 + 2 * UPRIGHT * 0.016384 / 2)
    assert load((100, 50), preset="fast").turned == 0.08 and load((1000, 1000)).part < 1.1
    assert load((100, 50)).matched == 0 and load((100, 50), num_inference_steps=5).step == pytest.approx(0.4)
    assert work.only("image", "step") == (0, 0.08, 0, 0, 0, 0, work.step, 0, 0)
    for cost in (NETWORKS, REST, BYTES):
        assert min(cost) >= 0 and cost.of(work._replace(step=1.0)) - cost.of(work._replace(step=0.0)) == pytest.approx(
            cost.step
        )


def test_matches_are_searched_for_on_the_levels_that_are_small_enough() -> None:
    """Three ways with "joint", and once in each copy with which a pose is confirmed: of one, two and four areas."""
    whole, copies = 0.08 * 4 / 3, 0.08 * 1024 / 5000 * 7 * 4 / 3
    assert load((100, 50), [(400, 200)]).searched == pytest.approx(3 * whole + copies, rel=0.02)
    assert load((100, 50), [(400, 200)], "fast").searched == pytest.approx(whole + copies, rel=0.02)
    assert load((500, 500), [(2000, 2000)]).searched == pytest.approx(3 * 4 / 16 * 4 / 3 + copies, rel=0.02)


def test_a_pose_is_sought_in_copies_that_do_not_grow_with_the_reference(
    pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def spied(query: Views, keys: list[Views], *arguments: Any, **options: Any) -> Correspondence:
        seen.append(keys[0].bicubic[0, 0].numel())
        return find(query, keys, *arguments, **options)

    monkeypatch.setattr("def_hub.reference.matching.pose.find", spied)
    image, reference = torch.rand(1, 3, 24, 32), torch.rand(1, 3, 800, 1000)
    fitted(image, reference, None, pipe.refsr.feature_extractor)
    assert UPRIGHT <= len(seen) <= UPRIGHT + 3 and max(seen) <= 1.1 * LARGER * 24 * 32 * CELL**2
    small, large = (load((224, 224), [size], "fast") for size in ((900, 900), (9000, 9000)))
    assert large.copy == pytest.approx(small.copy, rel=0.05) and small.copy <= LARGER * (CONFIRMING * CELL) ** 2 / 1e6
    assert len(sides_tried((24, 32), (800, 1000))) == UPRIGHT


def test_machines_are_told_apart() -> None:
    assert all(seconds > 0 for precision in ("float32", "bfloat16") for seconds in probe(precision))


def test_the_seconds_are_spread_over_the_stages() -> None:
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
        ({"image_size": (8, 8), "num_inference_steps": 0}, "num_inference_steps"),
    ],
)
def test_impossible_calls_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(**arguments)
