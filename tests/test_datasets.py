"""`datasets`: layouts, choices of references, LR pictures, and what is missing."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub.evaluation.datasets import load_dataset, load_pair, match_files
from def_hub.observation.jpeg import jpeg_of

from .helpers.evaluation import multiview, save_picture


@pytest.fixture
def views(tmp_path: Path) -> Path:
    return multiview(tmp_path / "views")


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    for number in range(1, 4):
        save_picture(folder / "input" / f"{number:03}.png", number)
        save_picture(folder / "ref" / f"{number:03}_ref.png", 100 + number)
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for number in range(3):
        save_picture(tmp_path / "plain" / f"img_{number:03}.png", number, (29, 38))
    return tmp_path / "plain"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """As RealSR comes: LR pictures that nobody made from the HR ones."""
    for number in range(3):
        save_picture(tmp_path / "RealSR" / "HR" / f"Canon_{number:03}_HR.png", number, (32, 40))
        save_picture(tmp_path / "RealSR" / "LR" / f"Canon_{number:03}_LR4.png", 50 + number, (8, 10))
    return tmp_path / "RealSR"


def test_layouts_are_recognised(views: Path, paired: Path, plain: Path) -> None:
    dataset = load_dataset(views)
    assert (dataset.name, dataset.layout, dataset.problems) == ("views", "CUFED5", ())
    assert [item.name for item in dataset.items] == ["000", "001", "002", "003"]
    assert [path.name for path in dataset.items[2].references] == ["002_1.jpg", "002_2.jpg"]
    pairs = load_dataset(paired)
    assert pairs.layout == "WR-SR"
    assert [item.references[0].name for item in pairs.items] == [f"{n:03}_ref.png" for n in (1, 2, 3)]
    single = load_dataset(plain)
    assert single.layout == "plain" and len(single.items) == 3 and not single.items[0].references


def test_sun80_as_its_authors_give_it(tmp_path: Path) -> None:
    folder = tmp_path / "Sun80"
    for name in ("a", "b"):
        save_picture(folder / "Sun_Hays_SR_groundtruth" / f"{name}.jpg", ord(name))
        for number in range(3):
            save_picture(folder / "Sun_Hays_SR_scenematches" / f"{name}.jpg" / f"match_{number}.jpg", number)
    dataset = load_dataset(folder)
    assert dataset.layout == "Sun80" and [len(item.references) for item in dataset.items] == [3, 3]
    assert len(dataset.load_references(0, "all")) == 3 and len(dataset.load_references(0, "2")) == 1
    shutil.rmtree(folder / "Sun_Hays_SR_scenematches" / "b.jpg")
    dataset = load_dataset(folder)
    assert [item.name for item in dataset.items] == ["a"] and "b.jpg has no reference" in dataset.problems[0]


def test_manga109_draws_another_page_of_the_same_volume(tmp_path: Path) -> None:
    for volume in ("Arms", "Bokutachi", "Short"):
        for page in range(1 if volume == "Short" else 8):
            save_picture(tmp_path / "Manga109" / "images" / volume / f"{page:03}.png", page)
    dataset = load_dataset(tmp_path / "Manga109")
    assert dataset.layout == "Manga109" and [item.scene for item in dataset.items] == ["Arms", "Bokutachi"]
    assert dataset.problems == ("volume Short has 1 page, two are needed",)
    for item in dataset.items:
        (reference,) = item.references
        assert reference.parent == item.image.parent and reference != item.image
    assert load_dataset(tmp_path / "Manga109") == dataset  # the same pages again
    drawn = {tuple(item.image for item in load_dataset(tmp_path / "Manga109", seed=s).items) for s in range(8)}
    assert len(drawn) > 1
    flat = load_dataset(tmp_path / "Manga109" / "images" / "Arms", "Manga109")
    assert len(flat.items) == 8 and all(item.references[0] != item.image for item in flat.items)


def test_photographs_are_not_made_smaller(photographs: Path) -> None:
    dataset = load_dataset(photographs)
    assert dataset.layout == "RealSR" and len(dataset.items) == 3
    truth, small = dataset.load(1)
    with Image.open(photographs / "LR" / "Canon_001_LR4.png") as opened:
        assert np.array_equal((small[0] * 255).round().permute(1, 2, 0).numpy(), np.asarray(opened))
    assert truth.shape == (1, 3, 32, 40)
    assert dataset.offers("none") and not dataset.offers("first")
    pair = load_pair(photographs / "LR", photographs / "HR")
    assert [(item.given, item.image) for item in pair.items] == [(i.given, i.image) for i in dataset.items]
    save_picture(photographs / "LR" / "Canon_001_LR4.png", 1, (8, 12))
    with pytest.raises(ValueError, match="12×8 is not a quarter of 40×32"):
        dataset.load(1)


def test_files_are_matched_by_name_and_what_is_alone_is_known() -> None:
    def paths(*names: str) -> list[Path]:
        return [Path(name) for name in names]

    pairs, alone = match_files(
        paths("a.png", "b_x4.png", "Canon_001_LR4.png"), paths("a.jpg", "b.png", "Canon_001_HR.png")
    )
    assert [(left.name, right.name) for left, right in pairs] == [
        ("a.png", "a.jpg"),
        ("b_x4.png", "b.png"),
        ("Canon_001_LR4.png", "Canon_001_HR.png"),
    ]
    assert not alone
    # both ends say "x1": they belong to the name
    assert match_files(paths("DSC_1_x1.png"), paths("DSC_1_x1.png"))[1] == []
    # two candidates: none is guessed
    assert match_files(paths("b.png"), paths("b_x2.png", "b_x4.png")) == ([], paths("b.png", "b_x2.png", "b_x4.png"))


def test_the_small_picture_is_pillows(plain: Path) -> None:
    dataset = load_dataset(plain)
    truth, small = dataset.load(0)
    assert truth.shape == (1, 3, 28, 36)
    with Image.open(dataset.items[0].image) as opened:
        expected = np.asarray(opened.crop((0, 0, 36, 28)).resize((9, 7), Image.Resampling.BICUBIC))
    assert np.array_equal((small[0] * 255).round().permute(1, 2, 0).numpy(), expected)


def test_a_degradation_draws_the_same_for_a_picture_whatever_came_before(plain: Path) -> None:
    clean = load_dataset(plain)
    noisy = clean.degraded("noise8")
    assert (clean.title, noisy.title, noisy.name) == (clean.name, f"{clean.name}+noise8", clean.name)
    assert clean.degraded("phone").title == f"{clean.name}+phone" and clean.degraded("clean") == clean
    forwards = [noisy.load(index)[1] for index in (0, 1, 2)]
    backwards = [noisy.load(index)[1] for index in (2, 1, 0)]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards[::-1], strict=True))
    assert not torch.equal(forwards[0], clean.load(0)[1])
    assert torch.equal(noisy.load_references(0, "first")[0], forwards[0])  # its reference is the LR picture


def test_a_jpeg_comes_with_its_file(plain: Path, tmp_path: Path) -> None:
    dataset = load_dataset(plain)
    assert dataset.load_with_file(0)[1].file is None
    small = dataset.degraded("jpeg70").load_with_file(0)[1]
    assert small.file is not None and jpeg_of(small.file).quality == 70  # type: ignore[union-attr]
    with Image.open(io.BytesIO(small.file)) as decoded:
        assert np.array_equal((small.picture[0] * 255).round().permute(1, 2, 0).numpy(), np.asarray(decoded))
    save_picture(tmp_path / "lenses" / "HR" / "1.png", 1, (48, 64))
    (tmp_path / "lenses" / "LR").mkdir()
    with Image.open(tmp_path / "lenses" / "HR" / "1.png") as large:
        large.resize((16, 12)).save(tmp_path / "lenses" / "LR" / "1.jpg", quality=55)
    lenses = load_dataset(tmp_path / "lenses")
    assert lenses.degraded("noise8") == lenses  # what was given stays
    given = lenses.load_with_file(0)[1]
    assert given.file == (tmp_path / "lenses" / "LR" / "1.jpg").read_bytes()


def test_choices_of_references(views: Path, paired: Path, plain: Path) -> None:
    dataset = load_dataset(views)
    assert [tuple(r.shape) for r in dataset.load_references(3, "all")] == [(1, 3, 32, 40), (1, 3, 32, 40)]
    assert len(dataset.load_references(3, "first")) == 1 and dataset.load_references(3, "none") == []
    assert torch.equal(dataset.load_references(3, "1")[0], dataset.load_references(3, "first")[0])
    assert torch.equal(dataset.load_references(3, "2")[0], dataset.load_references(3, "all")[1])
    assert dataset.offers("2") and not dataset.offers("3")
    assert [dataset.unrelated(index) for index in range(4)] == [3, 3, 3, 1]  # never the same scene
    assert torch.equal(dataset.load_references(0, "unrelated")[0], dataset.load_references(3, "first")[0])
    pairs = load_dataset(paired)
    assert all(pairs.unrelated(index) != index for index in range(3))
    single = load_dataset(plain)
    assert torch.equal(single.load_references(1, "first")[0], single.load(1)[1])
    assert torch.equal(single.load_references(0, "unrelated")[0], single.load(1)[1])
    assert single.offers("first") and not single.offers("2")


def test_one_scene_has_nothing_unrelated(views: Path) -> None:
    (views / "groups.tsv").write_text("group\tscene\n" + "".join(f"{n:03}\ttower\n" for n in range(4)))
    with pytest.raises(ValueError, match="no item shows another scene than 000"):
        load_dataset(views).unrelated(0)


def test_what_is_missing_is_listed_and_the_rest_is_kept(views: Path, paired: Path, photographs: Path) -> None:
    (paired / "ref" / "002_ref.png").unlink()
    pairs = load_dataset(paired)
    assert [item.name for item in pairs.items] == ["001", "003"]
    assert pairs.problems == ("002.png has no reference 002_ref in ref/",)
    (views / "001_0.png").unlink()
    save_picture(views / "notes.png", 1)
    groups = load_dataset(views)
    assert [item.name for item in groups.items] == ["000", "002", "003"]
    assert groups.problems == ("notes.png is no NNN_N", "group 001 needs 001_0 and at least 001_1")
    (photographs / "HR" / "Canon_002_HR.png").unlink()
    assert load_dataset(photographs).problems == ("LR/Canon_002_LR4.png has no partner",)


def test_wrong_folders_are_refused(tmp_path: Path, plain: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_dataset(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected pictures, or NNN_0"):
        load_dataset(tmp_path / "empty")
    with pytest.raises(ValueError, match="expected input/ and ref/ or"):
        load_dataset(plain, "WR-SR")
    with pytest.raises(ValueError, match="layout must be one of plain"):
        load_dataset(plain, "Set5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no picture has a partner"):
        load_pair(plain, tmp_path / "empty")
