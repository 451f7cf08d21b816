"""`benchmark`: plans, rows, tables, resuming, scoring; and the known numbers of bicubic."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from def_hub import images
from def_hub.evaluation import benchmark, tables
from def_hub.evaluation.benchmark import Measures
from def_hub.evaluation.datasets import Dataset, load_dataset
from def_hub.evaluation.methods import Bicubic, Pipeline, Restored
from def_hub.evaluation.metrics import Protocol
from def_hub.evaluation.rows import Row, summarise
from def_hub.observation.degradation import Degraded

from .helpers.evaluation import Nearly, Stopping, multiview, save_picture


@pytest.fixture
def views(tmp_path: Path) -> Dataset:
    return load_dataset(multiview(tmp_path / "views"))


@pytest.fixture
def photographs(tmp_path: Path) -> Dataset:
    for number in range(2):
        save_picture(tmp_path / "photographs" / "HR" / f"{number}.png", number, (32, 40))
        save_picture(tmp_path / "photographs" / "LR" / f"{number}.png", 50 + number, (8, 10))
    return load_dataset(tmp_path / "photographs")


def test_the_plan_says_what_cannot_be_done(views: Dataset, photographs: Dataset) -> None:
    tasks, notes = benchmark.plan([Bicubic(), Nearly(views)], [views, photographs], ["first", "none", "3"])
    counts: dict[tuple[str, ...], int] = {}
    for task in tasks:
        counts[task.key[:3]] = counts.get(task.key[:3], 0) + 1
    assert counts == {
        ("bicubic", "views", "none"): 4,
        ("nearly", "views", "first"): 4,
        ("nearly", "views", "none"): 4,
        ("bicubic", "photographs", "none"): 2,
        ("nearly", "photographs", "none"): 2,
    }
    assert notes == ["views: has no references 3", "photographs: has no references first, 3"]
    needy = Nearly(views, needs_references=True)
    tasks, notes = benchmark.plan([needy], [views, photographs], ["first", "none"])
    assert {task.key[:3] for task in tasks} == {("nearly", "views", "first")}
    assert notes == ["photographs: has no references first", "photographs: nearly needs references"]
    with pytest.raises(ValueError, match="references must be one of"):
        benchmark.plan([Bicubic()], [views], ["best"])  # type: ignore[list-item]


def test_rows_means_and_table(views: Dataset, tmp_path: Path) -> None:
    tasks, notes = benchmark.plan([Bicubic(), Nearly(views)], [views], ["first"])
    rows = benchmark.run(tasks, save_to=tmp_path / "out")
    assert not notes and [row.key for row in rows] == [task.key for task in tasks]
    assert sorted(path.name for path in (tmp_path / "out" / "views").iterdir()) == [
        "bicubic-none",
        "input",
        "nearly-first",
        "truth",
    ]
    saved = images.to_tensor(tmp_path / "out" / "views" / "truth" / "002.png")
    assert torch.equal(saved, views.load(2)[0])
    base, best = rows[:4], rows[4:]
    assert all(row.psnr > 45 and row.ssim > 0.99 and row.served == 0.25 and row.transfer == math.inf for row in best)
    assert max(row.consistency for row in best) < min(row.consistency for row in base)
    assert all(math.isnan(row.lpips) and row.seconds >= 0 for row in rows)
    summaries = summarise(rows)
    assert [(s.method, s.images) for s in summaries] == [("bicubic", 4), ("nearly", 4)]
    assert summaries[0].psnr == pytest.approx(sum(row.psnr for row in base) / 4)
    table = tables.markdown(summaries, Protocol())
    assert "×4, LR = Pillow bicubic, Y (BT.601, 16-235), no border crop, 8 bit" in table
    gain = f"{summaries[1].psnr - summaries[0].psnr:+.2f}"
    assert f"| views | 4 | nearly | first | {summaries[1].psnr:.2f} | {gain} |" in table
    assert table.index("| bicubic |") < table.index("| nearly |")
    assert table.splitlines()[-1].startswith("Unavailable: LPIPS (squeeze), gain of references,")
    assert "25%" in table and "| – |" in table  # bicubic reports no share


def test_the_agreement_is_with_what_made_the_picture(photographs: Dataset) -> None:
    """Nothing made a photograph smaller: there is nothing to agree with."""
    tasks, _ = benchmark.plan([Bicubic()], [photographs], ["none"])
    assert all(math.isnan(row.consistency) for row in benchmark.run(tasks))


def test_the_memory_is_that_of_the_call(views: Dataset) -> None:
    class Hungry:
        name, uses_references, needs_references = "hungry", False, False

        def __call__(self, image: Degraded, references: list[Tensor]) -> Restored:
            torch.ones(300_000_000, dtype=torch.uint8)
            return Bicubic()(image, references)

    tasks, _ = benchmark.plan([Bicubic(), Hungry(), Bicubic()], [views], ["none"])
    before, hungry, after = (row.memory for row in benchmark.run(tasks[::4]))
    if math.isnan(before):
        pytest.skip("this system does not tell a process's largest memory anew")
    assert hungry > before + 250 and after < hungry - 250


def test_lpips_is_measured_where_it_is_there(views: Dataset) -> None:
    measures = Measures(lpips=lambda image, truth: (image - truth).abs().mean((1, 2, 3)))
    tasks, _ = benchmark.plan([Bicubic(), Nearly(views)], [views], ["none"])
    base, best = summarise(benchmark.run(tasks, measures))
    assert best.lpips == pytest.approx(1 / 255, rel=0.1) and base.lpips > best.lpips
    assert f"{base.lpips:.4f}" in tables.markdown([base, best], Protocol())


def test_pictures_that_cannot_be_read_are_named_and_the_rest_is_measured(views: Dataset) -> None:
    (views.items[1].image).write_text("no picture")
    tasks, _ = benchmark.plan([Bicubic()], [views], ["none"])
    problems: list[str] = []
    rows = benchmark.run(tasks, on_problem=problems.append)
    assert [row.image for row in rows] == ["000", "002", "003"]
    assert len(problems) == 1 and problems[0].startswith("views/001, bicubic: ") and "not a readable" in problems[0]
    with pytest.raises(ValueError, match="not a readable picture"):
        benchmark.run(tasks)


def test_a_stopped_evaluation_goes_on(views: Dataset, tmp_path: Path) -> None:
    method = Stopping()
    tasks, _ = benchmark.plan([method], [views], ["none"])
    settings = {"steps": 4, "call": {"eta": 0.0}}
    journal = benchmark.Journal(tmp_path / "run", settings)
    with pytest.raises(KeyboardInterrupt):
        benchmark.run(tasks, done=journal.done, on_row=journal.add)
    with (tmp_path / "run" / "rows.csv").open("a") as file:
        file.write("m,views,none,0")  # cut off while it was written
    again = benchmark.Journal(tmp_path / "run", settings, resume=True)
    assert [row.image for row in again.done] == ["000", "001"]
    rows = benchmark.run(tasks, done=again.done, on_row=again.add)
    assert method.calls == 5 and [row.image for row in rows] == ["000", "001", "002", "003"]
    straight = benchmark.run(benchmark.plan([Bicubic()], [views], ["none"])[0])
    assert [row.psnr for row in rows] == [row.psnr for row in straight]
    again.finish(rows, ["one missing"], "the table")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "rows.csv",
        "settings.json",
        "summary.json",
        "summary.csv",
        "table.md",
    }
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["settings"] == settings and summary["problems"] == ["one missing"]
    assert summary["results"][0]["images"] == 4 and summary["results"][0]["lpips"] is None
    with pytest.raises(ValueError, match=r"other settings \(call.eta was 0.0, is 0.5\)"):
        benchmark.Journal(tmp_path / "run", settings | {"call": {"eta": 0.5}}, resume=True)
    assert benchmark.Journal(tmp_path / "run", {"steps": 5}).done == []
    assert not (tmp_path / "run" / "rows.csv").exists()


def test_rows_of_all_processes_are_taken_over(views: Dataset, tmp_path: Path) -> None:
    """Three processes were killed: one goes on with what all of them had done."""
    settings = {"steps": 4}
    for number in range(3):
        processes: Any = SimpleNamespace(number=number, first=number == 0, wait=lambda: None)
        journal = benchmark.Journal(tmp_path / "run", settings, resume=True, processes=processes)
        journal.add(Row("m", "views", "none", f"00{number}", 30.0, 0.9))
    again = benchmark.Journal(tmp_path / "run", settings, resume=True)
    assert sorted(row.image for row in again.done) == ["000", "001", "002"]
    assert [path.name for path in (tmp_path / "run").glob("rows*")] == ["rows.csv"]


def test_results_of_others_are_scored(tmp_path: Path) -> None:
    for number in range(3):
        save_picture(tmp_path / "truth" / f"{number}_HR.png", number)
        save_picture(tmp_path / "theirs" / f"{number}.png", number + (number == 2))
    save_picture(tmp_path / "theirs" / "more.png", 9)
    rows, problems = benchmark.score(tmp_path / "theirs", tmp_path / "truth")
    assert [row.psnr == math.inf for row in rows] == [True, True, False]
    assert (rows[0].method, rows[0].dataset, rows[0].image) == ("theirs", "truth", "0_HR")
    assert len(problems) == 1 and "more.png: no partner" in problems[0]
    save_picture(tmp_path / "theirs" / "1.png", 1, (24, 28))
    rows, problems = benchmark.score(tmp_path / "theirs", tmp_path / "truth")
    assert len(rows) == 2 and any("of one shape" in problem for problem in problems)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="nothing can be compared"):
        benchmark.score(tmp_path / "empty", tmp_path / "truth")


def test_the_pipeline_is_called_alike_for_every_picture(views: Dataset) -> None:
    seen: list[tuple[int, Any]] = []

    def pipe(image: Tensor, reference: Any, *, generator: torch.Generator, output_type: str, steps: int) -> Any:
        assert output_type == "pt" and steps == 3
        seen.append((generator.initial_seed(), None if reference is None else len(reference)))
        result = Bicubic()(Degraded(image), []).image[0]
        shares = torch.tensor([0.5, 0.2, 0.2, 0.1]).view(4, 1, 1).expand(-1, *result.shape[1:])
        return SimpleNamespace(images=[result], provenance=[shares], transferred=[result])

    method = Pipeline("def", pipe, {"steps": 3}, seed=7)
    tasks, _ = benchmark.plan([method], [views], ["none", "all"])
    rows = benchmark.run(tasks)
    assert seen == [(7, None)] * 4 + [(7, 2)] * 4
    assert [row.psnr for row in rows[:4]] == [row.psnr for row in rows[4:]]
    assert all(math.isnan(row.served) for row in rows[:4])
    assert all(row.served == pytest.approx(0.3) and row.transfer == row.psnr for row in rows[4:])


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
    tasks, notes = benchmark.plan([Bicubic()], [load_dataset(shared_data / "eval-dev" / name)], ["none"])
    (summary,) = summarise(benchmark.run(tasks))
    assert not notes and (summary.images, round(summary.psnr, 2), round(summary.ssim, 3)) == (count, psnr, ssim)


@pytest.mark.parametrize("name", ["RealSR", "DRealSR"])
def test_photographs_of_two_lenses_are_recognised(shared_data: Path, name: str) -> None:
    dataset = load_dataset(shared_data / "eval-dev" / name)
    assert (dataset.layout, len(dataset.items), dataset.problems) == ("RealSR", 24, ())
    truth, small = dataset.load(0)
    assert (truth.shape, small.shape) == ((1, 3, 512, 512), (1, 3, 128, 128))
