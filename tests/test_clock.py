"""The progress of a run, and the estimate of the remaining time."""

import pytest

from def_hub.service.clock import Clock


def test_the_time_left_follows_the_speed_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("def_hub.service.clock.time.perf_counter", lambda: now)
    clock = Clock({"enhance": 4, "match": 2, "transfer": 1, "restore": 3})
    assert clock.read().left == 10
    clock.begin("enhance")
    now = 4.0  # half of the stage took as long as planned for all of it
    clock.reached(0.5)
    assert clock.pace == 5 / 3 and clock.read().share == 0.2
    assert clock.read().left == 10 and clock.read().late  # 8 * 5 / 3 would be more than was said before
    now = 8.0
    clock.begin("match")  # twice the time that was planned
    assert clock.pace == 9 / 5 and clock.read().share == 0.4
    now = 13.0
    clock.begin("transfer")
    assert clock.read().left == pytest.approx(4 * 14 / 7) and not clock.read().late


def test_a_quick_first_stage_hardly_changes_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("def_hub.service.clock.time.perf_counter", lambda: now)
    clock = Clock({"enhance": 0.1, "match": 9.9})
    clock.begin("enhance")
    now = 0.5  # as always the first time
    clock.begin("match")
    assert 9.9 <= clock.read().left <= 10


def test_a_stage_that_takes_longer_than_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its share goes on, ever more slowly, and never reaches the next stage. The time left never rises."""
    now = 0.0
    monkeypatch.setattr("def_hub.service.clock.time.perf_counter", lambda: now)
    clock = Clock({"enhance": 1, "match": 8, "restore": 1})
    clock.begin("enhance")
    now = 1.0
    clock.begin("match")
    readings = []
    for second in range(1, 1000):
        now = second
        readings.append(clock.read())
    shares = [r.share for r in readings]
    assert all(a < b for a, b in zip(shares, shares[1:], strict=False)) and shares[0] == 0.1 and shares[-1] < 0.9
    lefts = [r.left for r in readings]
    assert lefts[:7] == pytest.approx(list(range(9, 2, -1)))  # by plan
    assert all(a >= b for a, b in zip(lefts, lefts[1:], strict=False)) and lefts[-1] > 0
    assert not readings[5].late and readings[-1].late
    now = 1000.0
    clock.begin("restore")
    assert clock.read().share == pytest.approx(0.9)
    clock.reached(0)  # a step that is reported too late
    assert clock.read().share == pytest.approx(0.9)


def test_two_passes_are_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond ×4 the networks run twice: each stage begins twice, and the share never falls."""
    now = 0.0
    monkeypatch.setattr("def_hub.service.clock.time.perf_counter", lambda: now)
    clock = Clock({"enhance": 1, "restore": 1}, {"enhance": 4, "restore": 4})
    shares = []
    for now, stage in ((0.0, "enhance"), (1.0, "restore"), (2.0, "enhance"), (6.0, "restore")):  # noqa: B007
        clock.begin(stage)
        shares.append(clock.read().share)
        assert clock.read().stage == stage and clock.read().stages == ("enhance", "restore")
    assert shares == pytest.approx([0, 0.1, 0.2, 0.6]) and clock.read().left == pytest.approx(4)
