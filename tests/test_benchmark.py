"""`benchmark`: layouts, reference modes, means, resuming; and the known numbers of bicubic."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from def_hub.evaluation import benchmark
from def_hub.evaluation.metrics import Protocol


def picture(path: Path, seed: int, size: tuple[int, int] = (24, 32)) -> None:
    """A smooth random picture of (height, width), so that bicubic can say something about it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC).save(path, format="PNG")


@pytest.fixture
def multiview(tmp_path: Path) -> Path:
    """Four groups, three of one scene; the references have other sizes and misleading suffixes."""
    folder = tmp_path / "views"
    for group in range(4):
        picture(folder / f"{group:03}_0.png", 10 * group, (26, 35))
        for reference in range(1, 3):
            picture(folder / f"{group:03}_{reference}.jpg", 10 * group + reference, (20 + 4 * group, 40))
    (folder / "groups.tsv").write_text("group\tscene\n000\ttower\n001\ttower\n002\ttower\n003\tbridge\n")
    return folder


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    for number in range(1, 4):
        picture(folder / "input" / f"{number:03}.png", number)
        picture(folder / "ref" / f"{number:03}_ref.png", 100 + number)
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for number in range(3):
        picture(tmp_path / "plain" / f"img_{number:03}.png", number, (29, 38))
    return tmp_path / "plain"


def test_layouts_are_recognised(multiview: Path, paired: Path, plain: Path) -> None:
    views = benchmark.load_dataset(multiview)
    assert (views.name, views.layout) == ("views", "CUFED5")
    assert [item.name for item in views.items] == ["000", "001", "002", "003"]
    assert [path.name for path in views.items[2].references] == ["002_1.jpg", "002_2.jpg"]
    pairs = benchmark.load_dataset(paired)
    assert pairs.layout == "WR-SR" and [item.references[0].name for item in pairs.items] == [
        "001_ref.png",
        "002_ref.png",
        "003_ref.png",
    ]
    single = benchmark.load_dataset(plain)
    assert single.layout == "plain" and len(single.items) == 3 and not single.items[0].references


def test_the_small_picture_is_pillows(plain: Path) -> None:
    dataset = benchmark.load_dataset(plain)
    truth, small = dataset.load(0)
    assert truth.shape == (1, 3, 28, 36)
    with Image.open(dataset.items[0].image) as opened:
        expected = np.asarray(opened.crop((0, 0, 36, 28)).resize((9, 7), Image.Resampling.BICUBIC))
    assert np.array_equal((small[0] * 255).round().permute(1, 2, 0).numpy(), expected)


def test_reference_modes(multiview: Path, paired: Path, plain: Path) -> None:
    views = benchmark.load_dataset(multiview)
    assert [tuple(r.shape) for r in views.load_references(3, "all")] == [(1, 3, 32, 40), (1, 3, 32, 40)]
    assert len(views.load_references(3, "first")) == 1 and views.load_references(3, "none") == []
    assert [views.unrelated(index) for index in range(4)] == [3, 3, 3, 1]  # never the same scene
    assert torch.equal(views.load_references(0, "unrelated")[0], views.load_references(3, "first")[0])
    pairs = benchmark.load_dataset(paired)
    assert all(pairs.unrelated(index) != index for index in range(3))
    single = benchmark.load_dataset(plain)
    assert torch.equal(single.load_references(1, "first")[0], single.load(1)[1])
    assert torch.equal(single.load_references(0, "unrelated")[0], single.load(1)[1])


def test_one_scene_has_nothing_unrelated(multiview: Path) -> None:
    (multiview / "groups.tsv").write_text("group\tscene\n" + "".join(f"{n:03}\ttower\n" for n in range(4)))
    with pytest.raises(ValueError, match="no item shows another scene than 000"):
        benchmark.load_dataset(multiview).unrelated(0)


