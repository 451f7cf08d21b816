"""Every dependency has one lower bound, which `make lower` installs."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from .conftest import ROOT
from .helpers.lower_bounds import lower_bounds


def test_every_dependency_has_one_lower_bound(tmp_path: Path) -> None:
    bounds = dict(line.split("==") for line in lower_bounds())
    assert {"torch", "diffusers", "gradio", "pillow", "safetensors"} <= set(bounds)
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pinned = Requirement(line)
            (version,) = (specifier.version for specifier in pinned.specifier)
            assert Version(version) >= Version(bounds[pinned.name]), line
    project = tmp_path / "pyproject.toml"
    for dependencies, words in (('["torch<3"]', "has no lower bound"), ('["a>=1", "a>=2"]', "two lower bounds")):
        project.write_text(f"[project]\ndependencies = {dependencies}\n[project.optional-dependencies]\nx = []\n")
        with pytest.raises(ValueError, match=words):
            list(lower_bounds(project))
