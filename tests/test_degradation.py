"""Named degradations are Pillow's words; one description is made, printed and read again alike."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from def_hub.images import to_pil
from def_hub.observation.degradation import PLANES, Degradation, degrade, planes

from .helpers.pictures import picture


def _pixels(degradation: str) -> np.ndarray:
    return degrade(picture(96, 128), Degradation.parse(degradation)).picture[0].permute(1, 2, 0).mul(255).numpy()


def _small(filter: Image.Resampling = Image.Resampling.BICUBIC, blur: float = 0) -> Image.Image:
    large = to_pil(picture(96, 128))
    return (large.filter(ImageFilter.GaussianBlur(blur)) if blur else large).resize((32, 24), filter)


def _noisy(image: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, sigma, np.asarray(image).shape)
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).round().astype(np.uint8))


def _saved(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


NAMED = {
    "clean": lambda: _small(),
    "jpeg90": lambda: _saved(_small(), 90),
    "jpeg40": lambda: _saved(_small(), 40),
    "noise5": lambda: _noisy(_small(), 5),
    "noise15": lambda: _noisy(_small(), 15),
    "blur3": lambda: _small(blur=3),
    "nearest": lambda: _small(Image.Resampling.NEAREST),
    "box": lambda: _small(Image.Resampling.BOX),
    "lanczos": lambda: _small(Image.Resampling.LANCZOS),
    "phone": lambda: _saved(_noisy(_small(blur=1.5), 6), 60),
}


@pytest.mark.parametrize("name", NAMED)
def test_names_are_what_pillow_makes(name: str) -> None:
    assert np.abs(_pixels(name) - np.asarray(NAMED[name](), dtype=np.float32)).max() < 1e-3


def test_jpeg_hands_out_the_file() -> None:
    degraded = degrade(picture(96, 128), Degradation(quality=70, subsampling="4:4:4"))
    assert degraded.file is not None
    again = np.asarray(Image.open(io.BytesIO(degraded.file)), dtype=np.float32) / 255
    assert torch.equal(degraded.picture[0].permute(1, 2, 0), torch.from_numpy(again))
    assert degrade(picture(96, 128), Degradation()).file is None


def test_names_are_read_as_they_are_printed() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        drawn = Degradation.random(rng)
        rounded = replace(drawn, blur=round(drawn.blur, 3), noise=round(drawn.noise, 3), subsampling="4:2:0")
        assert Degradation.parse(str(rounded)) == rounded
    assert str(Degradation.parse("clean")) == "clean"
    assert Degradation.parse("phone") == Degradation(blur=1.5, noise=6, quality=60)


def test_what_is_drawn_for_training() -> None:
    rng = np.random.default_rng(2)
    drawn = [Degradation.random(rng) for _ in range(3000)]
    clean = sum(d == Degradation() for d in drawn) / len(drawn)
    assert 0.30 < clean < 0.37
    assert {d.kernel for d in drawn} == {"bicubic", "box", "lanczos", "bilinear", "nearest"}
    assert all(d.blur == 0 or 0.3 <= d.blur <= 4 for d in drawn)
    assert all(d.noise == 0 or 1 <= d.noise <= 20 for d in drawn)
    assert all(d.quality is None or 30 <= d.quality <= 95 for d in drawn)
    assert any(d.blur and d.noise and d.quality for d in drawn)
    assert {d.subsampling for d in drawn if d.quality} == {"4:4:4", "4:2:0"}
    assert [Degradation.random(np.random.default_rng(3)) for _ in range(2)][0] == Degradation.random(
        np.random.default_rng(3)
    )


def test_planes_are_zero_for_clean_and_grow_with_the_damage() -> None:
    assert not planes(Degradation()).any()
    for name, worse in (("noise5", "noise15"), ("blur1", "blur3"), ("jpeg90", "jpeg40")):
        mild, strong = planes(Degradation.parse(name)), planes(Degradation.parse(worse))
        assert mild.shape == (len(PLANES),) and (strong >= mild).all() and strong.sum() > mild.sum() > 0
        assert strong.max() <= 1.3
    assert planes(Degradation("lanczos"))[PLANES.index("lanczos")] == 1


def test_the_steps_are_those_of_the_files_tables() -> None:
    for quality in (35, 60, 92):
        file = degrade(picture(96, 128), Degradation(quality=quality)).file
        assert file is not None
        tables = Image.open(io.BytesIO(file)).quantization  # type: ignore[attr-defined]
        told = (planes(Degradation(quality=quality))[1:3] * 8) ** 2
        for index in (0, 1):
            assert told[index] == pytest.approx(np.mean(tables[index]), rel=0.05)


@pytest.mark.parametrize("name", ["jpeg", "jpeg0", "jpeg101", "noise-3", "blurry", "", "noise500", "clean jpeg70"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        Degradation.parse(name)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        degrade(picture(90, 128), Degradation())
    with pytest.raises(ValueError, match="subsampling"):
        Degradation(subsampling="4:1:1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernel"):
        Degradation("sinc")  # type: ignore[arg-type]
