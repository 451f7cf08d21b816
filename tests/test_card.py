"""The model card: its figures come from the evaluation, and the committed card is what the command makes of them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from def_hub import DEFPipeline, cli
from def_hub.evaluation.benchmark import fingerprint
from def_hub.hub.card import check_card, links_of, parts_of, render
from def_hub.hub.measured import compared, comparison, figures, read_evaluations
from def_hub.hub.new_card import SHIPPED, same_model, same_part, written_card
from def_hub.hub.publish import model_files
from def_hub.settings import PRESETS, SETTINGS, Settings

from .conftest import EXAMPLES
from .helpers.hub_server import HubServer

CARD = SHIPPED / "README.md"
MADE_BY = SHIPPED / "made-by"
HEADER = "---\nlicense: mit\nlibrary_name: diffusers\npipeline_tag: image-to-image\n---\n\n# small ×4\n"
PLACES = "<!-- results -->\n<!-- /results -->\n\n<!-- training -->\n<!-- /training -->\n"
COLUMNS = "method,dataset,references,image,psnr,ssim,consistency,seconds\n"


@pytest.fixture
def made_by(tmp_path: Path) -> Path:
    """An evaluation whose means are known: the second data set has one of its two pictures with a reference."""
    folder = tmp_path / "made-by"
    (folder / "evaluation").mkdir(parents=True)
    rows = [
        "bicubic,A,none,1,20,0.5,30,0",
        "bicubic,A,none,2,22,0.5,30,0",
        "bicubic,B,none,1,30,0.5,30,0",
        "bicubic,B,none,2,40,0.5,30,0",
        "def,A,none,1,21,0.6,0.25,1",
        "def,A,none,2,24,0.8,0.5,3",
        "def,A,first,1,21.05,0.6,0.25,1",
        "def,A,first,2,25,0.8,0.5,3",
        "def,B,first,1,31,0.9,0.5,2",
    ]
    (folder / "evaluation" / "rows.csv").write_text(COLUMNS + "\n".join(rows) + "\n")
    settings = {"protocol": "Y", "weights": "abc", "call": {"preset": "fast"}, "seed": 0, "commit": "1234567"}
    (folder / "evaluation" / "settings.json").write_text(json.dumps(settings))
    (folder / "1-part-train.csv").write_text("step,loss,minutes\n10,1.0,30\n20,0.5,90\n")
    return folder


def test_what_shows_figures_is_up_to_date() -> None:
    """The card, and the README as soon as it has a place for them."""
    for path in (CARD, EXAMPLES.parent / "README.md"):
        text = path.read_text(encoding="utf-8")
        if path == CARD or re.search("<!-- (comparison|overview) -->", text):
            command = f"def-hub card {path.name} --made-by def_hub/weights/def-mini/made-by"
            assert render(text, MADE_BY) == text, f"run `{command}`"


def test_the_figures_are_of_the_embedded_weights(pipe) -> None:  # type: ignore[no-untyped-def]
    evaluations = read_evaluations(MADE_BY / "evaluation")
    for settings in (e.settings for e in evaluations):
        assert settings["weights"] == fingerprint(pipe.parts(settings["call"]["preset"]))
    assert all(e.settings["commit"] for e in evaluations)


def test_the_committed_card_is_what_the_hub_wants(hub: HubServer) -> None:
    text = CARD.read_text(encoding="utf-8")
    check_card(text)
    card = ModelCard(text)
    card.validate()
    assert hub.requests == [("POST", "/api/validate-yaml")]
    results = {(r.dataset_name, r.dataset_config, r.metric_type): r for r in card.data.eval_results}
    found = figures(read_evaluations(MADE_BY / "evaluation"))
    assert len(results) == 2 * len(found)
    for figure in found:
        result = results[figure.dataset, f"preset: {figure.preset}, reference: {figure.references}", "psnr"]
        assert result.metric_value == round(figure.psnr, 2)
        assert "Y (BT.601, 16-235)" in result.metric_name
        measured = [
            e
            for e in read_evaluations(MADE_BY / "evaluation")
            if any(
                (r.method, r.dataset, r.references) == (f"def:{figure.preset}", figure.dataset, figure.references)
                for r in e.rows
            )
        ]
        assert result.metric_args["commit"] == ", ".join(sorted({e.settings["commit"] for e in measured}))
        assert f"{figure.psnr:.2f}" in card.text


def test_its_pictures_are_small_and_go_with_it() -> None:
    links = links_of(CARD.read_text(encoding="utf-8"))
    assert "failures/CREDITS.md" in links  # their licences
    shown = [link for link in links if link.endswith(".jpg")]
    assert sorted(shown) == [f"failures/{name}.jpg" for name in ("banana", "robot", "street")]
    files = model_files(MADE_BY.parent, CARD)
    assert set(links) <= set(files)
    for name in shown:
        assert (SHIPPED / name).stat().st_size < 60_000
        width, height = Image.open(SHIPPED / name).size
        assert width == 4 * height  # bicubic, without, with, truth
        assert Path(name).stem in (EXAMPLES / "CREDITS.md").read_text()


def test_means_are_over_the_same_pictures(made_by: Path) -> None:
    a, b, c = figures(read_evaluations(made_by / "evaluation"))
    assert (a.dataset, a.references, a.images, a.total) == ("A", "none", 2, 2)
    assert (a.bicubic, a.psnr, a.ssim, a.consistency, a.seconds) == (21, 22.5, pytest.approx(0.7), 0.5, 2)
    assert (b.references, b.psnr) == ("first", pytest.approx(23.025))
    assert (c.dataset, c.images, c.total, c.bicubic, c.psnr) == ("B", 1, 2, 30, 31)  # bicubic of that one picture


def test_render_fills_in_and_is_idempotent(made_by: Path) -> None:
    text = render(HEADER + PLACES, made_by)
    assert "| A | first | 2 | 21.00 | 23.02 | +2.02 | 0.700 | 0.50 | 2.0 | 1234567 |" in text
    assert "| B | first | 1 of 2 | 30.00 | 31.00 | +1.00 |" in text
    assert "A, reference 'first' against none, 2 pictures: +0.53 dB on average, from +0.05 to +1.00; 1 of them" in text
    assert "commit 1234567" in text and "| 1-part | 20 | 90 |" in text and "0.045 kWh" in text
    assert render(text, made_by) == text
    assert ModelCard(text).data.model_name == "small ×4"


def test_presets_and_several_references(made_by: Path) -> None:
    """A table for each preset, the default's first; what was measured later lies in files of its own."""
    folder = made_by / "evaluation"
    settings = json.loads((folder / "settings.json").read_text())
    for name, preset, rows in (
        (
            "-detail",
            "detail",
            ["bicubic,A,none,1,20,0.5,30,0", "def,A,all,1,19.5,0.5,0.5,9", "def,A,none,1,19,0.5,0.5,5"],
        ),
        (
            "-more",
            "fast",
            ["def,A,unrelated,2,23.9,0.8,0.5,3", "def,A,all,1,21.5,0.6,0.25,1", "def,A,all,2,25,0.8,0.5,3"],
        ),
        ("-usual", "balanced", ["def,A,first,1,22,0.6,0.25,1"]),
    ):
        (folder / f"rows{name}.csv").write_text(COLUMNS + "\n".join(rows) + "\n")
        call = {"preset": preset} | ({"num_inference_steps": 8} if preset == "detail" else {})
        (folder / f"settings{name}.json").write_text(json.dumps(settings | {"call": call, "commit": f"of{name}"}))
    (made_by / "5-detail-train.csv").write_text("step,generator,discriminator,minutes\n600,1.0,0.5,45\n")
    found = figures(read_evaluations(folder))
    assert [(f.preset, f.dataset, f.references) for f in found] == [
        ("balanced", "A", "first"),
        *(("fast", "A", mode) for mode in ("none", "first", "all", "unrelated")),
        ("fast", "B", "first"),
        ("detail", "A", "none"),
        ("detail", "A", "all"),
    ]
    text = render(HEADER + PLACES, made_by)
    assert text.index("Preset `balanced`") < text.index("Preset `fast`") < text.index("Preset `detail`, weights `")
    assert "commit 1234567, of-detail, of-more, of-usual" in text
    assert "| A | all | 2 | 21.00 | 23.25 | +2.25 | 0.700 | 0.50 | 2.0 | of-more |" in text
    assert "| A | none | 2 | 21.00 | 22.50 | +1.50 | 0.700 | 0.50 | 2.0 | 1234567 |" in text  # from another file
    assert "| A | first | 1 of 2 | 20.00 | 22.00 |" in text  # bicubic was measured with another preset
    for sentence in (
        "A, reference 'all' against none, 2 pictures: +0.75 dB on average, from +0.50 to +1.00; 0 of them",
        "A, reference 'all' against first, 2 pictures: +0.22 dB on average, from +0.00 to +0.45.",
        "A, reference 'unrelated' against none, 1 pictures: -0.10 dB",
        "A, reference 'all' against none, 1 pictures: +0.50 dB",
    ):
        assert sentence in text
    assert "| 5-detail | 600 | 45 |" in text and "| in all | | 135 |" in text
    results = {
        (r.dataset_name, r.dataset_config, r.metric_type): r.metric_value for r in ModelCard(text).data.eval_results
    }
    assert len(results) == 2 * len(found) and results["A", "preset: detail, reference: all", "psnr"] == 19.5
    commits = {(r.dataset_config, r.metric_args["commit"]) for r in ModelCard(text).data.eval_results}
    assert {("preset: fast, reference: none", "1234567"), ("preset: fast, reference: all", "of-more")} <= commits
    assert render(text, made_by) == text


