"""Colours of files: whatever the file's numbers mean, the same colours give the same picture."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from def_hub import colour, images, png

from .helpers.profiles import PROFILES, SRGB, colours, gamma_curve, icc, in_profile, lab, levels


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", {}),
        (".webp", {"lossless": True}),
        (".tif", {}),
        (".jpg", {"quality": 100, "subsampling": 0}),
        (".avif", {"quality": 100, "subsampling": "4:4:4"}),
        (".heic", {"quality": -1}),
    ],
)
def test_the_same_colours_are_the_same_picture(tmp_path: Path, profile: str, suffix: str, options: dict) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path, other = tmp_path / f"plain{suffix}", tmp_path / f"other{suffix}"
    colours().save(path, **options)
    in_profile(colours(), PROFILES[profile]).save(other, icc_profile=PROFILES[profile], **options)
    plain = images.to_tensor(path)
    lossy = 8 if suffix in (".jpg", ".avif", ".heic") else 0
    assert levels(images.to_tensor(other), plain) <= 2 + lossy
    assert (images.to_tensor(other) - plain).abs().mean() * 255 < 0.5 + lossy / 8
    assert levels(images.to_tensor(Image.open(other)), images.to_tensor(other)) == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_curves_and_primaries_agree_with_little_cms(profile: str) -> None:
    steps = np.linspace(0, 255, 12).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(36, 48, 3)
    image = Image.fromarray(cube)
    image.info["icc_profile"] = PROFILES[profile]
    source = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[profile]))
    theirs = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    assert theirs is not None
    ours = np.asarray(images.to_pil(images.to_tensor(image))).astype(int)
    assert np.abs(ours - np.asarray(theirs)).max() <= 1


def test_profiles_with_tables_go_through_little_cms(monkeypatch: pytest.MonkeyPatch) -> None:
    image = in_profile(colours(), PROFILES["p3"])
    image.info["icc_profile"] = PROFILES["p3"]
    expected = images.to_tensor(image)
    monkeypatch.setattr(colour, "parsed", lambda profile: None)
    assert levels(images.to_tensor(image), expected) <= 1.5
    transparent = image.copy()
    transparent.putalpha(255)
    assert levels(images.to_tensor(transparent), expected) <= 1.5


def test_lab_and_cmyk(tmp_path: Path) -> None:
    source = colours()
    lab(source).save(tmp_path / "lab.tif")
    expected = images.to_tensor(source)
    difference = images.to_tensor(tmp_path / "lab.tif") - expected  # 8 bits of LAB are coarse
    assert difference.abs().mean() * 255 < 2 and difference.mean().abs() * 255 < 1
    source.convert("CMYK").save(tmp_path / "cmyk.tif")
    assert levels(images.to_tensor(tmp_path / "cmyk.tif"), expected) <= 2


def test_grey_profiles(tmp_path: Path) -> None:
    linear = np.linspace(0, 1, 24 * 16).reshape(16, 24)
    profile = icc((), gamma_curve(1.0), b"GRAY")
    Image.fromarray(np.rint(linear * 255).astype(np.uint8)).save(tmp_path / "grey.png", icc_profile=profile)
    seen = images.to_tensor(tmp_path / "grey.png")[0, 0].double().numpy()
    decoded = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)
    assert np.abs(decoded - linear).max() <= 0.51 / 255


def test_sixteen_bits_keep_their_precision(tmp_path: Path) -> None:
    """A linear file: 8 bits would leave a few dozen of the dark levels, and errors of several."""
    ramp = np.linspace(0, 0.05, 4096).reshape(64, 64)
    pixels = np.rint(np.repeat(ramp[..., None], 3, 2) * 65535).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(png.write16(pixels, 6, icc(SRGB, gamma_curve(1.0))))
    seen = images.to_tensor(tmp_path / "deep.png")[0, 1].double().numpy()
    expected = np.where(ramp <= 0.0031308, 12.92 * ramp, 1.055 * ramp ** (1 / 2.4) - 0.055)
    assert np.abs(seen - expected).max() < 0.2 / 255


def with_chunks(image: Image.Image, *chunks: tuple[bytes, bytes]) -> io.BytesIO:
    """The image as a PNG with chunks before its pixels."""
    file = io.BytesIO()
    image.save(file, "PNG")
    data = file.getvalue()
    inserted = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return io.BytesIO(data[:33] + inserted + data[33:])


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(xy: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in xy))


def test_gamma_and_primaries_of_png() -> None:
    plain = images.to_tensor(colours())
    steps = np.asarray(colours()) / 255
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    raised = Image.fromarray(np.rint(linear ** (1 / 1.4) * 255).astype(np.uint8))
    assert levels(images.to_tensor(Image.open(with_chunks(raised, gama(1 / 1.4)))), plain) <= 2
    adobe = in_profile(colours(), PROFILES["adobe"])
    chunks = gama(256 / 563), chrm(colour.ADOBE_CHROMATICITY)
    assert levels(images.to_tensor(Image.open(with_chunks(adobe, *chunks))), plain) <= 2
    assert levels(images.to_tensor(adobe), plain) > 8
    p3 = in_profile(colours(), PROFILES["p3"])
    xy = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
    assert levels(images.to_tensor(Image.open(with_chunks(p3, gama(0.45455), chrm(xy)))), plain) <= 2
    # the usual ones, nonsense, and an sRGB chunk beside them change nothing
    for chunks in (
        (gama(0.45455), chrm(colour.SRGB_CHROMATICITY)),
        (gama(0.0),),
        (gama(0.45455), chrm((0,) * 8)),
        ((b"sRGB", b"\0"), gama(0.9)),
    ):
        assert torch.equal(images.to_tensor(Image.open(with_chunks(colours(), *chunks))), plain)


def test_adobe_rgb_that_only_exif_names(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    exif[0x8769] = exif.get_ifd(0x8769)
    in_profile(colours(), PROFILES["adobe"]).save(tmp_path / "camera.png", exif=exif)
    assert levels(images.to_tensor(tmp_path / "camera.png"), images.to_tensor(colours())) <= 2


@pytest.mark.parametrize("profile", [b"", b"x", b"nonsense" * 40, PROFILES["p3"][:200], colour.srgb_profile()])
def test_srgb_and_damaged_profiles_change_nothing(tmp_path: Path, profile: bytes) -> None:
    colours().save(tmp_path / "a.png", icc_profile=profile)
    assert torch.equal(images.to_tensor(tmp_path / "a.png"), images.to_tensor(colours()))


@pytest.mark.parametrize("suffix", images.SUFFIXES)
def test_results_are_tagged_and_the_same_bytes_each_time(tmp_path: Path, suffix: str) -> None:
    tensor = images.to_tensor(colours())
    for name in ("a", "b"):
        images.save_image(tensor, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    with Image.open(tmp_path / f"a{suffix}") as written:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(written.info["icc_profile"]))
    assert "sRGB" in ImageCms.getProfileDescription(profile)
    images.to_pil(tensor).save(tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as written:
        assert written.info["icc_profile"] == colour.srgb_profile()
    images.save_image(tensor, tmp_path / "deep.png", bits=16)
    with Image.open(tmp_path / "deep.png") as written:
        assert written.info["icc_profile"] == colour.srgb_profile()
