"""A library in the pipeline, on the command line, in the example and on the page."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from def_hub import DEFPipeline, ReferenceLibrary, images
from def_hub.reference.selection import RankedReference
from tests.conftest import EXAMPLES, ROOT, Run
from tests.helpers.library import photos, scores, thumbnail


def test_the_pipeline_chooses_for_each_image(
    here: Path, tiny_pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, {"001.png": 0.5, "004.png": 0.3, "007.png": 0.2})
    library = ReferenceLibrary("photos.def")
    given = [thumbnail(1), thumbnail(2)]
    same = {"output_type": "pt", "degradation": "clean", "preset": "fast"}
    output = tiny_pipe(given, library, max_references=2, generator=torch.Generator().manual_seed(0), **same)
    assert [[f.path.name for f in c.chosen] for c in output.choices] == [["001.png", "004.png"]] * 2
    assert [len(shares) for shares in output.provenance] == [4, 4]
    files = [f.path for f in output.choices[0].chosen]
    direct = tiny_pipe(given, files, generator=torch.Generator().manual_seed(0), **same)
    assert all(torch.equal(a, b) for a, b in zip(output.images, direct.images, strict=True)) and not direct.choices
    scores(monkeypatch, {})
    alone = tiny_pipe(given[0], library, generator=torch.Generator().manual_seed(0), **same)
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
    """The example, with the shipped pictures: photographs of the same cathedral are chosen, no other."""
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
    assert len(named) == 3 and all(name.startswith(("street", "facade")) for name in named)


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
    (said,) = button.take(runner, session)
    few = "png shows too little of the image to help (under 0.05)"
    assert said.startswith("The next photos were not chosen: ") and said.count(few) == 3
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


def test_the_app_offers_the_library_that_it_is_started_with(
    here: Path, run: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`def-hub app --library`: everything but serving."""
    served: list[Any] = []
    monkeypatch.setattr("def_hub.space.serve.Elsewhere", lambda load: load())
    monkeypatch.setattr("def_hub.space.serve.build_demo", lambda work, **options: served.append(work))
    for name in ("DEF_MODEL", "DEF_LIBRARY"):
        monkeypatch.setenv(name, "")
    with pytest.raises(AttributeError, match="queue"):  # there is no page
        run("app", "--model", tiny_model, "--library", "photos.def")
    assert served[0].library.path == Path("photos.def")
    assert served[0].library.search(thumbnail(7))[0].name == "hills/007.png"
