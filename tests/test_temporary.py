"""Files of visitors are deleted from the server."""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import httpx
import pytest
from gradio.utils import get_upload_folder

from def_hub.service.temporary import forgetting, own_folder
from tests.conftest import EXAMPLES, ROOT


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


def test_uploads_are_in_the_folder_also_where_gradio_was_told_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lay outside it, and were never deleted."""
    chosen = tmp_path / "large" / "disk"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(chosen))
    with own_folder() as own:
        assert own.parent == chosen
        assert get_upload_folder() == str(own / "gradio")
    assert not own.exists() and get_upload_folder() == str(chosen)


def test_processes_that_start_at_once_leave_each_other_s_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that another process sweeps before it is locked is made anew."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = tempfile.mkdtemp

    def swept(**named: str) -> str:
        monkeypatch.setattr(tempfile, "mkdtemp", made)
        os.rmdir(folder := made(**named))
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    with own_folder() as own:
        assert own.is_dir()


def test_a_served_page_that_is_stopped_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """By SIGTERM, as containers stop, in the middle of a visit."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "DEF_MODEL": str(tiny_model)}
    environment |= {"GRADIO_SERVER_NAME": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
    environment.pop("GRADIO_TEMP_DIR", None)
    script = [sys.executable, "-c", "from def_hub.space.serve import main; main()"]
    with subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, text=True) as served:
        line = next(line for line in served.stdout if "http://127.0.0.1" in line)
        photo = EXAMPLES / "street_lr.png"
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        httpx.post(f"{url}/gradio_api/upload", files={"files": (photo.name, photo.read_bytes())}).raise_for_status()
        assert [path for path in tmp_path.rglob("street_lr.png") if path.is_file()]
        served.terminate()
        served.wait(60)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_old_files_are_deleted_while_the_page_is_served(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "example" / "thumbnail.png", tmp_path / "upload" / "photo.png"
    for path in (ours, theirs):
        path.parent.mkdir()
    ours.touch()
    with forgetting(tmp_path, age=0.5, every=0.05):
        theirs.touch()
        assert theirs.exists()
        gone_after(60, theirs)
        assert ours.exists() and not theirs.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "def-forget" and thread.is_alive()]


def gone_after(seconds: float, path: Path) -> None:
    """Wait until a file is gone, at most so long."""
    deadline = time.monotonic() + seconds
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
