"""A library of somebody else: nothing in it is believed."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from def_hub import ReferenceLibrary, images
from def_hub.reference.library.descriptors import Descriptors
from def_hub.reference.library.index import (
    INDEX,
    Entry,
    Index,
    entries_from_json,
    entries_to_json,
    read_index,
    write_index,
)
from tests.helpers.library import scene, scores, thumbnail


def rewritten(folder: Path, **changes: Any) -> None:
    path = folder / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def entry(**changes: Any) -> dict[str, Any]:
    return {"path": "a.png", "digest": "0" * 64, "size": 1, "modified": 1, "frame": None} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, r"format 3 is newer than this def-hub knows \(2\); install a newer one"),
        ({"format": "1"}, "not the index of a library"),
        ({"format": True}, "not the index of a library"),
        ({"entries": [entry(path="../secret.png")]}, "leads outside the library's root"),
        ({"entries": [entry(path="/etc/passwd")]}, "leads outside the library's root"),
        ({"entries": [entry(path="a/../../b.png")]}, "leads outside the library's root"),
        ({"entries": [entry(path="C:/a.png")]}, "is no relative path"),
        ({"entries": [entry(path="a\\..\\b.png")]}, "is no relative path"),
        ({"entries": [entry(path=3)]}, "is no relative path"),
        ({"entries": [entry(path="\ud800.png")]}, "can name no file"),
        ({"entries": [entry(size=-1)]}, "entry 0 is damaged"),
        ({"entries": [entry(frame=1.5)]}, "entry 0 is damaged"),
        ({"entries": [entry(more=1)]}, "entry 0 is damaged"),
        ({"entries": [entry(digest="xyz")]}, "entry 0 is damaged"),
        ({"entries": []}, "has 0 entries, its vectors are for 10"),
        ({"folders": ["../.."]}, "leads outside the library's root"),
        ({"vectors": "../vectors-0123456789abcdef.safetensors"}, "is no name of a file of vectors"),
        ({"vectors": "vectors-0123456789abcdef.safetensors"}, "damaged or missing vectors"),
        ({"root": None}, "root is missing or no str"),
        ({"fingerprint": 7}, "fingerprint is missing or no str"),
    ],
)
def test_a_library_of_a_stranger_is_checked(here: Path, changes: dict[str, Any], message: str) -> None:
    rewritten(here / "photos.def", **changes)
    with pytest.raises(ValueError, match=message):
        ReferenceLibrary("photos.def")


def test_its_descriptors_are_checked(here: Path) -> None:
    path = next(Path("photos.def").glob("vectors-*"))
    good = load_file(path)

    def refused(message: str, **changes: torch.Tensor) -> None:
        save_file({name: tensor for name, tensor in (good | changes).items() if tensor.numel()}, path)
        with pytest.raises(ValueError, match=message):
            ReferenceLibrary("photos.def").search(thumbnail(0))

    refused("expected regions as F16 with 3 axes, got F32", regions=torch.zeros(10, 14, 512))
    refused("expected regions as F16 with 3 axes", regions=torch.zeros(10, 512).half())
    refused("expected at most 4096 regions of 8192", regions=torch.zeros(10, 1, 9000).half())
    for value in (torch.nan, torch.inf, -torch.inf):
        one = good["regions"].clone()
        one[7, 3, 100] = value
        refused("some are not finite", regions=one)
    refused("has vectors of 100 numbers, its embedding makes 512", regions=torch.zeros(10, 14, 100).half())
    refused("expected cells as I8", cells=good["cells"].half())
    refused("has local descriptors of 7 numbers, expected 48", cells=torch.zeros(10, 1024, 7, dtype=torch.int8))
    refused("for different numbers of photos", grid=good["grid"][:9].clone())
    refused("a photo has more cells than are there", grid=torch.full((10, 2), 200, dtype=torch.int16))
    refused("a photo has more cells than are there", grid=torch.full((10, 2), -1, dtype=torch.int16))
    refused("expected the tensors", more=torch.zeros(1))


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    """As Python gives them; such a photo must not cost the whole library."""
    made = Entry(os.fsdecode(b"a/\xff.png"), f"{1:064x}", 5, 7)
    described = Descriptors(torch.zeros(1, 2, 3).half(), torch.zeros(1, 4, 48).char(), torch.tensor([[2, 2]]).short())
    write_index(tmp_path, Index("pooled", "abc", "..", ("a",), (), (made,), described))
    assert read_index(tmp_path).entries == (made,)
    assert entries_from_json(tmp_path, entries_to_json([made])) == [made]


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"size": ' + "1" * 5000 + "}]", "{}", "[3]"])
def test_a_damaged_part_is_a_value_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        entries_from_json(tmp_path, text)


def test_damaged_files_are_refused(here: Path) -> None:
    vectors = next(Path("photos.def").glob("vectors-*"))
    vectors.write_bytes(vectors.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged or missing vectors"):
        ReferenceLibrary("photos.def")
    (here / "photos.def" / INDEX).write_text("{")
    with pytest.raises(ValueError, match="damaged, not JSON"):
        ReferenceLibrary("photos.def")


def test_a_link_out_of_the_root_and_content_that_the_maker_did_not_have_are_not_opened(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library can name a file of this machine, but not show it: its hash is not known to a stranger."""
    scores(monkeypatch, {})
    secret = tmp_path / "secret.png"
    images.save_image(scene(0), secret)
    (here / "album" / "sea" / "000.png").unlink()
    (here / "album" / "sea" / "000.png").symlink_to(secret)
    choice = ReferenceLibrary("photos.def").choose(thumbnail(0))
    assert any(p.startswith("sea/000.png: a link leads outside") for p in choice.problems)
    assert all(f.name != "sea/000.png" for f in (*choice.chosen, *choice.others))
    rewritten(here / "photos.def", root=str(tmp_path))
    content = json.loads((here / "photos.def" / INDEX).read_text())
    content["entries"][0]["path"] = "secret.png"
    (here / "photos.def" / INDEX).write_text(json.dumps(content))
    images.save_image(scene(99), secret)
    problems = ReferenceLibrary("photos.def").choose(thumbnail(0)).problems
    assert any(p.startswith("secret.png: has changed") for p in problems)
