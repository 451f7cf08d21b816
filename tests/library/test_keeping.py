"""Building a library, keeping it up to date, and taking it up again after a kill."""

import copy
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from def_hub import ReferenceLibrary, images
from def_hub.reference.library import building, cells, embedding
from def_hub.reference.library.descriptors import Descriptors
from def_hub.reference.library.index import (
    INDEX,
    TENSORS,
)
from tests.conftest import ROOT
from tests.helpers.library import photos, scene, scores, thumbnail


def test_what_is_no_photo_is_left_out_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    photos(tmp_path / "a", range(2))
    photos(tmp_path / "a" / ".hidden", range(2, 3))
    shutil.copy(tmp_path / "a" / "000.png", tmp_path / "a" / "copy.png")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / "torn.png").write_bytes((tmp_path / "a" / "000.png").read_bytes()[:2000])
    library, changes = ReferenceLibrary.build(tmp_path / "a", tmp_path / "a.def")
    assert [e.path for e in library.index.entries] == ["000.png", "001.png"]  # the copy is the same photo
    assert len(changes.problems) == 1 and changes.problems[0].startswith("torn.png: ") and changes.added == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures in"):
        ReferenceLibrary.build(tmp_path / "empty", tmp_path / "b.def")
    with pytest.raises(FileNotFoundError, match="absent"):
        ReferenceLibrary.build(tmp_path / "absent", tmp_path / "b.def")
    with pytest.raises(ValueError, match="is no library; choose another name"):
        ReferenceLibrary.build(tmp_path / "a", tmp_path / "a")


def test_photos_and_library_may_move(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, {"002.png": 0.5})
    (tmp_path / "there").mkdir()
    shutil.move(here / "album", tmp_path / "there" / "album")
    alone = ReferenceLibrary(here / "photos.def")
    assert len(alone.info().missing) == 10
    choice = alone.choose(thumbnail(2))
    assert not choice.chosen and len(choice.problems) == 10 and "is missing" in choice.problems[0]
    moved = ReferenceLibrary(here / "photos.def", root=tmp_path / "there" / "album")
    assert not moved.info().missing and moved.choose(thumbnail(2)).chosen[0].name == "sea/002.png"
    moved.update()  # keeps the new root
    assert ReferenceLibrary(here / "photos.def").root == tmp_path / "there" / "album"
    shutil.move(here / "photos.def", tmp_path / "there" / "photos.def")
    shutil.move(tmp_path / "there", tmp_path / "elsewhere")
    together = ReferenceLibrary(tmp_path / "elsewhere" / "photos.def", root=tmp_path / "elsewhere" / "album")
    together.update()
    shutil.move(tmp_path / "elsewhere", tmp_path / "again")
    assert not ReferenceLibrary(tmp_path / "again" / "photos.def").info().missing


def test_changed_deleted_and_moved_photos_are_reported_and_updated(
    here: Path, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, {})
    sea = here / "album" / "sea"
    images.save_image(scene(50), sea / "000.png")  # changed
    (sea / "001.png").unlink()  # deleted
    (sea / "002.png").rename(here / "album" / "hills" / "renamed.png")  # moved
    os.utime(sea / "003.png")  # only touched
    photos(sea, range(20, 21))  # new
    library = ReferenceLibrary("photos.def")
    info = library.info()
    assert set(info.missing) == {"sea/001.png", "sea/002.png"} and "sea/000.png" in info.changed
    problems = library.choose(thumbnail(0)).problems
    assert {p.split(":")[0]: p.split(": ")[1].split(";")[0] for p in problems} == {
        "sea/000.png": "has changed",
        "sea/001.png": "is missing",
        "sea/002.png": "is missing",
    }
    assert not embedded
    changes = library.update()
    assert (changes.added, changes.changed, changes.moved, changes.gone) == (1, 1, 1, 1)
    assert len(embedded) == 2  # the changed one and the new one: known content is not looked at again
    assert not library.info().missing and not library.info().changed
    assert library.search(thumbnail(2))[0].name == "hills/renamed.png"
    assert library.search(thumbnail(50))[0].name == "sea/000.png"
    assert str(library.update()) == "nothing changed"


def test_adding_and_removing(here: Path, embedded: list[int], tmp_path: Path) -> None:
    library = ReferenceLibrary("photos.def")
    photos(here / "album" / "new", range(30, 33))
    assert library.add("album/new").added == 3 and len(embedded) == 3
    assert library.search(thumbnail(31))[0].name == "new/031.png"
    assert library.remove(["new/031.png", "hills"]).gone == 5
    assert len(library.index.entries) == 8 and library.search(thumbnail(31))[0].name != "new/031.png"
    assert str(library.update()) == "nothing changed"  # what was removed does not come back
    library.add("album/hills")
    assert len(library.index.entries) == 12 and len(embedded) == 7
    with pytest.raises(ValueError, match="is not in the library"):
        library.remove("sea/999.png")
    photos(tmp_path / "outside", range(1))
    with pytest.raises(ValueError, match="is not in the library's root"):
        library.add(tmp_path / "outside")


def test_building_again_reads_nothing_again(here: Path, embedded: list[int]) -> None:
    before = (here / "photos.def" / INDEX).read_bytes()
    _, changes = ReferenceLibrary.build("album", "photos.def")
    assert not embedded and str(changes) == "nothing changed"
    assert (here / "photos.def" / INDEX).read_bytes() == before


def other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another embedded extractor were installed."""
    network = embedding.embedded_network()
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.feature_extractor.parameters()).mul_(1.01)
    for module in (embedding, cells):
        monkeypatch.setattr(module, "embedded_network", lambda: other)


def test_a_library_of_other_weights_is_refused_and_read_again(
    here: Path, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ReferenceLibrary("photos.def").index
    with monkeypatch.context() as patched:
        other_weights(patched)
        library = ReferenceLibrary("photos.def")
        with pytest.raises(ValueError, match="was made with other weights of def-mini than are here now; `def-hub lib"):
            library.search(thumbnail(0))
        with pytest.raises(ValueError, match="was made with other weights"):
            library.remove("hills")
        assert not embedded
        photos(here / "album" / "sea", range(20, 21))
        changes = library.update()
        assert str(changes) == "1 added, 10 read again for another embedder" and len(embedded) == 11
        assert library.index.fingerprint != before.fingerprint
        assert library.search(thumbnail(20))[0].name == "sea/020.png"
    with pytest.raises(ValueError, match="was made with other weights"):
        ReferenceLibrary("photos.def").search(thumbnail(0))
    _, changes = ReferenceLibrary.build("album", "photos.def")
    assert changes.renewed == 11 and ReferenceLibrary("photos.def").index.fingerprint == before.fingerprint


def test_a_library_of_the_first_format_is_read_again(here: Path) -> None:
    """It has no fingerprint and no local descriptors."""
    path = here / "photos.def" / INDEX
    content = json.loads(path.read_text()) | {"format": 1}
    del content["fingerprint"]
    path.write_text(json.dumps(content))
    library = ReferenceLibrary("photos.def")
    assert library.info().photos == 10
    with pytest.raises(ValueError, match="`def-hub library update photos.def` reads its photos again"):
        library.search(thumbnail(0))
    assert library.update().renewed == 10
    assert ReferenceLibrary("photos.def").search(thumbnail(7))[0].name == "hills/007.png"


def same(one: Descriptors, two: Descriptors) -> bool:
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in TENSORS)


def start(*words: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """`def-hub library …` as a process of its own."""
    code = Path("start.py")
    code.write_text("import sys\nfrom def_hub.cli import main\nsys.exit(main())\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *launcher, str(code), "library", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: list[int]) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "album", range(48))
    process = start("build", "album", "-o", "killed.def")
    parts, deadline = tmp_path / "killed.def" / "parts", time.monotonic() + 240
    while not list(parts.glob(building.PART)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1].decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {path.name: path.read_bytes() for path in parts.glob(building.PART)}
    finished = sum(len(load_file(parts / name)["regions"]) for name in kept)
    assert 0 < finished < 48 and not (tmp_path / "killed.def" / INDEX).exists()
    with pytest.raises(FileNotFoundError, match="no library here"):
        ReferenceLibrary("killed.def")
    killed, changes = ReferenceLibrary.build("album", "killed.def")
    assert len(embedded) == 48 - finished and changes.added == 48 and not parts.exists()
    straight, _ = ReferenceLibrary.build("album", "straight.def")
    assert killed.index.entries == straight.index.entries
    assert same(killed.index.descriptors, straight.index.descriptors)


def test_two_processes_give_the_library_of_one(here: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    (here / "album" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    process = start("build", "album", "-o", "two.def", launcher=torchrun)
    out, err = process.communicate(timeout=300)
    assert process.returncode != 0 and b"torn.png" in err  # a photo that cannot be read makes the status 1
    assert out.decode().splitlines()[-1] == "two.def: 10 photos; 10 added"
    one, two = ReferenceLibrary("photos.def"), ReferenceLibrary("two.def")
    assert one.index.entries == two.index.entries and same(one.index.descriptors, two.index.descriptors)


def test_building_shows_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    photos(tmp_path / "a", range(3))
    screen = Terminal()
    monkeypatch.setattr(building, "tqdm", partial(building.tqdm, file=screen, mininterval=0))
    ReferenceLibrary.build(tmp_path / "a", tmp_path / "a.def")
    assert re.search(r"reading: +67%.* 2/3 \[\d\d:\d\d<\d\d:\d\d", screen.getvalue())
    monkeypatch.setattr(building, "tqdm", partial(building.tqdm.func, file=(log := io.StringIO())))
    ReferenceLibrary.build(tmp_path / "a", tmp_path / "b.def")
    assert not log.getvalue()  # in a file it would be in the way


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs a system that lists what is mapped")
def test_the_vectors_are_mapped_into_memory(here: Path) -> None:
    vectors = next(Path("photos.def").glob("vectors-*")).resolve()
    assert str(vectors) not in Path("/proc/self/maps").read_text()
    library = ReferenceLibrary("photos.def")
    assert str(vectors) in Path("/proc/self/maps").read_text()
    assert library.index.descriptors.regions.numel() == 10 * 14 * 512
