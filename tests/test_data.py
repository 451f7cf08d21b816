"""Sources of training pairs, and the stream of samples drawn from them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from def_hub.config import SourceConfig, load_config
from def_hub.data import PairFolder, PhotoFolder, SampleStream, open_source, turned_match
from def_hub.data.stream import _turn
from def_hub.reference.restoring.transfer import warp
from def_hub.training import run
from def_hub.training.reference import _correspondence

from .helpers.pictures import picture
from .test_training import PRIOR, write


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", (False, True))
def test_a_match_is_turned_with_its_pictures(turns: int, flip: bool) -> None:
    """Warping the turned reference by the turned match equals turning the warped reference."""
    size, generator = 32, torch.Generator().manual_seed(turns)
    reference = picture(size, size)
    match = torch.empty(7, 8, 8)
    match[:2] = 6 + 20 * torch.rand(2, 8, 8, generator=generator)
    match[2:6] = torch.tensor([1.0, 0, 0, 1])[:, None, None] + 0.3 * torch.randn(4, 8, 8, generator=generator)
    match[6] = torch.rand(8, 8, generator=generator)
    brought = warp([reference], _correspondence(match[None]), 1)
    turned = _correspondence(turned_match(match, size, turns, flip)[None])
    again = warp([_turn(reference, turns, flip)], turned, 1)
    assert torch.allclose(again, _turn(brought, turns, flip), atol=1e-4)
    assert torch.equal(turned.confidence[0, 0], _turn(match[6], turns, flip))


def test_a_sample_depends_on_the_seed_and_its_number_alone(workplace: Path) -> None:
    config = load_config(write("run", "prior", PRIOR, 1))
    sources = [open_source(s, 32, config.data.holdout) for s in config.data.sources]
    first, second, other = (SampleStream(sources, config.data, seed) for seed in (1, 1, 2))
    _ = first[7]
    assert torch.equal(first[3]["image"], second[3]["image"])
    assert any(not torch.equal(first[i]["image"], other[i]["image"]) for i in range(8))


def test_sources(workplace: Path) -> None:
    pairs = PairFolder(workplace / "pairs", 32, holdout=("garden",))
    held = PairFolder(workplace / "pairs", 32, holdout=("garden",), held_out=True)
    assert (len(pairs), len(held)) == (4, 2)
    photos = PhotoFolder(workplace / "photos", 32, crops=3)
    assert len(photos) == 6 and photos[4].image.shape == photos[4].reference.shape == (3, 32, 32)
    assert torch.equal(photos[4].reference, PhotoFolder(workplace / "photos", 32, crops=3)[4].reference)
    with pytest.raises(ValueError, match="no photographs of at least 500x500"):
        PhotoFolder(workplace / "photos", 500, crops=1)


def test_a_scene_gives_two_views_of_one_place(workplace: Path) -> None:
    for scene, colour in (("red", (200, 40, 40)), ("green", (40, 200, 40)), ("lonely", (0, 0, 0))):
        (workplace / "scenes" / scene).mkdir(parents=True)
        for view in range(1 if scene == "lonely" else 3):
            image = Image.new("RGB", (90 + 10 * view, 70), colour)
            image.putpixel((0, 0), (view, view, view))
            image.save(workplace / "scenes" / scene / f"{view}.png")
    (workplace / "scenes/red/broken.jpg").write_bytes(b"no picture")
    source = open_source(SourceConfig("scenes", "scenes", crops=4), 32)
    assert len(source) == 8 and len(source.weights) == 8
    for i in range(8):
        pair = source[i]
        assert pair.image.shape == pair.reference.shape == (3, 32, 32)
        assert (pair.image.float().mean((1, 2)) - pair.reference.float().mean((1, 2))).abs().max() < 5
        assert source.describe(i).startswith("scenes/" + ("green" if i < 4 else "red"))
        assert torch.equal(source[i].image, pair.image)
    assert "2 scenes, 8 pairs; 7 pictures of 90x70 … 110x70 pixels" in source.report()
    assert "left out: scenes/red/broken.jpg: not a readable picture" in source.report()


def test_unreadable_pictures_are_reported_and_left_out(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (workplace / "pairs/ref/1.png").read_bytes()
    (workplace / "pairs/ref/1.png").write_bytes(whole[: len(whole) // 2])  # truncated, with a valid header
    Image.new("RGB", (31, 40)).save(workplace / "photos/small.png")
    run(write("reported", "prior", PRIOR, 1))
    printed = capsys.readouterr().out
    assert "pairs: 3 pairs" in printed and "left out: pairs/ref/1.png:" in printed
    assert "left out: photos/small.png: 31x40 is smaller than 32x32" in printed


def test_large_pairs_are_cut_at_the_same_relative_places(workplace: Path) -> None:
    y, x = np.mgrid[:64, :96]
    ramp = np.stack((x * 2, y * 3, 0 * x), axis=-1).astype(np.uint8)  # the colour encodes the position
    for folder in ("input", "ref"):
        Image.fromarray(ramp).save(workplace / "pairs" / folder / "large.png")
    source = open_source(SourceConfig("pairs", "pairs", crops=3), 32)
    assert len(source) == 6 + 3 and source.weights[6:].sum() == 1  # one group, one weight
    places = set()
    for i in range(6, 9):
        pair = source[i]
        assert torch.equal(pair.image, pair.reference)
        places.add((int(pair.image[0, 0, 0]) // 2, int(pair.image[1, 0, 0]) // 3))
        assert source.describe(i) == "pairs/large.png"
    assert len(places) == 3 and (32, 16) in places


def test_every_nth_pair_of_a_source(tmp_path: Path) -> None:
    """A thinned source is the pairs 0, n, 2n, … of the whole one."""
    for folder in ("input", "ref"):
        (tmp_path / folder).mkdir()
        for i in range(7):
            Image.new("RGB", (32, 32), (30 * i, 0, 0)).save(tmp_path / folder / f"{i}.png")
    whole = open_source(SourceConfig("pairs", str(tmp_path)), 32)
    third = open_source(SourceConfig("pairs", str(tmp_path), every=3), 32)
    assert len(third) == 3 and "3 of them used" in third.report()
    for i in range(3):
        assert torch.equal(third[i].image, whole[3 * i].image) and third.describe(i) == whole.describe(3 * i)
        assert torch.equal(third.picture(i, np.random.default_rng(0)), whole[3 * i].image)
    with pytest.raises(ValueError, match="every: expected 1 or more, got 0"):
        open_source(SourceConfig("pairs", str(tmp_path), every=0), 32)


def test_a_share_of_the_references_is_worn(workplace: Path) -> None:
    """The same pairs every time, and never another image than without wear."""
    sources = [
        open_source(SourceConfig("pairs", "pairs", softened=softened, compressed=compressed), 32)
        for softened, compressed in ((0, 0), (0, 1), (0, 1), (1, 1))
    ]
    plain, pressed, again, both = ([source[i] for i in range(len(source))] for source in sources)
    assert all(torch.equal(a.image, b.image) for a, b in zip(plain, both, strict=True))
    assert all(torch.equal(a.reference, b.reference) for a, b in zip(pressed, again, strict=True))
    for worn in (pressed, both):
        assert not any(torch.equal(a.reference, b.reference) for a, b in zip(plain, worn, strict=True))
    blocks = torch.stack([pair.reference.float().mean(0) for pair in pressed]).diff(dim=-1).abs().mean((0, 1))
    assert blocks[7::8].mean() > blocks.mean()  # an edge at every eighth column
