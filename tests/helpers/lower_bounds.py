"""The oldest versions that pyproject.toml allows, as constraints for pip: `make lower` installs and tests them.

python -m tests.helpers.lower_bounds > constraints.txt
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def lower_bounds(path: Path = PROJECT) -> Iterator[str]:
    """`name==version` for each dependency, also the optional ones. Raises ValueError for one without a lower bound."""
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    seen: dict[str, str] = {}
    for text in (*project["dependencies"], *sum(project["optional-dependencies"].values(), [])):
        requirement = Requirement(text)
        if requirement.name == project.get("name"):  # another group of the project's own
            continue
        bounds = [s.version for s in requirement.specifier if s.operator in (">=", "==", "~=")]
        if not bounds:
            raise ValueError(f"{path}: {text}: has no lower bound")
        if seen.setdefault(requirement.name, bounds[0]) != bounds[0]:
            raise ValueError(f"{path}: {requirement.name}: has two lower bounds, {seen[requirement.name]}, {bounds[0]}")
    yield from (f"{name}=={version}" for name, version in seen.items())


if __name__ == "__main__":
    print("\n".join(lower_bounds()))
