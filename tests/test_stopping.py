"""SIGTERM ends a command, at whatever moment it comes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

RUN = """
import os, signal, sys, time
from def_hub.stopping import stopped_by_sigterm

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.{signal})
        for _ in range(1000):
            pass

try:
    with stopped_by_sigterm():
        if {deleting}:
            Deleted()
        else:
            os.kill(os.getpid(), signal.{signal})
        time.sleep(60)
finally:
    open(sys.argv[1], "w").close()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("deleting", [False, True])
def test_a_signal_is_never_lost(name: str, deleting: bool, tmp_path: Path) -> None:
    """Not while Python deletes an object, where it drops what is raised."""
    done = tmp_path / "cleaned up"
    words = [sys.executable, "-c", RUN.format(signal=name, deleting=deleting), str(done)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert ended.returncode == {"SIGTERM": 1, "SIGINT": -signal.SIGINT}[name], ended.stderr  # nobody caught it
    assert done.exists() and ("Terminated" if name == "SIGTERM" else "KeyboardInterrupt") in ended.stderr
    assert "Exception ignored" not in ended.stderr
