"""The Space: its files, and that it starts with a model from the Hub."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard

from def_hub import DEFPipeline, cli
from def_hub.hub.space import space_files
from def_hub.space import serve

from .conftest import ROOT, make_tiny_pipe
from .helpers.hub_server import HubServer

NAME = "alice/def-x4"


def test_it_is_complete_and_names_the_model() -> None:
    files = space_files(NAME)
    readme = files["README.md"]
    assert isinstance(readme, bytes)
    header = SpaceCard(readme.decode()).data.to_dict()
    assert header["models"] == [NAME] and header["sdk"] == "gradio" and header["app_file"] in files
    assert header["python_version"] == "3.12"
    assert NAME.encode() in files["launch.py"]  # type: ignore[operator]
    assert {"app.py", "requirements.txt", "LICENSE", "def_hub/pipeline.py", "examples/street_lr.png"} <= set(files)
    assert not [name for name in files if name.endswith((".safetensors", ".pyc")) or "weights/" in name]


@pytest.mark.parametrize(
    ("revision", "given", "served"),
    (
        (None, {}, (NAME, None)),
        ("v2", {}, (NAME, "v2")),
        ("v2", {"DEF_MODEL": "bob/other"}, ("bob/other", None)),
        ("v2", {"DEF_MODEL": "bob/other", "DEF_REVISION": "v7"}, ("bob/other", "v7")),
    ),
)
def test_it_serves_the_published_revision(
    monkeypatch: pytest.MonkeyPatch, revision: str | None, given: dict[str, str], served: tuple[str, str | None]
) -> None:
    """`publish --revision v2 --space` can create a repository with an empty main branch."""
    files = space_files(NAME, revision=revision)
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("DEF_")} | given)
    asked: list[tuple[str, str | None]] = []

    def load(name: str, revision: str | None = None) -> None:
        asked.append((name, revision))
        raise InterruptedError("that was all")

    monkeypatch.setattr(DEFPipeline, "from_pretrained", load)
    monkeypatch.setattr(serve, "Elsewhere", lambda load: load())  # another process would not see what is replaced here
    monkeypatch.setattr(runpy, "run_path", lambda path, run_name: serve.main())
    with pytest.raises(InterruptedError):
        exec(files["launch.py"], {})  # type: ignore[arg-type]
    assert asked == [served]
    assert (f"huggingface.co/{NAME}/tree/v2" in str(files["README.md"])) == (revision == "v2")


def test_a_branch_and_its_space(hub: HubServer, tiny_model: Path) -> None:
    assert cli.main(["publish", str(tiny_model), NAME, "--revision", "v2", "--space"]) == 0
    assert "model_index.json" not in hub.files(NAME) and "model_index.json" in hub.files(NAME, ref="v2")
    assert hub.files(NAME, kind="spaces")["launch.py"] == space_files(NAME, revision="v2")["launch.py"]


def test_it_needs_a_clone_of_the_repository(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a clone of the repository"):
        space_files(NAME, root=tmp_path)


@pytest.mark.parametrize("version", ('"3.9"', "3.12", "3.10", None))
def test_its_python_version_suits_the_package(tmp_path: Path, version: str | None) -> None:
    """Without a version, a Space runs an older Python. A version without quotes is read as a number."""
    for name in ("app.py", "requirements.txt", "LICENSE", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    line = f"python_version: {version}\n" if version else ""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace('python_version: "3.12"\n', line)
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a python_version in quotes that is >=3\.11"):
        space_files(NAME, root=tmp_path)


def test_it_is_published_with_the_model_and_starts(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_pipe().save_pretrained(tmp_path / "model")
    card = tmp_path / "model" / "README.md"
    card.write_text("---\nlicense: mit\nlibrary_name: diffusers\npipeline_tag: image-to-image\n---\n")
    words = ["publish", str(tmp_path / "model"), NAME, "--space", "--private"]
    hub.fail("POST", "/api/spaces/.*/commit/", 503, times=9)
    assert cli.main(words) == 2 and "run the same command again later to continue" in capsys.readouterr().err
    assert ("spaces", NAME) in hub.repositories and "app.py" not in hub.files(NAME, kind="spaces")
    hub.faults.clear()
    assert cli.main(words) == 0  # the model is already published
    out = capsys.readouterr().out
    assert f"model {NAME}: nothing to upload" in out
    assert "space alice/def-x4: " in out and f"{hub.url}/spaces/{NAME}/commit/" in out
    assert hub.repositories["spaces", NAME].private
    hub.requests.clear()
    assert cli.main(words) == 0 and not hub.uploads()

    # as on the Hub: with its own files, without this checkout
    for name, data in hub.files(NAME, kind="spaces").items():
        (tmp_path / "space" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / name).write_bytes(data)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("DEF_MODEL", raising=False)
    code = """
import runpy, sys
import gradio as gr
started = []
gr.Blocks.launch = lambda self, *a, **k: started.append(self)  # everything except waiting
sys.path.insert(0, "")
runpy.run_path("launch.py", run_name="__main__")
import def_hub
print(len(started), def_hub.__file__)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "space")
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split()[-2:] == ["1", str(tmp_path / "space" / "def_hub" / "__init__.py")]
    assert any(path.endswith("unet/diffusion_pytorch_model.safetensors") for _, path in hub.requests)
    assert str(ROOT) not in result.stdout
