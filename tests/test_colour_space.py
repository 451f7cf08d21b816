"""A result that is kept in the colour space of its input: converted back, and tagged with the input's own profile."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import colour, images, png
from def_hub.colour_space import ColourSpace

from .conftest import Run
from .fuzz import mutated
from .helpers.profiles import (
    ADOBE,
    P3,
    PROFILES,
    SRGB,
    colours,
    gamma_curve,
    icc,
    in_profile,
    lab,
    levels,
    srgb_curve,
    tables,
)

BOTH, ONE_WAY = tables(P3, 2.2), tables(P3, 2.2, both=False)
GREY = icc((), gamma_curve(1.8), b"GRAY")


def numbers(path: Path) -> np.ndarray:
    """What is stored, and nothing of what it means."""
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("profile", [*PROFILES.values(), BOTH], ids=[*PROFILES, "tables"])
def test_there_and_back(tmp_path: Path, profile: bytes, suffix: str) -> None:
    given, back = tmp_path / f"given{suffix}", tmp_path / f"back{suffix}"
    in_profile(colours(), profile).save(given, icc_profile=profile, lossless=True)
    photo = images.read_photo(given)
    assert levels(photo.picture, images.to_tensor(colours())) <= 2  # it is converted at all
    assert np.abs(numbers(given) - np.asarray(colours()).astype(int)).max() > 8
    images.save_image(photo.picture, back, space=photo.space)
    assert np.abs(numbers(back) - numbers(given)).max() <= 1
    with Image.open(back) as written:
        assert written.info["icc_profile"] == profile


@pytest.mark.parametrize("primaries", [P3, ADOBE], ids=["p3", "adobe"])
def test_sixteen_bits_keep_their_precision(tmp_path: Path, primaries: tuple) -> None:
    given = np.random.default_rng(0).integers(26_000, 40_000, (16, 24, 3), dtype=np.uint16)  # inside sRGB
    (tmp_path / "given.png").write_bytes(png.write16(given, 6, icc(primaries, gamma_curve(2.2))))
    photo = images.read_photo(tmp_path / "given.png")
    images.save_image(photo.picture, tmp_path / "back.png", bits=16, space=photo.space)
    data = (tmp_path / "back.png").read_bytes()
    start = data.index(b"iCCP") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    (tmp_path / "untagged.png").write_bytes(data[:start] + data[start + 12 + length :])
    stored = images.to_array16(images.to_tensor(tmp_path / "untagged.png")).astype(int)
    assert np.abs(stored - given).max() <= 2  # of 65535; 8 bits would leave 128
    assert levels(images.to_tensor(tmp_path / "untagged.png"), photo.picture) > 1


def test_what_is_beyond_srgb_is_cut_off(tmp_path: Path) -> None:
    """All is computed in sRGB: the red of Display P3 comes back as the red of sRGB in P3's numbers, not as sRGB's."""
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    red.save(tmp_path / "given.png", icc_profile=PROFILES["p3"])
    photo = images.read_photo(tmp_path / "given.png")
    images.save_image(photo.picture, tmp_path / "back.png", space=photo.space)
    expected = np.asarray(in_profile(red, PROFILES["p3"])).astype(int)
    assert np.abs(numbers(tmp_path / "back.png") - expected).max() <= 1
    assert expected[0, 0].tolist() != [255, 0, 0]
    assert levels(images.to_tensor(tmp_path / "back.png"), photo.picture) <= 1.01


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".png", 16), (".webp", 8), (".tif", 8)])
def test_transparency_stays(tmp_path: Path, suffix: str, bits: int) -> None:
    alpha = torch.linspace(0, 1, 48).expand(1, 1, 40, 48).clone()
    four = torch.cat((images.to_tensor(colours()), alpha), 1)
    space = ColourSpace("RGBA", PROFILES["p3"])
    images.save_image(four, tmp_path / f"a{suffix}", bits=bits, space=space)
    photo = images.read_photo(tmp_path / f"a{suffix}")
    assert photo.alpha is not None and levels(photo.alpha, alpha) <= 0.51
    assert photo.space == space
    seen = alpha[0, 0] > 0
    assert levels(photo.picture[..., seen], four[:, :3][..., seen]) <= 2


@pytest.mark.parametrize("profile", [b"", b"nonsense" * 40, PROFILES["p3"][:200], ONE_WAY[:3000], GREY])
def test_what_was_taken_as_srgb_stays_srgb(tmp_path: Path, profile: bytes) -> None:
    """No profile, damaged ones, one of grey in a picture of colours: as when the file was read."""
    colours().save(tmp_path / "a.png", icc_profile=profile)
    photo = images.read_photo(tmp_path / "a.png")
    images.save_image(photo.picture, tmp_path / "b.png", space=photo.space)
    images.save_image(photo.picture, tmp_path / "c.png")
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_the_files_own_profile_of_srgb_stays(tmp_path: Path) -> None:
    own = icc(SRGB, srgb_curve())
    colours().save(tmp_path / "a.png", icc_profile=own)
    photo = images.read_photo(tmp_path / "a.png")
    images.save_image(photo.picture, tmp_path / "b.png", space=photo.space)
    assert np.array_equal(numbers(tmp_path / "b.png"), np.asarray(colours()))
    with Image.open(tmp_path / "b.png") as written:
        assert written.info["icc_profile"] == own != colour.srgb_profile()


def adobe_by_exif() -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    exif[0x8769] = exif.get_ifd(0x8769)
    return exif


REFUSED = {
    "cmyk.jpg": (lambda: colours().convert("CMYK"), {}, 8, "which is CMYK"),
    "lab.tif": (lambda: lab(colours()), {}, 8, "which is LAB"),
    "grey.png": (lambda: colours().convert("L"), {"icc_profile": GREY}, 8, "which is grey"),
    "one-way.png": (colours, {"icc_profile": ONE_WAY}, 8, "tables for reading only"),
    "tables.png": (colours, {"icc_profile": BOTH}, 16, "in 8 bits: ask for 8"),
    "flat.png": (colours, {"icc_profile": icc(((0.4,) * 3,) * 3, gamma_curve(2))}, 8, "cannot be inverted"),
    "exif.png": (colours, {"exif": adobe_by_exif()}, 8, "no profile that a result could be tagged with"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_one_line_before_any_work(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, options, bits, words = REFUSED[name]
    make().save(tmp_path / name, **options)
    photo = images.read_photo(tmp_path / name)
    with pytest.raises(ValueError, match=words):
        images.save_image(photo.picture, tmp_path / "out.png", bits=bits, space=photo.space)

    def load(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("def_hub.cli.upscale.load", load)
    status, out, err = run(
        "upscale", tmp_path / name, "-o", tmp_path / "out.png", "--color-space", "input", "--bits", bits
    )
    assert status == 2 and not out and len(err.splitlines()) == 1
    assert err.startswith(f"def-hub: error: image {tmp_path / name}: the result cannot be kept") and words in err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers that a damaged profile leads to
@pytest.mark.parametrize("profile", [*PROFILES.values(), BOTH], ids=[*PROFILES, "tables"])
def test_damaged_profiles_convert_or_say_why_not(profile: bytes) -> None:
    rng = random.Random(0)
    pixels = np.linspace(0, 1, 8 * 8 * 3, dtype=np.float32).reshape(8, 8, 3)
    for _ in range(100):
        space = ColourSpace("RGB", mutated(profile, rng))
        if not space.obstacle():
            converted = space.from_srgb(pixels)
            assert converted.shape == pixels.shape and 0 <= converted.min() and converted.max() <= 1


def test_only_tensors_of_colours_are_converted(tmp_path: Path) -> None:
    space = ColourSpace("RGB", PROFILES["p3"])
    with pytest.raises(ValueError, match="from a tensor only"):
        images.save_image(colours(), tmp_path / "a.png", space=space)
    with pytest.raises(ValueError, match="expected 3 or 4 channels, got 1"):
        images.save_image(torch.zeros(1, 8, 8), tmp_path / "a.png", space=space)
    assert not (tmp_path / "a.png").exists()


def test_the_command_keeps_each_picture_of_a_folder_in_its_own(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    """In colours the results are those without the option; the one that cannot be kept costs no other."""
    folder = tmp_path / "in"
    folder.mkdir()
    small = colours().crop((0, 0, 16, 16))
    clear = in_profile(small, PROFILES["adobe"])
    clear.putalpha(Image.linear_gradient("L").resize((16, 16)))
    in_profile(small, PROFILES["p3"]).save(folder / "p3.png", icc_profile=PROFILES["p3"])
    clear.save(folder / "adobe.png", icc_profile=PROFILES["adobe"])
    small.save(folder / "plain.png")
    small.convert("CMYK").save(folder / "print.tif")
    words = ["--model", tiny_model, "--device", "cpu", "--steps", 1, "--degradation", "clean"]
    assert run("upscale", folder, "-o", tmp_path / "srgb", *words)[0] == 0
    for bits in (8, 16):
        kept = tmp_path / f"kept{bits}"
        status, _, err = run("upscale", folder, "-o", kept, "--color-space", "input", "--bits", bits, *words)
        assert status == 1 and err.count("which is CMYK") == 1 and "1 of 4 pictures failed" in err
        assert {path.name for path in kept.iterdir()} == {"p3.png", "adobe.png", "plain.png"}
        for name, profile in (("p3", PROFILES["p3"]), ("adobe", PROFILES["adobe"]), ("plain", colour.srgb_profile())):
            with Image.open(kept / f"{name}.png") as written, Image.open(tmp_path / f"srgb/{name}.png") as srgb:
                assert written.info["icc_profile"] == profile
                assert written.mode == srgb.mode == ("RGBA" if name == "adobe" else "RGB")
                expected = in_profile(srgb.convert("RGB"), profile)
                difference = np.abs(np.asarray(written)[..., :3].astype(int) - np.asarray(expected))
                assert (difference <= 1).mean() > 0.99 and difference.max() <= 6, name  # in the dark, 8 bits are coarse
                assert np.abs(np.asarray(written)[..., 3:].astype(int) - np.asarray(srgb)[..., 3:]).max(initial=0) <= 1
    assert not np.array_equal(numbers(tmp_path / "kept8/p3.png"), numbers(tmp_path / "srgb/p3.png"))
