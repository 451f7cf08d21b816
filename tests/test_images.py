"""`images`: exact round trips at every size, every mode of Pillow, and refusals that name the culprit."""

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub import formats, images
from def_hub.images import saving

SIZES = [(8, 8), (11, 13), (97, 101), (64, 8), (17, 256)]  # (height, width), primes included


def random_pixels(height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    generator = np.random.default_rng(height * 1000 + width)
    return generator.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_eight_bit_files_round_trip_exactly(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    pixels = random_pixels(*size)
    path = tmp_path / f"picture{suffix}"
    images.save_image(images.to_tensor(pixels), path)
    tensor = images.to_tensor(path)
    assert tensor.shape == (1, 3, *size) and tensor.dtype == torch.float32
    assert np.array_equal(np.asarray(images.to_pil(tensor)), pixels)
    assert torch.equal(tensor, images.to_tensor(Image.open(path)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_png_round_trips_exactly(tmp_path: Path, size: tuple[int, int], channels: int) -> None:
    pixels = random_pixels(*size, channels, np.uint16)
    tensor = images.to_tensor(pixels)
    path = tmp_path / "deep.png"
    images.save_image(tensor[:, :channels], path, bits=16)
    with Image.open(path) as written:  # an independent reader sees the same picture
        assert written.size == size[::-1] and written.mode == ("RGB" if channels == 3 else "I;16")
        written.load()
    expected = np.repeat(pixels, 3, axis=2) if channels == 1 else pixels
    assert np.array_equal(images.to_array16(images.to_tensor(path)), expected)


def test_sixteen_bit_colour_is_turned_upright_with_both_bytes(tmp_path: Path) -> None:
    pixels = random_pixels(12, 20, 3, np.uint16)
    path = tmp_path / "deep.png"
    images.save_image(images.to_tensor(pixels), path, bits=16)
    data = path.read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    end = data.rindex(b"IEND") - 4
    path.write_bytes(data[:end] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[end:])
    assert np.array_equal(images.to_array16(images.to_tensor(path)), np.rot90(pixels, -1))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(random_pixels(16, 24))
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored a quarter turn counter-clockwise, shown clockwise
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    assert np.array_equal(np.asarray(images.to_pil(images.to_tensor(path))), np.asarray(upright))


def test_alpha_is_laid_over_white() -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 255, 51  # a fifth of red
    expected = torch.tensor([1.0, 0.8, 0.8]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    for image in (rgba, Image.fromarray(rgba), (rgba / 255).astype(np.float32)):
        assert torch.allclose(images.to_tensor(image), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"])
def test_every_mode_of_pillow_is_understood(mode: str) -> None:
    grey = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (16, 1))
    image = Image.fromarray(grey)
    if mode in ("I;16", "I"):
        deep = Image.fromarray(grey.astype(np.uint16) * 257)
        image = deep if mode == "I;16" else Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        image = image.convert("LA" if mode == "PA" else "RGB").convert(mode)
    tensor = images.to_tensor(image)
    expected = torch.from_numpy(grey / 255).float().expand(1, 3, 16, 16)
    if mode == "1":
        assert set(tensor.unique().tolist()) == {0.0, 1.0}
    else:
        tolerance = 0.07 if mode == "P" else 2.01 / 255  # P: Pillow's web palette has few greys
        assert (tensor - expected).abs().max() <= tolerance


def test_palette_transparency_is_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.info["transparency"] = 0
    assert images.to_tensor(image).min() == 1


def test_arrays_and_tensors_agree_with_the_file_they_came_from() -> None:
    pixels = random_pixels(9, 14)
    expected = images.to_tensor(Image.fromarray(pixels))
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    for image in (
        pixels,
        pixels.astype(np.float64) / 255,
        chw,
        chw[None],
        chw.float() / 255,
        chw.double()[None] / 255,
    ):
        assert torch.allclose(images.to_tensor(image), expected, atol=1e-7)
    grey = images.to_tensor(chw[:1])
    assert torch.equal(grey, expected[:, :1].expand(1, 3, 9, 14))
    assert torch.equal(images.to_tensor(pixels[..., 0]), grey) and torch.equal(images.to_tensor(pixels[..., :1]), grey)


def test_the_callers_data_is_never_shared() -> None:
    source = torch.rand(1, 3, 8, 8)
    before = source.clone()
    images.to_tensor(source).zero_()
    array = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    kept = array.copy()
    images.to_tensor(array).zero_()
    assert torch.equal(source, before) and np.array_equal(array, kept)


def opened(given: Any) -> list[torch.Tensor]:
    return [photo.picture for photo in images.to_photos(given)]


def test_to_photos_takes_one_many_or_a_batch() -> None:
    pixels = random_pixels(8, 10)
    single = images.to_tensor(pixels)
    for given, count in [(pixels, 1), ([pixels], 1), ((pixels, Image.fromarray(pixels)), 2)]:
        result = opened(given)
        assert len(result) == count and all(torch.equal(item, single) for item in result)
    batch = torch.rand(3, 3, 8, 10)
    assert torch.equal(torch.cat(opened(batch)), batch)
    assert torch.equal(torch.cat(opened(batch.permute(0, 2, 3, 1).numpy())), batch)


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (3, TypeError, "got int"),
        (None, TypeError, "got NoneType"),
        (np.zeros((8, 8, 2), np.uint8), ValueError, r"got shape \(8, 8, 2\)"),
        (np.zeros((8, 8, 3), np.int64), TypeError, "got int64"),
        (np.full((8, 8, 3), 255.0), ValueError, "from 0 to 1, got 255"),
        (np.full((8, 8), np.nan), ValueError, "from 0 to 1, got nan"),
        (torch.zeros(8, 8), ValueError, r"got shape \[8, 8\]"),
        (torch.zeros(2, 3, 8, 8), ValueError, r"got shape \[2, 3, 8, 8\]"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), TypeError, "got torch.int32"),
        (torch.zeros(3, 7, 9), ValueError, "at least 8×8 pixels, got 9×7"),
        (Image.new("RGB", (7, 400)), ValueError, "at least 8×8 pixels, got 7×400"),
        (Image.fromarray(np.full((8, 8), 70000, np.int32)), ValueError, "16-bit grey values, got 70000"),
    ],
)
def test_wrong_pictures_are_refused_by_name(image: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^reference: .*{words}"):
        images.to_tensor(image, "reference")  # type: ignore[arg-type]


def test_lists_name_the_item_and_refuse_to_be_empty() -> None:
    with pytest.raises(ValueError, match="^reference 2: "):
        images.to_photos([torch.zeros(3, 8, 8), torch.zeros(3, 2, 2)], "reference")
    with pytest.raises(ValueError, match="^reference: expected at least one picture"):
        images.to_photos([], "reference")


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="^image .*absent.png: no such file"):
        images.to_tensor(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="got a folder"):
        images.to_tensor(tmp_path)
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    with pytest.raises(ValueError, match=r"text.png: not a readable picture \(unknown format\)"):
        images.to_tensor(text)
    whole = tmp_path / "whole.png"
    images.save_image(images.to_tensor(random_pixels(64, 64)), whole)
    for cut in (40, 200, 5000):
        part = tmp_path / f"cut{cut}.png"
        part.write_bytes(whole.read_bytes()[:cut])
        with pytest.raises(ValueError, match=f"cut{cut}.png: not a readable picture"):
            images.to_tensor(part)


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    for width, height in [(10_000, 7_000), (30_000, 30_000)]:
        path = tmp_path / "huge.png"
        header = np.array([width, height], ">u4").tobytes() + bytes([1, 0, 0, 0, 0])
        body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        with pytest.raises(ValueError, match="huge.png: expected at most 68 million pixels"):
            images.to_tensor(path)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.png"
    images.save_image(torch.zeros(3, 8, 8), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="finite"):
        images.save_image(torch.full((3, 8, 8), float("nan")), path)
    with pytest.raises(ValueError, match=r"16 bits .* to \.png only"):
        images.save_image(torch.zeros(3, 8, 8), tmp_path / "a.jpg", bits=16)
    with pytest.raises(ValueError, match="expected a file name ending in"):
        images.save_image(torch.zeros(3, 8, 8), tmp_path / "a.bmp2")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_to_pil_rounds_and_clips() -> None:
    row = torch.tensor([-0.5, 0.0, 0.499 / 255, 0.501 / 255, 254.6 / 255, 1.0, 7.0, 0.5])
    values = np.asarray(images.to_pil(row.expand(1, 1, 8, 8)))[0]
    assert values.tolist() == [0, 0, 0, 1, 255, 255, 255, 128]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (8, 8), (13, 97)])
