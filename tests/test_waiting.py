"""How OpenMP's threads wait is decided before torch is imported, by the page and by the command line alike."""

import os
import subprocess
import sys

import pytest

from def_hub.waiting import SPINS

from .conftest import ROOT

WATCHED = """
import os, sys

class Watch:
    def find_spec(self, name, *rest):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("KMP_BLOCKTIME"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
"""
PAGE, COMMAND = "import app", "from def_hub.cli import main; main(['inspect', 'absent.png'])"


@pytest.mark.parametrize(
    ("begins", "chosen", "expected"),
    [
        pytest.param(PAGE, {}, f"{SPINS} 1", id="page", marks=pytest.mark.slow),
        pytest.param(COMMAND, {}, f"{SPINS} 1", id="command"),
        pytest.param(COMMAND, {"OMP_WAIT_POLICY": "ACTIVE"}, "None None", id="policy chosen"),
        pytest.param(COMMAND, {"GOMP_SPINCOUNT": "7"}, "7 None", id="number chosen"),
    ],
)
def test_threads_share_the_cores_unless_the_user_says_otherwise(
    begins: str, chosen: dict[str, str], expected: str
) -> None:
    known = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    known["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, "-c", WATCHED + begins], env=known | chosen, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr
