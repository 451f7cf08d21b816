"""A library of references: what it finds, that it survives, and that it believes nobody."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from def_hub import DEFPipeline, ReferenceLibrary, images
from def_hub.reference.library import building, cells, embedding, nearest
from def_hub.reference.library.descriptors import Descriptors
from def_hub.reference.library.index import (
    INDEX,
    TENSORS,
    Entry,
    Index,
    entries_from_json,
    entries_to_json,
    read_index,
    write_index,
)
from def_hub.reference.selection import RankedReference
from tests.conftest import EXAMPLES, ROOT, Run
from tests.helpers.library import photos, scene, thumbnail, write_video

pytest.importorskip("faiss", reason="searching a library needs faiss-cpu")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten photos and their library; tests work on copies."""
    folder = tmp_path_factory.mktemp("library")
    photos(folder / "album" / "sea", range(6))
    photos(folder / "album" / "hills", range(6, 10))
    ReferenceLibrary.build(folder / "album", folder / "photos.def")
    return folder


@pytest.fixture
def here(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of `built`, times of the files included."""
    shutil.copytree(built, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos were really embedded: the length of the list."""
    done: list[int] = []
    photo = embedding.PooledFeatures.photo

    def counted(self: Any, picture: torch.Tensor) -> torch.Tensor:
        done.append(1)
        return photo(self, picture)

    monkeypatch.setattr(embedding.PooledFeatures, "photo", counted)
    return done


def described(numbers: range) -> Descriptors:
    """The local descriptors of scenes."""
    made = [cells.cells_of(scene(number)) for number in numbers]
    return Descriptors(
        torch.zeros(len(made), 1, 1).half(),
        torch.stack([kept for kept, _ in made]),
        torch.tensor([grid for _, grid in made], dtype=torch.int16),
    )


def noise(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def scores(monkeypatch: pytest.MonkeyPatch, by_name: dict[str, float]) -> None:
    """Let the second stage give these scores, and 0 to all others: the order of what follows is then known."""

    def rank(image: Any, candidates: list[Any], extractor: Any = None) -> list[RankedReference]:
        return [RankedReference(i, by_name.get(Path(str(c)).name, 0.0)) for i, c in enumerate(candidates)]

    monkeypatch.setattr("def_hub.reference.library.library.rank_references", rank)


# -------------------------------------------------------------------------------------------------- what it finds


def test_a_small_part_of_a_photo_finds_the_photo(here: Path) -> None:
    library = ReferenceLibrary("photos.def")
    for number in range(10):
        found = library.search(thumbnail(number))
        assert found[0].path.name == f"{number:03}.png" and len(found) == 10
        assert found[0].similarity > found[1].similarity + 0.1


def test_the_vectors_do_not_depend_on_the_precision_of_the_caller(here: Path) -> None:
    expected = load_file(next(Path("photos.def").glob("vectors-*")))
    torch.set_default_dtype(torch.float64)
    try:
        ReferenceLibrary.build("album", "again.def")
    finally:
        torch.set_default_dtype(torch.float32)
    again = load_file(next(Path("again.def").glob("vectors-*")))
    assert all(torch.equal(again[name], expected[name]) for name in ("regions", "cells", "grid"))
    regions, cells = expected["regions"], expected["cells"]
    assert regions.dtype == torch.float16 and cells.dtype == torch.int8
    assert torch.allclose(regions.float().norm(dim=2), torch.ones(regions.shape[:2]), atol=1e-3)


def test_the_query_is_cleaned_up(here: Path) -> None:
    """A thumbnail that was enlarged, and saved as a poor JPEG, still finds its photo."""
    small = thumbnail(4)
    large = torch.nn.functional.interpolate(small, scale_factor=3, mode="bicubic").clamp(0, 1)
    images.to_pil(large).save("worn.jpg", quality=40)
    found = ReferenceLibrary("photos.def").search("worn.jpg")
    assert found[0].path.name == "004.png"


def test_the_choice_gives_its_reasons(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, {"001.png": 0.5, "002.png": 0.3, "003.png": 0.2, "004.png": 0.07, "005.png": 0.05})
    choice = ReferenceLibrary("photos.def").choose(thumbnail(1), most=2)
    assert [f.name for f in choice.chosen] == ["sea/001.png", "sea/002.png"]
    assert choice.chosen[0].why == "serves 50 % of the image, likely to help"
    assert len(choice.others) == 8 and choice.others[0].name == "sea/003.png"
    assert choice.others[0].why == "serves 20 % of the image, less than the 2 chosen"
    assert choice.others[2].why == "shows too little of the image to help (under 0.06)"
    assert choice.lines(1) == [
        "0.500  sea/001.png: serves 50 % of the image, likely to help",
        "0.300  sea/002.png: serves 30 % of the image, likely to help",
        "0.200  sea/003.png: serves 20 % of the image, less than the 2 chosen",
    ]
    assert json.loads(json.dumps(choice.record()))["chosen"][0]["name"] == "sea/001.png"
    four = ReferenceLibrary("photos.def").choose(thumbnail(1), most=9)
    assert [f.name for f in four.chosen][-1] == "sea/004.png" and len(four.chosen) == 4  # 005 would not help
    with pytest.raises(ValueError, match="max_references must be at least 1"):
        ReferenceLibrary("photos.def").choose(thumbnail(1), most=0)


def test_ranking_ends_when_no_more_photos_help(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ReferenceLibrary("photos.def")
    order = [found.path.name for found in library.search(thumbnail(1))]
    monkeypatch.setattr("def_hub.reference.library.library.MISSES", 3)

    def ranked(helpful: dict[int, float]) -> int:
        scores(monkeypatch, {order[place]: score for place, score in helpful.items()})
        choice = library.choose(thumbnail(1))
        return len(choice.chosen) + len(choice.others)

    assert ranked({0: 0.5}) == 4 and ranked({0: 0.5, 3: 0.2}) == 7
    assert ranked({2: 0.5}) == 6 and ranked({0: 0.5, 4: 0.2}) == 4 and ranked({}) == 3


def test_both_stages_choose_the_photo_that_shows_the_image(here: Path) -> None:
    choice = ReferenceLibrary("photos.def").choose(thumbnail(3))
    assert choice.chosen[0].name == "sea/003.png" and not choice.problems
    assert all(f.score < choice.chosen[0].score / 2 for f in (*choice.chosen[1:], *choice.others))


def test_search_is_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all pairs, with vectors enough that faiss finds only some of them."""
    random = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(500, 4, 32, generator=random), dim=2).half()
    query = embedding.Query(
        torch.nn.functional.normalize(vectors[77, :3].float() + 0.1 * torch.randn(3, 32, generator=random), dim=1),
        torch.tensor([0.5, 0.3, 0.2]),
    )
    found = nearest.Nearest(vectors)(query, 5)
    every = query.weights @ torch.einsum("qd,nrd->qnr", query.vectors, vectors.float()).amax(2)
    assert [n for n, _ in found][0] == 77 == int(every.argmax())
    assert all(abs(similarity - float(every[n])) < 1e-5 for n, similarity in found)
    assert nearest.Nearest(vectors[:0])(query, 5) == []


def test_cells_agree_where_a_photo_shows_the_place(here: Path) -> None:
    """At whatever size, down to a third of its sides; and nowhere in a photo of something else."""
    for part in (slice(0, 120), slice(20, 100), slice(40, 84)):
        shown = scene(3)[..., part, :][..., part.start + 20 : part.stop + 20]
        shares = cells.shares(shown, described(range(10))).amax(1)
        assert int(shares.argmax()) == 3
        assert shares[3] > 2 * shares[[n for n in range(10) if n != 3]].max()


def test_local_descriptors_order_what_global_ones_find(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ReferenceLibrary("photos.def").search(thumbnail(4))
    assert [f.evidence for f in found] == sorted((f.evidence for f in found), reverse=True) != [0] * 10
    monkeypatch.setattr("def_hub.reference.library.library.SIMILAR", 3)
    fewer = ReferenceLibrary("photos.def").search(thumbnail(4))
    assert fewer[0].name == "sea/004.png" and len(fewer) == 10
    assert all(f.evidence == 0 for f in fewer[3:])
    assert [f.similarity for f in fewer[3:]] == sorted((f.similarity for f in fewer[3:]), reverse=True)


def test_photos_of_any_shape_are_described() -> None:
    for height, width in ((8, 8), (8, 2000), (3000, 9), (700, 401)):
        kept, (rows, columns) = cells.cells_of(
            scene(1, height, width) if min(height, width) > 40 else noise(height, width)
        )
        assert kept.shape[0] == cells.MOST and 0 < rows * columns <= cells.MOST
        assert kept[rows * columns :].abs().sum() == 0 and kept[: rows * columns].abs().sum(1).min() > 0
        assert float(kept.abs().max()) <= 127


# -------------------------------------------------------------------------------------------------- keeping it


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


# -------------------------------------------------------------------------------------------------- real processes


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
    while not list(parts.glob("*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1].decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {path.name: path.read_bytes() for path in parts.glob("*.safetensors")}
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


# -------------------------------------------------------------------------------------------------- somebody else's


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
    refused("some are not finite", regions=torch.full((10, 14, 512), torch.nan).half())
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


# -------------------------------------------------------------------------------------------------- backbones, videos


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny DINOv2 of random weights, as its name on the Hub would give it."""
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}).save_pretrained(folder)
    return str(folder)


def test_a_backbone_of_transformers(here: Path, backbone: str) -> None:
    library, changes = ReferenceLibrary.build("album", "dino.def", backbone=backbone)
    assert changes.added == 10 and library.index.descriptors.regions.shape == (10, 6, 32)
    found = library.search(scene(5)[..., :118, :158])
    assert found[0].name == "sea/005.png" and found[0].similarity > 0.9
    with pytest.raises(ValueError, match="name it as backbone if you trust it"):
        ReferenceLibrary("dino.def").search(thumbnail(0))
    with pytest.raises(ValueError, match="the library was made with"):
        ReferenceLibrary("photos.def", backbone=backbone).search(thumbnail(0))
    again, changes = ReferenceLibrary.build("album", "photos.def", backbone=backbone)
    assert again.index.embedder == backbone and again.index.descriptors.regions.shape == (10, 6, 32)
    assert (changes.renewed, changes.added) == (10, 0)


def test_transformers_is_loaded_only_where_a_backbone_is_asked_for(here: Path) -> None:
    code = (
        "import sys; from def_hub import ReferenceLibrary; ReferenceLibrary.build('album', 'new.def');"
        "print([m for m in ('faiss', 'av', 'transformers.models.auto.modeling_auto') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_frames_of_a_video_are_references(here: Path) -> None:
    pytest.importorskip("av", reason="videos need PyAV")
    from def_hub.video import frame_at, sharp_frames

    write_video(here / "album" / "walk.mp4", 24, sharp={3, 13, 20})
    frames = list(sharp_frames(here / "album" / "walk.mp4", every=8))
    order = sorted(stamp for stamp, _ in frames)
    step = order[1] - order[0]
    assert [round(stamp * 10 / step) for stamp in order] == [3, 13, 20] if step else False
    for stamp, picture in frames:
        assert torch.equal(frame_at(here / "album" / "walk.mp4", stamp), picture)
    library = ReferenceLibrary("photos.def")
    changes = library.add("album/walk.mp4", every=8)
    info = library.info()
    assert (changes.added, info.photos, info.videos, info.frames) == (3, 10, 1, 3)
    found = library.search(images.shrink(frames[1][1][..., :96, :160]))
    assert found[0].name == f"walk.mp4#{frames[1][0]}"
    assert torch.equal(found[0].picture(), frames[1][1])
    with pytest.raises(ValueError, match="has no frame with the time stamp"):
        frame_at(here / "album" / "walk.mp4", 10**9)
    (here / "album" / "broken.mp4").write_bytes(b"no video")
    assert library.update().problems[0].startswith("broken.mp4: ")


def test_without_the_optional_packages_it_says_which(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "find_spec", lambda name: None)
    monkeypatch.setattr("def_hub.video.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'def-hub\[library\]'"):
        ReferenceLibrary("photos.def").search(thumbnail(0))
    (here / "album" / "walk.mp4").write_bytes(b"")
    changes = ReferenceLibrary("photos.def").update()
    assert len(changes.problems) == 1 and "pip install 'def-hub[library]'" in changes.problems[0]


# -------------------------------------------------------------------------------------------------- using it


def test_the_pipeline_chooses_for_each_image(
    here: Path, tiny_pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, {"001.png": 0.5, "004.png": 0.3, "007.png": 0.2})
    library = ReferenceLibrary("photos.def")
    given = [thumbnail(1), thumbnail(2)]
    call = {"output_type": "pt", "max_references": 2, "degradation": "clean"}
    output = tiny_pipe(given, library, generator=torch.Generator().manual_seed(0), **call)
    assert [[f.path.name for f in c.chosen] for c in output.choices] == [["001.png", "004.png"]] * 2
    assert [len(shares) for shares in output.provenance] == [4, 4]
    files = [f.path for f in output.choices[0].chosen]
    direct = tiny_pipe(given, files, generator=torch.Generator().manual_seed(0), output_type="pt", degradation="clean")
    assert all(torch.equal(a, b) for a, b in zip(output.images, direct.images, strict=True)) and not direct.choices
    scores(monkeypatch, {})
    alone = tiny_pipe(given[0], library, generator=torch.Generator().manual_seed(0), output_type="pt")
    assert alone.choices[0].chosen == () and len(alone.provenance[0]) == 2
    with pytest.raises(ValueError, match="max_references must be at least 1"):
        tiny_pipe(given, library, max_references=0)
    with pytest.raises(ValueError, match="reference_mask"):
        tiny_pipe(given[0], library, reference_mask=torch.ones(3, 120, 160))


def test_the_command_line(here: Path, run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run("library", "build", "album", "-o", "cli.def")
    assert (status, out, err) == (0, "cli.def: 10 photos; 10 added\n", "")
    photos(here / "album" / "new", range(30, 31))
    assert run("library", "add", "cli.def", "album/new")[1] == "cli.def: 11 photos; 1 added\n"
    assert run("library", "remove", "cli.def", "new")[1] == "cli.def: 10 photos; 1 gone\n"
    (here / "album" / "sea" / "000.png").unlink()
    status, out, err = run("library", "info", "cli.def")
    assert status == 1 and "sea/000.png: is missing" in err
    assert out.splitlines()[0] == "cli.def: 10 photos" and "bytes for each picture" in out
    assert run("library", "update", "cli.def")[1] == "cli.def: 9 photos; 1 gone\n"
    assert "no library here" in run("library", "info", "absent.def")[2]

    scores(monkeypatch, {"001.png": 0.5, "004.png": 0.3})
    images.save_image(thumbnail(1), here / "small.png")
    status, out, err = run(
        *("upscale", "small.png", "--library", "cli.def", "-o", "large.png", "--model", tiny_model),
        *("--device", "cpu", "--steps", "1", "--save-intermediates", "why"),
    )
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0].strip() == "0.500  sea/001.png: serves 50 % of the image, likely to help"
    assert "small.png -> large.png" in lines[-1] and len(lines) == 6
    report = json.loads((here / "why" / "report.json").read_text())
    assert report["references"] == ["sea/001.png", "sea/004.png"]
    assert [f["score"] for f in report["library"]["chosen"]] == [0.5, 0.3]
    assert len(report["scores"]["shares_of_references"]) == 2 and (here / "why" / "matches.png").exists()


def test_from_a_folder_to_a_result(tmp_path: Path) -> None:
    """The example, with the shipped pictures: the references of the photograph are chosen, no other."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "library.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "library.png").exists()
    chosen = [line for line in done.stdout.splitlines() if "likely to help" in line]
    named = {line.split()[1].rstrip(":") for line in chosen}
    assert {"street_ref1.jpg", "street_ref2.jpg"} <= named
    assert all(name.startswith(("street", "facade")) for name in named)  # the same cathedral


def test_building_shows_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    bar = building.tqdm

    def watched(*arguments: Any, **options: Any) -> Any:
        shown.append(options)
        return bar(*arguments, **options | {"disable": True})

    monkeypatch.setattr(building, "tqdm", watched)
    photos(tmp_path / "a", range(1))
    ReferenceLibrary.build(tmp_path / "a", tmp_path / "a.def")
    assert shown == [{"unit": "file", "desc": "reading", "disable": None}]  # shown on a terminal


def test_the_page_shows_chosen_photos_like_uploaded_ones(
    here: Path, tiny_pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from def_hub.service.runner import Runner
    from def_hub.service.session import Session
    from def_hub.service.uploads import check_photo
    from def_hub.service.work import Here
    from def_hub.space import library as button
    from def_hub.space.demo import build_demo
    from def_hub.space.pictures import reference_card

    work = Here(tiny_pipe, ReferenceLibrary("photos.def"))
    runner, session = Runner(work), Session()
    assert button.take(runner, session) == ["Upload a small photograph first."]
    images.save_image(thumbnail(1), here / "small.png")
    session.set_photo(check_photo(here / "small.png"))
    scores(monkeypatch, {"001.png": 0.5, "004.png": 0.3})
    assert button.take(runner, session) == []
    assert [upload.path.name for upload in session.uploads] == ["001.png", "004.png"]
    # copies, which go with the visitor
    assert all(upload.path.is_relative_to(session.root) for upload in session.uploads)
    session.rank(lambda image, candidates: [RankedReference(0, 0.5), RankedReference(1, 0.3)])
    cards = [reference_card(session, candidate)["lines"] for candidate in session.candidates()]
    assert cards[0] == ["001.png", "50 %, likely to help", "✓ reference 1"]
    assert session.names["references"] == [{"name": "001.png", "match": 0.5}, {"name": "004.png", "match": 0.3}]
    scores(monkeypatch, {})
    said = button.take(runner, session)
    assert said[0].startswith("The library has no photo that would help. The most similar one shows too little")

    def offered(demo: Any) -> dict[str, Any]:
        return next(c["props"] for c in demo.config["components"] if c["props"].get("elem_id") == "library")

    assert offered(build_demo(work))["value"] == "Find references among 10 photos"
    assert not offered(build_demo(tiny_pipe))["visible"]
