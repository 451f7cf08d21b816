"""The files of a Space: the browser interface of this repository with a model from the Hub."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from huggingface_hub import SpaceCard
from packaging.specifiers import SpecifierSet

from def_hub.hub.publish import Content

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("*_lr.*", "*_ref*.jpg", "CREDITS.md")

LAUNCH = '''"""Starts app.py with the model that this Space shows."""

import os
import runpy

if "DEF_MODEL" not in os.environ:
    os.environ |= {model}
runpy.run_path("app.py", run_name="__main__")
'''


def space_files(model: str, root: Path = ROOT, revision: str | None = None) -> dict[str, Content]:
    """The files of a Space that runs the browser interface with one model: path → content.

    The files are the interface, the package without its embedded weights, the requirements, the examples with their
    credits, a script that sets the model, and a README. The README has the front matter of the one in `root`, with
    `models` and `app_file` changed.

    Args:
        model: "user/model".
        root: a clone of this repository.
        revision: of the model; None for "main".

    Raises:
        FileNotFoundError: if `root` is not a clone of the repository. An installed package lacks the interface.
        ValueError: if README.md and requirements.txt contradict each other.
    """
    paths = [root / name for name in ("app.py", "requirements.txt", "LICENSE", "README.md")]
    for path in (*paths, root / "pyproject.toml"):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; a Space is made from a clone of the repository")
    package = (path for path in sorted((root / "def_hub").rglob("*")) if path.is_file())
    paths += [path for path in package if not {"weights", "__pycache__"} & set(path.relative_to(root).parts)]
    for pattern in EXAMPLES:
        paths += sorted((root / "examples").glob(pattern))
    files: dict[str, Content] = {path.relative_to(root).as_posix(): path for path in paths}
    settings = {"DEF_MODEL": model} | ({"DEF_REVISION": revision} if revision else {})
    files["launch.py"] = LAUNCH.format(model=json.dumps(settings)).encode()
    files["README.md"] = _readme((root / "README.md").read_text(encoding="utf-8"), model, revision).encode()
    pythons = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    _check(files, (root / "requirements.txt").read_text(encoding="utf-8"), pythons)
    return files


def _readme(text: str, model: str, revision: str | None) -> str:
    header = SpaceCard(text).data
    header["app_file"], header["models"] = "launch.py", [model]
    name, version = model.rpartition("/")[2], f"/tree/{revision}" if revision else ""
    return f"""---
{header.to_yaml()}
---

# {name}

Enlarges a photograph four times. Sharp photographs of the same thing supply the detail. This Space runs the model
[{model}](https://huggingface.co/{model}{version}); its card says what the model is good for and what it is not. To use
another model, set the variable `DEF_MODEL` (and `DEF_REVISION`). A private model also needs the secret `HF_TOKEN`.
"""


def _check(files: dict[str, Content], requirements: str, pythons: str) -> None:
    """Raise ValueError if the README's front matter contradicts the other files."""
    readme = files["README.md"]
    assert isinstance(readme, bytes)
    header = SpaceCard(readme.decode()).data.to_dict()
    if header.get("sdk") != "gradio" or header.get("app_file") not in files:
        raise ValueError(f"README.md: expected sdk gradio and an app_file that exists, got {header}")
    pinned = re.search(r"^gradio==(\S+)$", requirements, re.MULTILINE)
    if pinned is None or str(header.get("sdk_version")) != pinned[1]:
        raise ValueError(
            f"README.md has sdk_version {header.get('sdk_version')}, but requirements.txt has gradio=="
            f"{pinned and pinned[1]}"
        )
    version = header.get("python_version")
    if not isinstance(version, str) or version not in SpecifierSet(pythons):  # unquoted, 3.10 would be 3.1
        raise ValueError(f"README.md: expected a python_version in quotes that is {pythons}, got {version!r}")
