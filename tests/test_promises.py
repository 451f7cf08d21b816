"""`.github/PROMISES.md` and `.github/SECURITY.md` name tests and commands: all of them are there."""

import re

import pytest

from .conftest import ROOT

TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("document", ["PROMISES.md", "SECURITY.md", "CONTRIBUTING.md"])
def test_what_the_documents_name_is_there(document: str) -> None:
    text = (ROOT / ".github" / document).read_text(encoding="utf-8")
    named = TEST.findall(text)
    assert named
    for path, test in named:
        source = ROOT / path
        assert source.is_file(), path
        assert not test or f"def {test}(" in source.read_text(encoding="utf-8"), f"{path}::{test}"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`", text)) <= targets
    for module in re.findall(r"`python -m (tests[\w.]*)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module
    for file in re.findall(r"`(?:python )?(examples/[\w/]+\.\w+)", text):
        assert (ROOT / file).is_file(), file
