"""Loading through olah, an independent mirror of the Hub. It checks that our test server speaks the Hub's protocol.

olah only fetches, so it runs between the client and our server. It is optional: `make test` tries to install it into an
environment of its own. Otherwise put `olah-cli` on the PATH, or set `OLAH` to its path.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .conftest import ROOT, contents, make_tiny_pipe
from .helpers.hub_server import HubServer

NAME = "alice/def-x4"


@pytest.fixture
def mirror(hub: HubServer, tmp_path: Path) -> Iterator[str]:
    """The address of an olah that mirrors our server."""
    places = os.pathsep.join((os.environ.get("PATH", ""), str(ROOT / ".venv" / "olah" / "bin")))
    program = os.environ.get("OLAH") or shutil.which("olah-cli", path=places)
    if not program:
        pytest.skip("olah-cli is not installed (pip install olah): the mirror of another author is not tried")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    upstream, here = urlsplit(hub.url).netloc, f"127.0.0.1:{port}"
    command = [program, "--host", "127.0.0.1", "--port", str(port), "--repos-path", str(tmp_path / "repos")]
    command += ["--log-path", str(tmp_path / "logs"), "--hf-scheme", "http", "--hf-netloc", upstream]
    command += ["--hf-lfs-netloc", upstream, "--mirror-netloc", here, "--mirror-lfs-netloc", here]
    with (tmp_path / "olah.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        try:
            _wait(here, process)
            yield f"http://{here}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(address: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.skip(f"olah-cli does not start (exit {process.returncode})")
        try:
            socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail("olah-cli does not answer")


def test_files_fetched_through_olah_are_the_same_bytes(hub: HubServer, mirror: str, tmp_path: Path) -> None:
    make_tiny_pipe().save_pretrained(tmp_path / "model")
    hub.put(NAME, contents(tmp_path / "model"))
    code = (
        f"from def_hub import DEFPipeline; DEFPipeline.from_pretrained({NAME!r}, cache_dir={str(tmp_path / 'cache')!r})"
    )
    # the client reads its address when it is imported, so this runs in a fresh process
    environment = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"} | {"HF_ENDPOINT": mirror}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stderr[-3000:] + (tmp_path / "olah.txt").read_text()[-3000:]
    (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
    assert contents(snapshot) == contents(tmp_path / "model")
    assert hub.requests, "olah asked our server"
