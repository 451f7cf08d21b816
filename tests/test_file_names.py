"""`def-hub upscale` and the names that file systems allow."""

import os
import unicodedata
from pathlib import Path

import pytest
import torch

from def_hub import images

from .conftest import Run

NAMES = {
    "unicode": "Überraschung ß 写真 🔍.png",
    "composed": unicodedata.normalize("NFC", "é.png"),
    "decomposed": unicodedata.normalize("NFD", "é.png"),
    "right to left": "\u202egnp.a.png",
    "spaces": "  a  b  .png",
    "percent": "100%20%s%d{0}.png",
    "leading dash": "-o.png",
    "two dashes": "--scale=8.png",
    "255 bytes": "長" * 83 + "ab.png",
    "no extension": "picture",
    "dots": "a...png",
    "quotes": "'\"`$(touch owned);&|<>.png",
    "a line break": "a\nb.png",
    "colours of a terminal": "\x1b[31mred\x07.png",
    "backslash": "a\\b.png",
    "a star": "*.png",
    "another's suffix": "a.jpg.png",
    "capitals": "A.PNG",
    "no UTF-8": os.fsdecode(b"\xff\xfe.png"),
}
QUICK = ("--preset", "fast", "--steps", 1, "--device", "cpu")


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name("made.png")
    images.save_image(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)), made)
    os.replace(made, path)
    return path


@pytest.fixture
def upscale(run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`def-hub upscale …` in an empty folder, with the tiny model and one step."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: run("upscale", *QUICK, "--model", tiny_model, *words)


def test_a_folder_of_all_names(upscale: Run, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES.values()):
        picture(tmp_path / "in" / name, number)
    status, out, err = upscale("in", "-o", "out", "--save-intermediates", "why")
    assert status == 0 and not err
    # one line for each, and none that a terminal would obey
    assert len(out.splitlines()) == len(NAMES) and "\x1b" not in out and "\x07" not in out
    results = sorted(os.listdir("out"))
    assert len(results) == len(NAMES) and not [name for name in results if name.startswith(".def")]
    for number, name in enumerate(NAMES.values()):
        found = [r for r in results if r in (f"{Path(name).stem}.png", f"{name}.png")]
        assert found or name in (NAMES["composed"], NAMES["decomposed"])
        assert images.to_tensor(tmp_path / "in" / name).shape == (1, 3, 8, 8), number
    status, out, _ = upscale("in", "-o", "out", "--save-intermediates", "why", "--skip-existing")
    assert status == 0 and f"{len(NAMES)} of {len(NAMES)} results are there already" in out


@pytest.mark.parametrize("kind", ["leading dash", "two dashes", "percent", "a line break", "255 bytes", "no UTF-8"])
def test_one_file_as_picture_reference_and_result(upscale: Run, tmp_path: Path, kind: str) -> None:
    name = NAMES[kind]
    picture(tmp_path / "in" / name)
    status, out, err = upscale(f"in/{name}", "--ref", f"in/{name}", "-o", f"out/{name}")
    assert status == 0 and not err and len(out.splitlines()) == 1
    assert os.listdir("out") == [name]
    if name.startswith("-"):  # as every command: after --, or with ./
        os.chdir("in")
        assert upscale("-o", "../after.png", "--", name)[0] == 0
        assert upscale(f"./{name}", "-o", f"./../{name}")[0] == 0 and (tmp_path / name).is_file()


@pytest.mark.parametrize("kind", ["itself", "a link to it", "a hard link to it", "another spelling", "the reference"])
def test_the_result_never_replaces_an_input(upscale: Run, tmp_path: Path, kind: str) -> None:
    small, sharp = picture(tmp_path / "a.png"), picture(tmp_path / "sharp.png", 1)
    (tmp_path / "link.png").symlink_to(small)
    os.link(small, tmp_path / "hard.png")
    (tmp_path / "folder").mkdir()
    target = {
        "itself": "a.png",
        "a link to it": "link.png",
        "a hard link to it": "hard.png",
        "another spelling": "folder/../a.png",
        "the reference": "sharp.png",
    }[kind]
    before = {path: path.read_bytes() for path in tmp_path.glob("*.png")}
    status, out, err = upscale(small, "--ref", sharp, "-o", target)
    assert status == 2 and not out and "would overwrite an input" in err and len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.glob("*.png")} == before


def test_two_inputs_of_one_stem(upscale: Run, tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "a.jpg", "A.webp")):
        images.save_image(torch.full((3, 8, 8), number / 2), picture(tmp_path / "in" / name).with_name(name))
    assert upscale("in", "-o", "out")[0] == 0
    results = os.listdir("out")
    assert len(results) == 3 and len({name.casefold() for name in results}) == 3
    means = sorted(round(float(images.to_tensor(tmp_path / "out" / name).mean()), 1) for name in results)
    assert means == [0, 0.5, 1]


def test_links_to_files_are_followed_and_links_to_folders_are_not(upscale: Run, tmp_path: Path) -> None:
    elsewhere = picture(tmp_path / "elsewhere" / "b.png")
    picture(tmp_path / "in" / "deep" / "a.png")
    (tmp_path / "in" / "file.png").symlink_to(elsewhere)
    (tmp_path / "in" / "broken.png").symlink_to(tmp_path / "absent.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    status, _, err = upscale("in", "-o", "out", "--recursive")
    written = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.png"))
    assert status == 0 and written == ["deep/a.png", "file.png"]
    assert err == "def-hub: left out, not pictures: in/broken.png, in/pipe.png\n"