def test_parts_are_those_of_the_folder(made_by: Path, tmp_path: Path, tiny_pipe: DEFPipeline) -> None:
    tiny_pipe.register_modules(refsr_detail=tiny_pipe.refsr)
    tiny_pipe.save_pretrained(tmp_path, max_shard_size="20KB")
    tiny_pipe.save_pretrained(tmp_path, variant="fp16")  # not counted twice
    assert parts_of(tmp_path) == {"refsr": 154_320, "refsr_detail": 154_320, "unet": 40_995}
    text = render(HEADER + PLACES + "<!-- parts -->\n<!-- /parts -->\n", made_by)
    assert "| `refsr_detail` | 154,320 |" in text and render(text, made_by) == text


def test_all_methods_stand_beside_each_other(made_by: Path) -> None:
    """One evaluation of several methods: presets have their tables, the others and LPIPS stand in the comparison."""
    folder = made_by / "evaluation"
    settings = json.loads((folder / "settings.json").read_text())
    fast = settings["call"] | {"weights": "abc"}
    settings["call"] = {"preset": "balanced"}
    settings["methods"] = {
        "bicubic": {},
        "rlfn": {"weights": "r"},
        "masa (small, trained here)": {"weights": "m"},
        "def:balanced": {"preset": "balanced", "weights": "abc"},
        "def:fast": fast,
        "def:fast,turns=4": fast | {"turns": 4},
    }
    rows = [
        "bicubic,Urban100,none,1,20,0.5,30,0,0.4",
        "bicubic,Urban100,none,2,22,0.5,30,0,0.5",
        "rlfn,Urban100,none,2,25,0.5,3,0,0.3",
        '"masa (small, trained here)",Urban100,first,2,22.5,0.5,3,0,0.4',
        "def:balanced,Urban100,first,1,23,0.6,,1,0.2",
        "def:balanced,Urban100,first,2,24,0.6,,1,0.3",
        "def:fast,Urban100,none,1,22,0.6,0.25,1,0.2",
        "def:fast,Urban100,none,2,23,0.6,0.25,1,0.4",
        "def:fast,turns=4,Urban100,none,2,23.5,0.6,0.25,1,0.4".replace("def:fast,turns=4", '"def:fast,turns=4"'),
    ]
    (folder / "rows-u.csv").write_text(COLUMNS.strip() + ",lpips\n" + "\n".join(rows) + "\n")
    (folder / "settings-u.json").write_text(json.dumps(settings))
    places = "<!-- comparison -->\n<!-- /comparison -->\n<!-- published -->\n<!-- /published -->\n"
    text = render(HEADER + PLACES + places, made_by)
    for line in (
        "| PSNR in dB / LPIPS (squeeze) | Urban100 (2) | A (2) | B (2) |",
        "| bicubic | 21.00 / 0.450 | 21.00 | 35.00 |",
        "| rlfn | +3.00 on 1 / 0.300 | – | – |",
        "| masa (small; trained here, equal data and steps), one reference | +0.50 on 1 / 0.400 | – | – |",
        "What was trained here are small forms on far less data and time",
        "| srntt: its authors' weights are not at hand, and it was not trained here | – | – | – |",
        "| DEF balanced, one reference | 23.50 / 0.250 | – | – |",
        "| DEF fast, no reference | 22.50 / 0.300 | 22.50 | – |",
        "| def:fast,turns=4 | +1.50 on 1 / 0.400 | – | – |",
        "| Urban100 | first | 2 | 21.00 | 23.50 | +2.50 | 0.600 | – | 1.0 | 1234567 |",
        "| C2-Matching-rec | 26.03 / 0.785 |",
    ):
        assert line in text, line
    assert "| masa: " not in text and "| c2-matching: its authors'" in text
    assert "Urban100: 2 of 100 pictures here" in text and render(text, made_by) == text
    short = render("# y\n<!-- overview -->\n<!-- /overview -->\n", made_by)
    assert "| DEF balanced, one reference | 23.50" in short and "DEF fast" not in short and "srntt" not in short
    readme = render(f"---\ntitle: x\n---\n# y\n{places}", made_by)  # shows figures, but is no card
    assert readme.startswith("---\ntitle: x\n---\n# y\n") and comparison(compared(folder)) in readme


