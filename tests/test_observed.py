"""The pipeline on files that are not clean: it assumes what was asked for, and the result agrees with the file."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import DEFPipeline
from def_hub.images import to_pil
from def_hub.observation.degradation import PLANES, Degradation, degrade, planes
from def_hub.observation.downsample import Downsample
from def_hub.observation.observed import observed

from .conftest import EXAMPLES
from .helpers.pictures import generator, picture, small

pytestmark = pytest.mark.usefixtures("each_precision")


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "small.jpg"
    to_pil(small(48, 56)).save(path, quality=60, subsampling=0)
    return path


def test_a_jpeg_is_reproduced_coefficient_by_coefficient(tiny_pipe: DEFPipeline, jpeg: Path) -> None:
    """Seen from outside: the result shrunk by Pillow and saved again as the file was is the file."""
    output = tiny_pipe(jpeg, picture(96, 128), generator=generator(), degradation="auto")
    assert output.observation[0].degradation.quality == 60 and "JPEG, quality about 60" in output.observation[0].words
    assert output.agreement[0].share >= 0.995 and "coefficients are reproduced" in output.agreement[0].words
    again = jpeg.with_name("again.jpg")
    output.images[0].resize((56, 48), Image.Resampling.BICUBIC).save(again, quality=60, subsampling=0)
    with Image.open(jpeg) as one, Image.open(again) as other:
        same = np.asarray(one, dtype=int) - np.asarray(other, dtype=int)
    # one coefficient in 200 may differ, and shows in all 64 pixels of its block: 2.4 % of the pixels in half precision
    # on a processor without AVX-512, fewer elsewhere
    assert (np.abs(same) <= 1).mean() > 0.96
    exact = tiny_pipe(jpeg, picture(96, 128), generator=generator(), degradation="clean")
    assert exact.images[0].tobytes() != output.images[0].tobytes()


def test_a_picture_opened_from_memory_knows_its_file(tiny_pipe: DEFPipeline, jpeg: Path) -> None:
    """Pillow forgets a file without a name when it decodes it; it must be read before."""
    results = [
        tiny_pipe(source, generator=generator(), degradation="auto").images[0].tobytes()
        for source in (jpeg, Image.open(io.BytesIO(jpeg.read_bytes())), [Image.open(io.BytesIO(jpeg.read_bytes()))])
    ]
    assert results[0] == results[1] == results[2]


def test_what_a_user_says_counts(tiny_pipe: DEFPipeline) -> None:
    noisy = degrade(picture(96, 128), Degradation(noise=8.0)).picture
    told = tiny_pipe(noisy, generator=generator(), degradation="noise8")
    same = tiny_pipe(noisy, generator=generator(), degradation=Degradation(noise=8.0))
    assert told.images[0].tobytes() == same.images[0].tobytes()
    assert told.observation[0].degradation == Degradation(noise=8.0) and "noise" in told.agreement[0].words
    with pytest.raises(ValueError, match="degradation: expected clean, jpegQ, noiseS"):
        tiny_pipe(noisy, degradation="blurry")


def test_a_clean_picture_is_what_it_was(tiny_pipe: DEFPipeline) -> None:
    with Image.open(EXAMPLES / "street_lr.png") as street:  # what is drawn for tests is too smooth for a photograph
        lr = street.convert("RGB").crop((20, 30, 68, 70))
    clean, auto = (tiny_pipe(lr, picture(96, 128), generator=generator(), degradation=d) for d in ("clean", "auto"))
    assert clean.images[0].tobytes() == auto.images[0].tobytes()
    assert clean.observation[0].degradation == Degradation() and clean.agreement[0].error * 255 <= 2


@pytest.mark.parametrize("scale", (2, 6))
def test_it_agrees_at_other_scales(tiny_pipe: DEFPipeline, jpeg: Path, scale: int) -> None:
    output = tiny_pipe(jpeg, generator=generator(), degradation="auto", scale=scale)
    assert output.images[0].size == (56 * scale, 48 * scale) and output.agreement[0].share >= 0.995


def test_networks_are_given_planes_and_references_the_same_degradation() -> None:
    y = small(10, 12)
    known = observed(y, "noise10+jpeg50", Downsample())
    seen = known.seen_by(y, len(PLANES))
    assert seen.shape == (1, 3 + len(PLANES), 10, 12) and torch.equal(seen[:, :3], y)
    assert torch.equal(seen[0, 3:, 4, 7], planes(Degradation(noise=10.0, quality=50)))
    assert known.seen_by(y, 0) is y and observed(y, "clean", Downsample()).seen_by(y, 9) is y
    sharp = picture(40, 48)
    theirs = known.degraded(sharp, Downsample())
    assert torch.equal(theirs, degrade(sharp, Degradation(noise=10.0, quality=50)).picture)
    assert torch.equal(
        observed(y, "clean", Downsample()).degraded(sharp, Downsample()), Downsample().forward(sharp).clamp(0, 1)
    )
