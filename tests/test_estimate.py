"""What a call costs is told before it is made."""

import pytest

from def_hub.estimate import BYTES, NETWORKS, REST, estimate, load, probe


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
    assert (work.image, work.matched, work.reference, work.step) == (0.08, 0.08, 0.0864, 0.1664)
    assert 3 * 1.6 < work.pairs < 3 * 1.9  # 312 searched cells against 5,400, a little on smaller levels; three ways
    assert work.turned == pytest.approx(3 * work.image) and load((100, 50), preset="fast").turned == 0
    assert load((100, 50)).matched == 0 and load((100, 50), num_inference_steps=5).step == pytest.approx(0.4)
    assert work.only("image", "step") == (0, 0.08, 0, 0, 0, 0.1664, 0)
    for cost in (NETWORKS, REST, BYTES):
        assert min(cost) >= 0 and cost.of(work._replace(step=1.0)) - cost.of(work._replace(step=0.0)) == pytest.approx(
            cost.step
        )


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
