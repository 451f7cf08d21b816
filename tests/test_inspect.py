"""`def-hub inspect`, and the sizes and degradations of `def-hub upscale`."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .conftest import Run


def test_a_size_a_scale_and_what_degraded_the_picture(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "small.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path, quality=50)
    status, out, _ = run("inspect", path)
    assert status == 0 and "JPEG, quality about 50 (from the file" in out
    record = json.loads(run("inspect", path, "--json")[1])
    assert record["degradation"] == "jpeg50" and record["from_the_file"]
    status, _, err = run("inspect", path, tmp_path / "none.png")
    assert status == 1 and "no such file" in err
    common = ("upscale", path, "--model", tiny_model, "--degradation", "auto")
    for options, size in ((("--scale", 2), (96, 80)), (("--width", 120), (120, 100)), (("--height", 240), (288, 240))):
        assert run(*common, *options, "-o", tmp_path / "large.png")[0] == 0
        with Image.open(tmp_path / "large.png") as large:
            assert large.size == size
    status, _, err = run(*common, "--width", 1000, "-o", tmp_path / "large.png")
    assert status == 2 and "size: expected 48x40 to 384x320" in err
