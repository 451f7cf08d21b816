"""Files of visitors are deleted from the server."""

import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder

from def_hub.service.temporary import forgetting, own_folder
from tests.conftest import ROOT


def test_files_of_a_killed_process_are_deleted_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        import sys, tempfile
        from def_hub.service.temporary import forgetting, own_folder
        with own_folder():
            with tempfile.NamedTemporaryFile(delete=False) as file:
                file.write(b"a visitor's photograph")
            print(file.name, flush=True)
            sys.stdin.read()
    """
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    process, options = [sys.executable, "-c", textwrap.dedent(script)], {"env": environment, "text": True}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(process, **pipes, **options) as lives, subprocess.Popen(process, **pipes, **options) as dies:
        kept, left = (Path(started.stdout.readline().strip()) for started in (lives, dies))
        dies.kill()
        dies.wait()
        assert kept.is_file() and left.is_file()
        with own_folder() as own:
            assert kept.is_file() and not left.parent.exists()
            inside = Path(tempfile.mkdtemp())
            assert inside.parent == own and get_upload_folder() == str(own / "gradio")
        assert not own.exists() and tempfile.gettempdir() == str(tmp_path)
        lives.stdin.close()  # a regular exit
        lives.wait()
        assert not kept.parent.exists()


def test_old_files_are_deleted_while_the_page_is_served(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "example" / "thumbnail.png", tmp_path / "upload" / "photo.png"
    for path in (ours, theirs):
        path.parent.mkdir()
    ours.touch()
    with forgetting(tmp_path, age=0.5, every=0.05):
        theirs.touch()
        time.sleep(0.2)
        assert theirs.exists()
        deadline = time.monotonic() + 60
        while theirs.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ours.exists() and not theirs.exists()
    theirs.touch()
    time.sleep(1)
    assert theirs.exists()
