"""The browser interface over HTTP, as a visitor's script would use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image

import app
from def_hub import DEFPipeline
from tests.conftest import EXAMPLES, make_tiny_pipe

SETTINGS = {
    "preset": "fast",
    "steps": 1,
    "eta": 0,
    "seed": 4,
    "strength": 1,
    "matching_image": "joint",
    "consistency": True,
}


@contextmanager
def serving(pipe: DEFPipeline) -> Iterator[Client]:
    demo = app.build_demo(pipe).queue(max_size=4)
    _, url, _ = demo.launch(**app.launch_options(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield Client(url, verbose=False)
    demo.close()


@pytest.fixture(scope="module")
def tiny() -> DEFPipeline:
    return make_tiny_pipe()


@pytest.fixture(scope="module")
def client(tiny: DEFPipeline) -> Iterator[Client]:
    with serving(tiny) as client:
        yield client


def upscale(client: Client, photo: Path | None, references: list[Path], **settings: Any) -> tuple[Any, ...]:
    gallery = [{"image": handle_file(str(path)), "caption": None} for path in references]
    given = handle_file(str(photo)) if photo else None
    return client.predict(photo=given, references=gallery, **(SETTINGS | settings), api_name="/upscale")


def small(folder: Path) -> Path:
    """A corner of a shipped example, to be quick."""
    path = folder / "corner.png"
    Image.open(EXAMPLES / "street_lr.png").crop((40, 30, 72, 54)).save(path)
    return path


def check_agreement(client: Client, pipe: DEFPipeline, photo: Path) -> None:
    """The endpoint gives, without loss, what the pipeline gives."""
    reference = photo.with_name("reference.png")
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(reference)
    slider, result, *explaining, summary = upscale(client, photo, [reference])
    generator = torch.Generator().manual_seed(4)
    same = {"preset": "fast", "num_inference_steps": 1, "matching_image": "joint"}  # as in SETTINGS
    expected = np.asarray(pipe(photo, reference, generator=generator, **same).images[0])
    before, after = (Image.open(path) for path in slider)
    assert np.array_equal(np.asarray(Image.open(result)), expected) and np.array_equal(np.asarray(after), expected)
    assert before.size == after.size == (128, 96)
    assert len(explaining) == 5 and all(Image.open(path).format == "PNG" for path in explaining)
    assert "128×96 pixels" in summary and "served by the references" in summary


def test_the_endpoint_gives_what_the_pipeline_gives(client: Client, tiny: DEFPipeline, tmp_path: Path) -> None:
    check_agreement(client, tiny, small(tmp_path))


def test_the_embedded_default_is_served(pipe: DEFPipeline, tmp_path: Path) -> None:
    with serving(pipe) as client:
        check_agreement(client, pipe, small(tmp_path))


def test_without_reference(client: Client, tmp_path: Path) -> None:
    _, result, enhanced, matches, _, provenance, transferred, summary = upscale(client, small(tmp_path), [])
    assert result and enhanced and provenance and matches is None and transferred is None
    assert " 0 % of the pixels" in summary


def test_visitors_get_one_clear_line(client: Client, tmp_path: Path) -> None:
    photo, text, tiny = small(tmp_path), tmp_path / "text.png", tmp_path / "tiny.png"
    text.write_text("not a picture")
    Image.new("RGB", (5, 50)).save(tiny)
    large = tmp_path / "large.png"
    Image.new("RGB", (1200, 1000)).save(large)
    for given, references, words in [
        (None, [], "Upload a small photograph first."),
        (text, [], "The photograph is not a picture that can be read."),
        (photo, [text], "Reference 1 is not a picture that can be read."),
        (tiny, [], "at least 8×8 pixels, got 5×50"),
        (large, [], "has 1200×1000 pixels; at most 1 million are taken here."),
        (photo, [photo] * (app.MAX_REFERENCES + 1), f"At most {app.MAX_REFERENCES} references"),
    ]:
        with pytest.raises(Exception) as caught:  # noqa: B017, PT011  (the client's own error class)
            upscale(client, given, references)
        message = str(caught.value)
        assert words in message and "Traceback" not in message and "/tmp" not in message and "\n" not in message


def test_only_the_one_endpoint_is_public(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert list(endpoints["named_endpoints"]) == ["/upscale"] and not endpoints["unnamed_endpoints"]
