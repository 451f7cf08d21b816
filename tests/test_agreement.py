"""Projections onto what agrees with a file: idempotent, non-expansive, members stay, never further from any member."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub.images import to_pil, to_tensor
from def_hub.observation.agreement import observe
from def_hub.observation.degradation import Degradation, degrade
from def_hub.observation.downsample import Downsample, project_clipped
from def_hub.observation.jpeg import FROM_RGB, jpeg_of, read_jpeg
from def_hub.observation.jpeg_cells import JpegCells
from def_hub.observation.sets import Ball, Exact, KnownSet, Rounded

from .helpers.pictures import generator, picture

SIZES = ((48, 64), (37, 51), (43, 90))


def _file(height: int, width: int, grey: bool = False, **options: object) -> bytes:
    stream = io.BytesIO()
    image = to_pil(picture(height, width))
    (image.convert("L") if grey else image).save(stream, "JPEG", **options)  # type: ignore[arg-type]
    return stream.getvalue()


FILES = {
    "4:4:4": {"quality": 75, "subsampling": "4:4:4"},
    "4:2:2": {"quality": 60, "subsampling": "4:2:2"},
    "4:2:0": {"quality": 40, "subsampling": "4:2:0"},
    "grey": {"quality": 50, "grey": True},
    "progressive": {"quality": 70, "progressive": True, "subsampling": "4:2:0"},
}


def _jpeg(name: str, size: tuple[int, int], noise: float = 0) -> JpegCells:
    file = read_jpeg(_file(*size, **FILES[name]))  # type: ignore[arg-type]
    assert file is not None
    return JpegCells(file, noise)


def _norm(z: torch.Tensor, known: KnownSet) -> float:
    """In what "nearest" is measured: for JPEG in Y, Cb and Cr."""
    if isinstance(known, JpegCells):
        z = torch.einsum("cd,bdhw->bchw", FROM_RGB.to(z), z)
    return float(z.norm())


SETS = {
    "exact": lambda: Exact(picture(48, 64, torch.float64)),
    "rounded": lambda: Rounded(picture(48, 64, torch.float64)),
    "ball": lambda: Ball(picture(48, 64, torch.float64), 6 / 255),
    "ball, odd size": lambda: Ball(picture(41, 50, torch.float64), 6 / 255),
    **{f"jpeg {name}": lambda name=name: _jpeg(name, (48, 64)) for name in FILES},
    "jpeg of noise": lambda: _jpeg("4:4:4", (48, 64), noise=5),
}


def _starts(known: KnownSet) -> list[torch.Tensor]:
    size = (known.file.height, known.file.width) if isinstance(known, JpegCells) else known.y.shape[-2:]  # type: ignore[attr-defined]
    noise = torch.rand(1, 3, *size, generator=generator(), dtype=torch.float64)
    return [noise, picture(*size, torch.float64).flip(-1), 0.1 * noise + 0.9 * picture(*size, torch.float64)]


@pytest.mark.parametrize("name", SETS)
def test_projection_onto_a_set(name: str) -> None:
    known = SETS[name]()
    starts = _starts(known)
    members = [known.nearest(z) for z in starts]
    for z, member in zip(starts, members, strict=True):
        assert (known.nearest(member) - member).abs().max() < 1e-9, "idempotent: members stay"
        for other in members:
            assert _norm(member - other, known) <= _norm(z - other, known) + 1e-9, "never further from a member"
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert _norm(members[a] - members[b], known) <= _norm(starts[a] - starts[b], known) + 1e-9


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", SIZES)
def test_the_decoded_picture_and_what_was_saved_agree_with_a_jpeg(name: str, size: tuple[int, int]) -> None:
    """The picture before saving is a member but for the encoder's rounding to whole numbers."""
    known = _jpeg(name, size)
    saved = to_tensor(to_pil(picture(*size)).convert("L" if name == "grey" else "RGB")).double()
    assert (known.nearest(saved) - saved).abs().mean() < 0.5 / 255
    assert known.share(saved) > 0.985
    assert known.share(known.nearest(_starts(known)[0])) > 0.97


@pytest.mark.parametrize("size", SIZES[1:])
def test_where_the_border_cuts_blocks_members_stay(size: tuple[int, int]) -> None:
    for name in FILES:
        known = _jpeg(name, size)
        z = _starts(known)[1]
        member = known.nearest(z)
        assert (known.nearest(member) - member).abs().max() < 0.5 / 255
        truth = known.nearest(picture(*size, torch.float64))
        assert _norm(member - truth, known) <= _norm(z - truth, known)


