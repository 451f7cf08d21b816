"""`sharing`: everything is done once, whatever the number of processes."""

import pytest

from def_hub.sharing import Processes


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 5, 12])
def test_the_shares_are_the_whole(count: int, items: int) -> None:
    shares = []
    for number in range(count):
        processes = Processes()
        processes.count, processes.number = count, number
        shares.append(processes.share(range(items)))
        assert processes.first == (number == 0)
    assert sorted(item for share in shares for item in share) == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes()
    assert (alone.count, alone.number, alone.first) == (1, 0, True)
    assert alone.share([1, 2, 3]) == [1, 2, 3] and alone.gather([1, 2]) == [1, 2]
    alone.wait()
    alone.end()
    assert alone._state is None  # nothing was started
