"""Of a picture that is too large, a part or a shrunk copy."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from def_hub import images
from def_hub.crop import Crop, shrunk, within
from def_hub.estimate import estimate, largest_that_fits
from def_hub.images import Photo
from def_hub.service.call import RunOptions
from def_hub.service.session import Session
from def_hub.service.uploads import MAX_GIVEN_PIXELS, MAX_PHOTO_PIXELS, check_photo, check_reference


def noise(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_a_part_is_named_as_it_is_read() -> None:
    part = Crop.parse("30x20+5+7")
    assert (part.left, part.top, part.width, part.height) == (5, 7, 30, 20) and Crop.parse(str(part)) == part
    whole = Photo(noise(40, 50), noise(40, 50)[:, :1])
    cut = part.of(whole)
    assert torch.equal(cut.picture, whole.picture[..., 7:27, 5:35])
    assert cut.alpha is not None and torch.equal(cut.alpha, whole.alpha[..., 7:27, 5:35])
    for wrong in ("", "30x20", "30x20-5+7", "30x20+5+7 x", "-30x20+5+7"):
        with pytest.raises(ValueError, match="crop: expected WIDTHxHEIGHT"):
            Crop.parse(wrong)
    for outside in ("30x20+21+0", "30x20+0+21", "7x20+0+0", "30x7+0+0"):
        with pytest.raises(ValueError, match="inside 50x40"):
            Crop.parse(outside).of(whole)


def test_a_shrunk_copy_is_what_pillow_makes() -> None:
    """The networks take small pictures to be made like that."""
    whole = images.to_tensor(images.to_pil(noise(60, 90)))
    small = shrunk(Photo(whole, whole[:, :1]), (20, 31))
    pillow = images.to_tensor(images.to_pil(whole).resize((31, 20), Image.Resampling.BICUBIC))
    assert (small.picture - pillow).abs().max() < 1.5 / 255  # it rounds between rows and columns
    assert small.alpha is not None and torch.equal(small.alpha, small.picture[:, :1])


def test_sizes_keep_their_shape_within_a_limit() -> None:
    assert within((30, 40), 1200) == (30, 40)
    height, width = within((3000, 4000), 1_000_000)
    assert 0.995e6 < height * width <= 1e6 and width / height == pytest.approx(4 / 3, rel=2e-3)


def test_the_largest_that_fits_does_and_a_larger_one_does_not() -> None:
    limit, references = 400_000_000, [(600, 800)]
    size = largest_that_fits((900, 1200), references, limit, "fast")
    assert size is not None and size != (900, 1200) and size[1] / size[0] == pytest.approx(4 / 3, rel=0.01)
    assert estimate(size, references, "fast").bytes <= limit
    assert estimate((size[0] + 4, size[1] + 4), references, "fast").bytes > limit
    assert largest_that_fits((30, 40), references, limit) == (30, 40)
    assert largest_that_fits((900, 1200), references, None) == (900, 1200)
    assert largest_that_fits((900, 1200), references, 1000) is None


def test_of_a_large_photograph_a_part_or_a_shrunk_copy_is_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (1600, 1000), (40, 80, 120)).save(tmp_path / "holiday.jpg")
    with pytest.raises(ValueError, match=r"at most 1 million are taken. Shrink it to 1264×790 first \(fit\), or cut"):
        check_photo(tmp_path / "holiday.jpg")
    session, options = Session(), RunOptions()
    given = check_photo(tmp_path / "holiday.jpg", MAX_GIVEN_PIXELS)
    assert given.is_large
    session.give_part_of(given)
    session.set_smaller(None, session.largest(given.size, options))
    assert session.photo is not None and session.photo.size == within(given.size, MAX_PHOTO_PIXELS)
    assert session.names["input"] == "holiday.jpg" and "shrunk to 1264x790" in session.names["input_made_from"]
    session.give_part_of(None)  # of the one shown, which was made of the same
    assert session.given == given
    session.set_smaller(Crop.parse("200x100+1400+900"), None)
    assert session.photo.size == (100, 200) and not session.photo.is_large
    session.example = "street"
    session.set_uploads([given])
    session.give_part_of(None)
    session.set_smaller(Crop.parse("100x100+0+0"), None)
    assert session.example is None and session.uploads == [given]  # references of an example serve a part of it, too
    with pytest.raises(ValueError, match="at most 1 million pixels"):
        session.set_smaller(Crop.parse("1600x1000+0+0"), None)
    assert session.photo.size == (100, 100)


def test_transparency_survives_the_cut(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 48), (200, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 32, 48))
    picture.save(tmp_path / "logo.png")
    session = Session()
    session.give_part_of(check_photo(tmp_path / "logo.png"))
    session.set_smaller(Crop.parse("32x48+16+0"), None)
    assert session.photo is not None
    alpha = images.read_photo(session.photo.path).alpha
    assert alpha is not None and not alpha[..., :16].any() and alpha[..., 16:].all()


def test_heic_and_avif_are_taken(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="no pillow-heif")
    picture = Image.new("RGB", (64, 48), (40, 80, 120))
    heif.from_pillow(picture).save(tmp_path / "phone.heic")
    picture.save(tmp_path / "phone.avif")
    for name in ("phone.heic", "phone.avif"):
        upload = check_reference(str(tmp_path / name))
        assert upload.size == (48, 64)
        copy = upload.copy_to(tmp_path / "copy")
        assert (images.to_tensor(copy) - images.to_tensor(picture)).abs().max() < 8 / 255


def test_where_heic_cannot_be_read_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from def_hub import formats

    without = tuple(name for name in formats._formats() if name != "HEIF")
    monkeypatch.setattr(formats, "_formats", lambda: without)
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(ValueError, match=r"phone.heic is a HEIC photograph; .*pip install 'def-hub\[heic\]'"):
        check_reference(str(tmp_path / "phone.heic"))