def test_wrong_folders_are_refused(tmp_path: Path, multiview: Path, paired: Path, plain: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        benchmark.load_dataset(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected pictures, or NNN_0"):
        benchmark.load_dataset(tmp_path / "empty")
    (paired / "ref" / "002_ref.png").unlink()
    with pytest.raises(ValueError, match="002.png has no reference 002_ref"):
        benchmark.load_dataset(paired)
    (multiview / "001_0.png").unlink()
    with pytest.raises(ValueError, match="group 001 needs 001_0"):
        benchmark.load_dataset(multiview)
    with pytest.raises(ValueError, match="references must be one of"):
        benchmark.evaluate(benchmark.bicubic, benchmark.load_dataset(plain), "best")  # type: ignore[arg-type]


def test_rows_means_and_table(multiview: Path, tmp_path: Path) -> None:
    dataset = benchmark.load_dataset(multiview)
    base = benchmark.evaluate(benchmark.bicubic, dataset, "none", method="bicubic")

    def perfect(image: Tensor, references: list[Tensor]) -> Tensor:
        """Looks the answer up: one level beside the truth everywhere."""
        for index in range(len(dataset.items)):
            truth, small = dataset.load(index)
            if torch.equal(small, image):
                return (truth + 1 / 255).clamp(0, 1)
        raise AssertionError("not a picture of this data set")

    best = benchmark.evaluate(perfect, dataset, "first", method="perfect", save_to=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"00{n}.png" for n in range(4)]
    assert all(row.psnr > 45 and row.ssim > 0.99 for row in best)
    assert max(row.consistency for row in best) < min(row.consistency for row in base)
    summaries = benchmark.summarise([*base, *best])
    assert [(s.method, s.images) for s in summaries] == [("bicubic", 4), ("perfect", 4)]
    assert summaries[0].psnr == pytest.approx(sum(row.psnr for row in base) / 4)
    assert summaries[0].consistency == max(row.consistency for row in base)
    table = benchmark.markdown(summaries, Protocol())
    assert "Y (BT.601, 16-235), no border crop, 8 bit" in table
    gain = f"{summaries[1].psnr - summaries[0].psnr:+.2f}"
    assert f"| views | 4 | perfect | first | {summaries[1].psnr:.2f} | {gain} |" in table
    assert table.index("| bicubic |") < table.index("| perfect |")


def test_a_stopped_evaluation_goes_on(multiview: Path, tmp_path: Path) -> None:
    dataset = benchmark.load_dataset(multiview)
    calls: list[int] = []

    def failing(image: Tensor, references: list[Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return benchmark.bicubic(image, references)

    settings = {"steps": 4}
    journal = benchmark.Journal(tmp_path / "run", settings)
    with pytest.raises(KeyboardInterrupt):
        benchmark.evaluate(failing, dataset, "none", method="m", done=journal.done, on_row=journal.add)
    with (tmp_path / "run" / "rows.csv").open("a") as file:
        file.write("m,views,none,0")  # cut off while it was written
    again = benchmark.Journal(tmp_path / "run", settings, resume=True)
    assert [row.image for row in again.done] == ["000", "001"]
    rows = benchmark.evaluate(failing, dataset, "none", method="m", done=again.done, on_row=again.add)
    assert len(calls) == 5 and [row.image for row in rows] == ["000", "001", "002", "003"]
    straight = benchmark.evaluate(benchmark.bicubic, dataset, "none", method="m")
    assert [row.psnr for row in rows] == [row.psnr for row in straight]
    summaries = benchmark.summarise(rows)
    again.finish(summaries, benchmark.markdown(summaries, Protocol()))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "rows.csv",
        "settings.json",
        "summary.json",
        "table.md",
    }
    with pytest.raises(ValueError, match="other settings"):
        benchmark.Journal(tmp_path / "run", {"steps": 5}, resume=True)
    assert benchmark.Journal(tmp_path / "run", {"steps": 5}).done == []


def test_the_pipeline_is_called_alike_for_every_picture(plain: Path) -> None:
    dataset = benchmark.load_dataset(plain)
    seen: list[tuple[int, Any]] = []

    def pipe(image: Tensor, reference: Any, *, generator: torch.Generator, output_type: str, steps: int) -> Any:
        assert output_type == "pt" and steps == 3
        seen.append((generator.initial_seed(), None if reference is None else len(reference)))
        return SimpleNamespace(images=[benchmark.bicubic(image, [])[0]])

    restore = benchmark.restorer(pipe, seed=7, steps=3)
    rows = benchmark.evaluate(restore, dataset, "none") + benchmark.evaluate(restore, dataset, "first")
    assert seen == [(7, None)] * 3 + [(7, 1)] * 3
    assert [row.psnr for row in rows[:3]] == [row.psnr for row in rows[3:]]


def test_fingerprints_follow_the_weights() -> None:
    module = torch.nn.Conv2d(3, 4, 3)
    before = benchmark.fingerprint({"a": module, "scheduler": object()})
    assert before == benchmark.fingerprint({"a": module})
    with torch.no_grad():
        module.bias[2] += 1e-3
    assert benchmark.fingerprint({"a": module}) != before


@pytest.mark.parametrize(
    ("name", "count", "psnr", "ssim"),
    [("Set5", 5, 28.43, 0.811), ("Set14", 14, 25.86, 0.706), ("MultiView", 27, 27.01, 0.736)],
)
def test_bicubic_has_the_known_numbers(shared_data: Path, name: str, count: int, psnr: float, ssim: float) -> None:
    dataset = benchmark.load_dataset(shared_data / "eval-dev" / name)
    (summary,) = benchmark.summarise(benchmark.evaluate(benchmark.bicubic, dataset, "none", method="bicubic"))
    assert (summary.images, round(summary.psnr, 2), round(summary.ssim, 3)) == (count, psnr, ssim)
