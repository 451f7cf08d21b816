"""`hub.datasets`: a published data set becomes a folder, byte by byte; tried on a local one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from def_hub.config import SourceConfig
from def_hub.data import open_source
from def_hub.evaluation.datasets import load_dataset
from def_hub.hub.datasets import fetch

from .conftest import Run
from .helpers.evaluation import save_picture

datasets = pytest.importorskip("datasets", reason="no library datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def publish(folder: Path, columns: dict[str, Any], features: dict[str, Any], split: str = "test") -> Path:
    folder.mkdir()
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    made.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def pictures(folder: Path, count: int, first: int = 0, size: tuple[int, int] = (48, 56)) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(first, first + count)]
    for number, path in enumerate(paths):
        save_picture(path, first + number, size)
    return paths


def encoded(paths: list[Path]) -> list[dict[str, Any]]:
    return [{"bytes": path.read_bytes(), "path": None} for path in paths]


def test_pictures_with_references_are_measured(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, references = pictures(tmp_path / "hr", 3), pictures(tmp_path / "ref", 6, first=10)
    columns = {
        "HR": encoded(large),
        "references": [encoded(references[2 * n : 2 * n + 2]) for n in range(3)],
        "caption": ["a", "b", "c"],
    }
    features = {
        "HR": datasets.Image(),
        "references": datasets.List(datasets.Image()),
        "caption": datasets.Value("string"),
    }
    name = publish(tmp_path / "published", columns, features)
    folder = fetch(name, into=tmp_path / "kept")
    assert (folder / "00001_0.png").read_bytes() == large[1].read_bytes()
    assert (folder / "00002_2.png").read_bytes() == references[5].read_bytes()
    dataset = load_dataset(folder)
    assert dataset.layout == "CUFED5" and [len(item.references) for item in dataset.items] == [2, 2, 2]
    (name / "test-00000-of-00001.parquet").unlink()
    assert fetch(name, into=tmp_path / "kept") == folder  # kept: nothing is asked again


def test_given_pictures_and_plain_ones(tmp_path: Path) -> None:
    large, small = pictures(tmp_path / "hr", 2), pictures(tmp_path / "lr", 2, first=5, size=(12, 14))
    image = datasets.Image()
    pair = publish(tmp_path / "pair", {"lq": encoded(small), "gt": encoded(large)}, {"lq": image, "gt": image})
    dataset = load_dataset(fetch(pair, into=tmp_path / "kept"))
    assert dataset.layout == "RealSR" and dataset.load(1)[1].shape == (1, 3, 12, 14)
    plain = publish(tmp_path / "plain", {"image": encoded(large)}, {"image": image})
    assert load_dataset(fetch(plain, into=tmp_path / "kept")).layout == "plain"
    first = fetch(plain, limit=1, into=tmp_path / "kept")
    assert [path.name for path in first.iterdir()] == ["00000.png"]


def test_what_has_no_pictures_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    text = publish(tmp_path / "text", {"text": ["a"]}, {"text": datasets.Value("string")})
    with pytest.raises(ValueError, match="expected a column image, hr, .* has text"):
        fetch(text, into=tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*") if (tmp_path / "kept").exists() else [])


def test_the_command_takes_a_name(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name goes to `fetch` as it is, with its split; what comes back is measured under the name."""
    folder = tmp_path / "kept" / "alice--views-val"
    pictures(folder, 2)
    asked: list[tuple[str, str]] = []

    def fetched(name: str, split: str, limit: int | None = None) -> Path:
        asked.append((name, split))
        return folder

    monkeypatch.setattr("def_hub.hub.datasets.fetch", fetched)
    monkeypatch.chdir(tmp_path)
    status, out, err = run("evaluate", "hub:alice/views:val", "--method", "bicubic")
    assert status == 0 and asked == [("alice/views", "val")], err
    assert "| alice--views-val | 2 | bicubic |" in out
    run("evaluate", "hub:alice/views", "--method", "bicubic")
    assert asked[-1] == ("alice/views", "test")


def test_training_data_may_lie_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The split "train" by default; references make pairs, plain pictures photographs; a limit is kept."""
    monkeypatch.setattr("def_hub.hub.datasets.HF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    large, references = pictures(tmp_path / "hr", 3), pictures(tmp_path / "ref", 6, first=10)
    image = datasets.Image()
    columns = {"image": encoded(large), "ref": [encoded(references[2 * n : 2 * n + 2]) for n in range(3)]}
    publish(tmp_path / "pairs", columns, {"image": image, "ref": datasets.List(image)}, split="train")
    pairs = open_source(SourceConfig(kind="pairs", path="hub:pairs", crops=1), 32)
    assert len(pairs) == 6 and pairs.describe(3).endswith("00001_0.png")  # each reference makes a pair
    assert torch.equal(pairs[2].image, pairs[3].image) and not torch.equal(pairs[2].reference, pairs[3].reference)
    assert len(open_source(SourceConfig(kind="pairs", path="hub:pairs:train", crops=1, limit=2), 32)) == 4
    publish(tmp_path / "photos", {"image": encoded(large)}, {"image": image}, split="train")
    assert len(open_source(SourceConfig(kind="photos", path="hub:photos", crops=2), 32)) == 6
    with pytest.raises(ValueError, match="there is no folder absent"):
        open_source(SourceConfig(kind="photos", path="absent"), 32)