def test_what_cannot_be_rendered(made_by: Path) -> None:
    with pytest.raises(ValueError, match="expected one <!-- results -->"):
        render(HEADER, made_by)
    settings = json.loads((made_by / "evaluation" / "settings.json").read_text())
    shutil.copy(made_by / "evaluation" / "rows.csv", made_by / "evaluation" / "rows-b.csv")
    with pytest.raises(ValueError, match="has no settings-b.json"):
        render(HEADER + PLACES, made_by)
    (made_by / "evaluation" / "settings-b.json").write_text(json.dumps(settings | {"weights": "other"}))
    with pytest.raises(ValueError, match="differ in 'weights'"):
        render(HEADER + PLACES, made_by)
    (made_by / "evaluation" / "settings-b.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="measured twice with the preset 'fast': A, none, 1"):
        render(HEADER + PLACES, made_by)
    call = {"preset": "fast", "eta": 0.5}
    (made_by / "evaluation" / "settings-b.json").write_text(json.dumps(settings | {"call": call}))
    with pytest.raises(ValueError, match="of the preset 'fast' differ in 'call'"):
        render(HEADER + PLACES, made_by)
    with pytest.raises(ValueError, match="found none"):
        render(HEADER + PLACES, made_by / "absent")


def test_the_command(made_by: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "README.md"
    card.write_text(HEADER + PLACES)
    assert cli.main(["card", str(card), "--check"]) == 1 and card.read_text() == HEADER + PLACES
    assert cli.main(["card", str(card)]) == 0 and "+2.02" in card.read_text()
    assert cli.main(["card", str(card), "--check"]) == 0
    link = tmp_path / "elsewhere" / "model_card.md"
    link.parent.mkdir()
    link.symlink_to(card)
    card.write_text(HEADER + PLACES)
    assert cli.main(["card", str(link)]) == 0 and link.is_symlink() and "+2.02" in card.read_text()
    assert cli.main(["card", str(tmp_path / "absent.md")]) == 2
    assert "absent.md: no such file" in capsys.readouterr().err


def test_a_written_card_says_all_that_is_known(
    hub: HubServer, folder: Path, made_by: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "vivid", Settings(eta=0.125))
    text = written_card("alice/tuned", folder, "cc-by-4.0", "alice/def-x4")
    check_card(text)
    ModelCard(text).validate()
    data = ModelCard(text).data
    assert (data.license, data.base_model, data.library_name) == ("cc-by-4.0", "alice/def-x4", "diffusers")
    for part, count in parts_of(folder).items():
        assert f"| `{part}` |" in text and f"| {count:,} | F32 |" in text
    assert "def-mini" not in text  # none of these parts is the shipped one's
    for setting in SETTINGS:
        values = " | ".join(str(getattr(preset, setting.name)) for preset in PRESETS.values())
        assert f"| `{setting.name}` | {values} |" in text
    assert "0.125" in text and "shrunk by `bicubic`" in text and "extractor mini" in text
    assert "Not measured." in text and "Not recorded" in text and "- `alice/def-x4`" in text
    # and what is there by then
    shutil.copytree(made_by, folder / "made-by", dirs_exist_ok=True)
    (folder / "made-by" / "1-part.toml").write_text("seed = 0")
    text = written_card("alice/tuned", folder)
    assert "| 1-part | 20 | 90 |" in text and "`made-by/1-part.toml`" in text and "Not recorded" not in text
    assert "| A | first | 2 |" in text and "Not measured." not in text
    assert "license: unknown" in text and "def-hub publish --license" in text and "Not stated" in text


def test_what_decided_the_bytes_is_on_the_card(made_by: Path) -> None:
    path = made_by / "evaluation" / "settings.json"
    settings = json.loads(path.read_text())
    settings["conditions"] = {"precision": "bfloat16", "threads": 2, "operator": "bicubic"}
    path.write_text(json.dumps(settings))
    text = render(HEADER + PLACES, made_by)
    assert "Computed under: operator bicubic, precision bfloat16, threads 2." in text
    rows = "def,C,none,1,21,0.6,0.25,1\n"
    (made_by / "evaluation" / "rows-b.csv").write_text(COLUMNS + "bicubic,C,none,1,20,0.5,30,0\n" + rows)
    settings["conditions"]["threads"] = 1
    (made_by / "evaluation" / "settings-b.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="differ in 'conditions'"):
        render(HEADER + PLACES, made_by)


def test_the_shipped_model_is_recognised(pipe: DEFPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "same", max_shard_size="2MB")
    assert same_model(tmp_path / "same", SHIPPED)
    other = DEFPipeline.from_pretrained()
    with torch.no_grad():
        next(other.refsr.aggregator.parameters()).view(-1)[0] += 1e-6
    other.save_pretrained(tmp_path / "other")
    assert not same_model(tmp_path / "other", SHIPPED)
    assert same_part(tmp_path / "other", SHIPPED, "unet") and not same_part(tmp_path / "other", SHIPPED, "refsr")
    text = written_card("alice/other", tmp_path / "other")
    assert "| `unet` | UNet2DModel, that of `def-mini`" in text and "| `refsr` | ReferenceNetwork |" in text
    other = DEFPipeline.from_pretrained(window=128)
    other.save_pretrained(tmp_path / "window")
    assert not same_model(tmp_path / "window", SHIPPED)


def test_pictures_outside_are_refused() -> None:
    assert links_of("![a](x/y.png) ![b](https://x.org/z.png) [c](x/y.png) [d](#d)") == ["x/y.png"]
    for path in ("../secret.png", "/etc/passwd"):
        with pytest.raises(ValueError, match="would not be published"):
            links_of(f"![a]({path})")
