"""Each target of `tests/fuzz.py` for a moment, and what an hour of it has found."""

from pathlib import Path

import pytest

from . import fuzz


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_moment_of_fuzzing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tried, failures = fuzz.fuzz(name, seconds=20, most=120 if name == "jpeg" else 400)
    assert tried > 20 and not failures, "\n".join(failures.values())
