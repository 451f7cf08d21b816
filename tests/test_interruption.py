"""Commands that are killed at random moments: nothing is half written, and the same command completes the rest.

A few kills each; `python -m tests.helpers.interruption all --kills 50` does fifty.
"""

import subprocess
import sys

import pytest

from .conftest import ROOT

KILLS = {"upscale": 4, "library": 4, "evaluate": 4, "train": 4, "publish": 3, "app": 2}


@pytest.mark.parametrize(("what", "kills"), KILLS.items())
def test_killed_at_random_moments(what: str, kills: int) -> None:
    words = [sys.executable, "-m", "tests.helpers.interruption", what, "--kills", str(kills)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    assert f"{what}: {kills} kills" in ended.stdout
