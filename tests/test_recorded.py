"""Results recorded with an earlier version of the code: the shipped examples, and a published checkpoint."""

import json

import numpy as np
import pytest
from PIL import Image

from def_hub import DEFPipeline

from .helpers.pictures import generator, picture, small
from .helpers.recorded import RECORDED, cases, digest, enlarged, middle, place, processor

PUBLISHED = RECORDED.parent / "published"


def difference(a: Image.Image, b: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(a.convert("RGB"), dtype=int) - np.asarray(b.convert("RGB"), dtype=int))


@pytest.mark.slow
@pytest.mark.parametrize(("example", "preset"), cases())
def test_the_shipped_examples_have_not_changed(pipe: DEFPipeline, example: str, preset: str) -> None:
    """Byte for byte on the kind of processor that recorded them; elsewhere up to rounding."""
    record = json.loads((RECORDED / "examples.json").read_text())
    found = enlarged(pipe, example, preset)
    if record["processor"] == processor():
        assert digest(found) == record["hashes"][f"{example}/{preset}"]
    left, top = place(example, preset)
    part = middle(found)
    with Image.open(RECORDED / "examples.png") as sheet:
        wanted = sheet.crop((left, top, left + part.width, top + part.height))
    off = difference(part, wanted)
    assert off.mean() < 0.25 and (off > 1).mean() < 0.02  # where rounding changes a match, a few pixels differ more


def test_an_old_checkpoint_loads_and_gives_the_same_result() -> None:
    pipe = DEFPipeline.from_pretrained(PUBLISHED)
    pipe.set_progress_bar_config(disable=True)
    references = [picture(60, 80), picture(40, 48)]
    # without refining, and with the preset as it was: both have changed on purpose since
    options = {"preset": "detail", "num_inference_steps": 4, "prior_strength": 0.2}
    options |= {"precision": "float32", "refine": False}
    result = pipe(small(14, 18), references, generator=generator(), **options).images[0]
    with Image.open(PUBLISHED / "result.png") as wanted:
        assert difference(result, wanted).max() <= 1