@pytest.mark.parametrize("multiple", [1, 4, 8, 64])
def test_padding_reaches_the_multiple_and_keeps_the_picture(size: tuple[int, int], multiple: int) -> None:
    x = torch.rand(2, 3, *size)
    padded = images.pad_to_multiple(x, multiple)
    height, width = padded.shape[-2:]
    assert height % multiple == 0 and width % multiple == 0 and height - size[0] < multiple
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    if size[0] > 1 and height > size[0]:
        assert torch.equal(padded[..., size[0], : size[1]], x[..., size[0] - 2, :])  # reflected, the edge not repeated
    assert padded.min() >= x.min() and padded.max() <= x.max()


def test_two_threads_may_write_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, save = threading.Barrier(2, timeout=60), saving._save8

    def save_together(*given: object) -> None:
        save(*given)
        both.wait()

    monkeypatch.setattr(saving, "_save8", save_together)
    pixels = random_pixels(9, 11)
    with ThreadPoolExecutor(2) as pool:
        written = [pool.submit(images.save_image, Image.fromarray(pixels), tmp_path / "same.png") for _ in range(2)]
    assert [future.result() for future in written] == [None, None]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "same.png")), pixels)


# ------------------------------------------------------------------ what cameras, editors and browsers write


def text_chunk(kind: bytes, size: int) -> bytes:
    data = b"a" * size
    return {
        b"tEXt": b"Comment\0" + data,
        b"zTXt": b"Comment\0\0" + zlib.compress(data),
        b"iTXt": b"Comment\0\1\0\0\0" + zlib.compress(data),
        b"iCCP": b"profile\0\0" + zlib.compress(data),
    }[kind]


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("count", [1, 40])
def test_large_chunks_of_png_are_left_out(tmp_path: Path, kind: bytes, place: str, count: int) -> None:
    """One that is too large, or many that are too large together."""
    path = tmp_path / "chunks.png"
    images.save_image(images.to_tensor(random_pixels(16, 24)), path, bits=16)
    expected, data = images.to_tensor(path), path.read_bytes()
    at = 33 if place == "before" else data.rindex(b"IEND") - 4
    size = 3_000_000 if count == 1 else 900_000
    large = png_chunk(kind, text_chunk(kind, size)) * (count if kind != b"iCCP" else 1)
    path.write_bytes(data[:at] + large + data[at:])
    assert torch.equal(images.to_tensor(path), expected)


def test_photographs_of_64_million_pixels_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    Image.new("L", (9280, 6944), 128).save(path, quality=50)
    small = images.read_photo(path, shorter_side=500).picture
    assert min(small.shape[-2:]) == 6944 // 8 and (small - 128 / 255).abs().max() < 0.01


@pytest.mark.parametrize(("enough", "side"), [(None, 400), (400, 400), (201, 400), (200, 200), (100, 100), (9, 50)])
def test_jpeg_is_decoded_as_small_as_is_enough(tmp_path: Path, enough: int | None, side: int) -> None:
    pixels = np.asarray(Image.fromarray(random_pixels(10, 15)).resize((600, 400), Image.Resampling.BICUBIC))
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    seen = images.read_photo(tmp_path / "a.jpg", shorter_side=enough).picture
    assert seen.shape[-2:] == (side, side * 3 // 2)
    expected = images.to_tensor(Image.fromarray(pixels).resize((seen.shape[3], seen.shape[2]), Image.Resampling.BOX))
    assert (seen - expected).abs().mean() < 0.01


def test_transparent_pixels_lend_no_colour() -> None:
    """Where it is transparent, the colour continues what is seen; over white it is what it always was."""
    pixels = np.zeros((16, 24, 4), np.uint8)
    pixels[4:12, 5:9] = (200, 50, 20, 255)
    pixels[4:12, 9:11] = (200, 50, 20, 100)
    for given in (pixels, pixels.astype(np.uint16) * 257):
        white = images.to_tensor(given)
        assert white[0, :, 0, 0].tolist() == [1, 1, 1]
    photo = images.to_photo(Image.fromarray(pixels))
    assert photo.alpha is not None and torch.equal(
        photo.alpha[0, 0], torch.from_numpy(pixels[..., 3] / np.float32(255))
    )
    expected = torch.tensor([200, 50, 20]).view(1, 3, 1, 1) / 255
    assert (photo.picture - expected).abs().max() < 1e-5
    assert torch.equal(photo.over_white(), images.to_tensor(pixels))


def test_four_channels_round_trip(tmp_path: Path) -> None:
    pixels = random_pixels(9, 11, 4)
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))
    for suffix in (".png", ".webp", ".tif", ".tiff"):
        images.save_image(tensor, tmp_path / f"a{suffix}")
        seen = np.asarray(Image.open(tmp_path / f"a{suffix}"))
        shown = seen[..., 3] > 0  # WebP is free to forget the others
        assert np.array_equal(seen[..., 3], pixels[..., 3]) and np.array_equal(seen[shown], pixels[shown])
    images.save_image(tensor, tmp_path / "deep.png", bits=16)
    deep = images.read_photo(tmp_path / "deep.png")
    assert deep.alpha is not None and torch.allclose(deep.alpha[0], tensor[3:], atol=1e-6)
    images.save_image(tensor, tmp_path / "a.jpg")
    assert (images.to_tensor(tmp_path / "a.jpg") - images.to_tensor(tmp_path / "a.png")).abs().mean() < 0.1


def test_pages_and_frames_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.fromarray(random_pixels(16, 16 + n)[:, :16]) for n in range(3)]
    for name, word in (("a.gif", "frames"), ("b.png", "frames"), ("c.webp", "frames"), ("d.tif", "pages")):
        options = {"lossless": True} if name == "c.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        caplog.clear()
        seen = images.to_tensor(tmp_path / name, "reference")
        assert f"reference {tmp_path / name}: a" in caplog.text and f"of 3 {word}, the first is taken" in caplog.text
        if name != "a.gif":
            assert torch.equal(seen, images.to_tensor(frames[0]))
    caplog.clear()
    images.save_image(images.to_tensor(frames[0]), tmp_path / "still.png")
    images.to_tensor(tmp_path / "still.png")
    assert not caplog.text


def test_heic_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setattr(formats, "_formats", lambda: ("PNG", "JPEG"))
    with pytest.raises(ValueError, match="phone.heic: not a readable picture .*pip install 'def-hub.heic.'"):
        images.to_tensor(tmp_path / "phone.heic")
    assert formats.is_picture(tmp_path / "phone.heic")


def test_heic_is_read_where_the_package_is(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    source = Image.fromarray(random_pixels(4, 6)).resize((96, 64), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.from_pillow(source).save(tmp_path / "phone.heic", quality=95, exif=exif.tobytes())
    expected = images.to_tensor(source.transpose(Image.Transpose.ROTATE_270))
    seen = images.to_tensor(tmp_path / "phone.heic")
    assert seen.shape == expected.shape and (seen - expected).abs().mean() < 0.02
    assert images.list_pictures(tmp_path) == [tmp_path / "phone.heic"]


def test_no_decoder_that_starts_programs_is_asked(tmp_path: Path) -> None:
    Image.fromarray(random_pixels(16, 16)).save(tmp_path / "a.eps")
    with pytest.raises(ValueError, match="a.eps: not a readable picture"):
        images.to_tensor(tmp_path / "a.eps")
    assert images.sort_files(tmp_path) == ([], [tmp_path / "a.eps"])


@pytest.mark.parametrize("suffix", images.SUFFIXES)
def test_what_the_camera_wrote_is_kept(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0132], exif[0x010F], exif[0x013B] = 8, "2024:05:06 07:08:09", "Maker", "Åsa"
    camera = exif.get_ifd(0x8769)
    camera[0x9003], camera[0xA002], camera[0x927C] = "2024:05:06 07:08:08", 24, b"secret" * 100
    exif[0x8769] = camera
    exif[0x8825] = {1: "N", 2: (47.0, 22.0, 11.0)}
    Image.fromarray(random_pixels(16, 24)).save(tmp_path / "camera.jpg", exif=exif, dpi=(72, 72))
    photo = images.read_photo(tmp_path / "camera.jpg")
    for name, bits in ((f"a{suffix}", 8), ("deep.png", 16)):
        images.save_image(photo.picture, tmp_path / name, bits=bits, metadata=photo.metadata)
        with Image.open(tmp_path / name) as written:
            written.load()
            kept = written.getexif()
            assert (kept[0x0112], kept[0x0132], kept[0x010F]) == (1, "2024:05:06 07:08:09", "Maker")
            assert kept.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:08"
            assert kept.get_ifd(0x8825)[1] == "N"
            assert 0x927C not in kept.get_ifd(0x8769) and kept.get_ifd(0x8769).get(0xA002) != 24
            assert suffix == ".webp" or written.info["dpi"][0] == pytest.approx(72, abs=0.1)
        assert images.to_tensor(tmp_path / name).shape == photo.picture.shape  # not turned a second time


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\1" * 50]
)
def test_damaged_exif_is_left_out(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(random_pixels(16, 16)).save(tmp_path / "a.jpg", exif=exif)
    photo = images.read_photo(tmp_path / "a.jpg")
    images.save_image(photo.picture, tmp_path / "b.jpg", metadata=photo.metadata)
    assert images.to_tensor(tmp_path / "b.jpg").shape == (1, 3, 16, 16)


def test_names_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".png")
    images.check_writable(path)
    images.save_image(torch.zeros(3, 8, 8), path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    for wrong in (tmp_path / ("y" * 252 + ".png"), tmp_path / ("z" * 256) / "a.png"):
        with pytest.raises(OSError, match="the name is too long"):
            images.check_writable(wrong)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "PCX"]
)
def test_a_damaged_file_is_a_picture_or_one_clear_error(tmp_path: Path, format: str) -> None:
    """Cut off anywhere, or with any bytes changed: nothing but a picture or a ValueError that names the file."""
    rng = np.random.default_rng(len(format))
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2024:05:06 07:08:09"
    options = {"exif": exif.tobytes()} if format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF") else {}
    whole = io.BytesIO()
    Image.fromarray(random_pixels(5, 6)).resize((32, 32)).save(whole, format, **options)
    path, outcomes = tmp_path / "damaged", set()
    for _ in range(120):
        data = bytearray(whole.getvalue())
        if rng.random() < 0.3:
            data = data[: rng.integers(len(data))]
        for at in rng.integers(0, max(len(data), 1), rng.integers(0, 8)) if data else ():
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            seen = images.to_tensor(path)
            outcomes.add("picture")
            assert seen.shape[:2] == (1, 3) and seen.dtype == torch.float32 and 0 <= seen.min() and seen.max() <= 1
        except ValueError as error:
            outcomes.add("error")
            assert str(error).startswith(f"image {path}: ") and len(str(error).splitlines()) == 1
    assert outcomes == {"picture", "error"}