def test_the_coefficients_are_the_files() -> None:
    """Decoding them gives the pixels that Pillow's decoder gives, to a level."""
    from def_hub.observation.jpeg import from_blocks, idct

    for name in ("4:4:4", "grey"):
        for size in SIZES:
            data = _file(*size, **FILES[name])  # type: ignore[arg-type]
            file = read_jpeg(data)
            assert file is not None
            image = Image.open(io.BytesIO(data))
            image.draft("YCbCr" if name != "grey" else "L", image.size)
            shown = np.asarray(image, dtype=np.float32).reshape(*size, -1)
            for index, component in enumerate(file.components):
                plane = from_blocks(idct(component.levels * component.steps))[: size[0], : size[1]] + 128
                assert np.abs(plane.clamp(0, 255).numpy() - shown[..., index]).max() <= 1.01


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_files(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _file(37, 51, quality=80, subsampling="4:4:4", exif=exif)
    file = read_jpeg(data)
    assert file is not None and file.orientation == orientation
    shown = to_tensor(Image.open(io.BytesIO(data)))
    assert torch.equal(file.upright(file.stored(shown)), shown)
    assert JpegCells(file).share(shown) > 0.97, "all but blocks that the border cuts: the file hides part of them"


def test_what_is_no_jpeg_that_we_know() -> None:
    stream = io.BytesIO()
    to_pil(picture(16, 16)).save(stream, "PNG")
    assert jpeg_of(stream.getvalue()) is None
    assert jpeg_of(Image.new("RGB", (16, 16))) is None
    stream = io.BytesIO()
    Image.new("CMYK", (16, 16)).save(stream, "JPEG")
    assert jpeg_of(stream.getvalue()) is None
    data = _file(37, 51, quality=70)
    image = Image.open(io.BytesIO(data))
    found = jpeg_of(image)
    assert found is not None and (found.quality, found.subsampling, found.width) == (70, "4:2:0", 51)
    assert jpeg_of(image.convert("RGB")) is None
    assert np.asarray(image).shape == (37, 51, 3), "the picture can still be decoded"


@pytest.mark.parametrize("quality", (50, 75, 90))
def test_a_finished_result_gives_the_files_coefficients(quality: int) -> None:
    truth = picture(160, 192)
    degraded = degrade(truth, Degradation(quality=quality, subsampling="4:4:4"))
    assert degraded.file is not None
    observation = observe(degraded.picture, Degradation(quality=quality), file=read_jpeg(degraded.file))
    x, agreement = observation.finish(truth.flip(-1))  # a start that is wrong everywhere
    assert 0 <= x.min() and x.max() <= 1
    assert agreement.share >= 0.995
    assert "JPEG coefficients" in agreement.words
    before = (truth.flip(-1) - truth).norm()
    assert (x - truth).norm() < before


def test_a_clean_file_keeps_todays_promise_to_the_letter() -> None:
    operator, truth = Downsample(), picture(96, 132)
    y = (operator.forward(truth) * 255).round() / 255
    observation = observe(y, Degradation(), operator)
    assert torch.equal(observation.project(truth.flip(-1)), operator.project(truth.flip(-1), y))
    x, agreement = observation.finish(truth.flip(-1))
    wanted, error = project_clipped(operator, truth.flip(-1), y)
    assert torch.equal(x, wanted) and agreement.error == error


@pytest.mark.parametrize("name", ["jpeg40", "noise15", "phone", "blur2", "box", "jpeg70", "nearest"])
def test_finishing_a_picture_never_leads_away_from_the_truth(name: str) -> None:
    truth = picture(128, 160)
    degradation = Degradation.parse(name)
    degraded = degrade(truth, degradation)
    file = None if degraded.file is None else read_jpeg(degraded.file)
    observation = observe(degraded.picture, degradation, file=file)
    start = (truth + 0.1 * torch.randn(truth.shape, generator=generator())).clamp(0, 1)
    shrunk = [observation.operator.forward(v) for v in (observation.project(start), start, truth)]
    assert _norm(shrunk[0] - shrunk[2], observation.known) <= 1.01 * _norm(shrunk[1] - shrunk[2], observation.known)
    x, agreement = observation.finish(start)
    assert (x - truth).norm() <= (start - truth).norm()
    assert agreement.share > 0.9
    kept, agreement = observation.finish(truth)
    assert (kept - truth).abs().mean() < 1 / 255
    assert observation.words and agreement.words


def test_refusals() -> None:
    file = _jpeg("4:2:0", (48, 64)).file
    with pytest.raises(ValueError, match="64×48"):
        observe(picture(40, 64), Degradation(quality=40), file=file)
    assert isinstance(observe(picture(48, 64), Degradation(quality=40)).known, Ball), "saved again: taken for noise"
    assert observe(picture(48, 64), Degradation(), replace(Downsample(), kernel="matlab")).operator.kernel == "matlab"
