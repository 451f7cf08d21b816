"""Pictures that explain a result: colours mean what the legend says, at every size; wrong shapes are refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from def_hub import visualization as draw


def test_per_cents_add_up() -> None:
    assert draw.per_cent([0.575, 0.16, 0.236, 0.029]) == [57, 16, 24, 3]
    assert draw.per_cent([1 / 3] * 3) == [34, 33, 33] and draw.per_cent([1.0, 0.0]) == [100, 0]
    generator = np.random.default_rng(0)
    for count in range(2, 10):
        shares = generator.dirichlet(np.ones(count))
        found = draw.per_cent(shares.tolist())
        assert sum(found) == 100 and np.abs(100 * shares - found).max() < 1


def test_eight_references_have_eight_colours() -> None:
    colours = [draw.INPUT, draw.PRIOR, *(draw.reference_colour(n) for n in range(8))]
    assert min(np.abs(np.subtract(a, b)).sum() for a in colours for b in colours if a is not b) > 80


def correspondence(h: int, w: int, reference: int = 0, shift: float = 0.0) -> Tensor:
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([torch.full((h, w), float(reference)), 4 * x + 1.5 + shift, 4 * y + 1.5])


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {tuple(c) for c in np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()}


def test_confidence_runs_from_dark_to_light() -> None:
    values = torch.linspace(0, 1, 64).expand(16, 64)
    picture = draw.confidence_map(values)
    pixels = np.asarray(picture).astype(float)
    left, top = np.argwhere((np.asarray(picture) != draw.PAPER).any(axis=2)).min(axis=0)[::-1]
    line = pixels[top + 8, left : left + 256] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(line) >= -0.5).all() and line[0] < 30 and line[-1] > 200  # the lightness grows with the value
    steps = np.diff(line[::4])
    assert steps.max() < 4 * steps.mean()  # in even steps
    assert draw.confidence_map(values, scale=1).width < picture.width


@pytest.mark.parametrize("k", [0, 1, 3, 8])
def test_provenance_shows_pure_sources_in_their_colours(k: int) -> None:
    for source in range(2 + k):
        shares = torch.zeros(2 + k, 40, 30)
        shares[source] = 1
        picture = draw.provenance_map(shares)
        expected = [draw.INPUT, draw.PRIOR, *(draw.reference_colour(n) for n in range(k))][source]
        pixels = np.asarray(picture)
        assert (pixels == expected).all(axis=2).sum() >= 40 * 30
        assert all((pixels == colour).all(axis=2).any() for colour in (draw.INPUT, draw.PRIOR))  # in the legend


def test_provenance_mixes_the_colours_of_sources() -> None:
    shares = torch.full((3, 20, 20), 0.0)
    shares[0], shares[2] = 0.5, 0.5
    middle = np.mean([draw.INPUT, draw.reference_colour(0)], axis=0).round()
    assert tuple(int(c) for c in middle) in colours(draw.provenance_map(shares))


def test_cells_have_the_colour_of_their_match() -> None:
    x = np.linspace(0, 1, 20)
    grid = draw._position_colours(0, x[None], x[:, None])
    distinct = {tuple(c) for c in grid.reshape(-1, 3).tolist()}
    assert len(distinct) > 300  # the colour identifies the place
    assert not distinct & {tuple(c) for c in draw._position_colours(1, x[None], x[:, None]).reshape(-1, 3).tolist()}
    field = correspondence(10, 12).numpy()
    cells = draw._cell_colours(field, [(48, 40)])
    assert np.array_equal(cells[3, 5], draw._position_colours(0, np.array(21.5 / 48), np.array(13.5 / 40)))
    field[0] = -1
    assert (draw._cell_colours(field, [(48, 40)]) == 160).all()


def test_lines_join_confident_coherent_and_distant_cells() -> None:
    field = correspondence(40, 40).numpy()
    field[1, :, 20:] = np.random.default_rng(0).uniform(0, 500, (40, 20))  # the right half is incoherent
    sure = np.full((40, 40), 0.5)
    sure[7, 7] = 0.9
    chosen = draw._spread(field, sure, 40)
    assert chosen[0] == (7, 7) and 15 <= len(chosen) <= 40
    assert all(column < 20 for _, column in chosen)
    assert {row // 10 for row, _ in chosen} == {0, 1, 2, 3}
    assert draw._spread(field, np.zeros((40, 40)), 40) == []


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (64, 48)])
def test_match_drawing_at_any_size_and_with_several_references(size: tuple[int, int]) -> None:
    h, w = size
    result = torch.rand(1, 3, 4 * h, 4 * w)
    references = [torch.rand(3, 4 * h, 4 * w), np.random.default_rng(0).random((50, 70, 3))]
    field = correspondence(h, w)
    field[0, :, w // 2 :] = 1
    plain = draw.match_drawing(result, references, field, torch.ones(h, w), lines=0)
    joined = draw.match_drawing(result, references, field, torch.ones(h, w))
    assert plain.size == joined.size and plain.mode == "RGB"
    assert not np.array_equal(np.asarray(plain), np.asarray(joined))
    nothing = torch.cat([torch.full((1, h, w), -1.0), torch.full((2, h, w), float("nan"))])
    unsure = draw.match_drawing(result, references, nothing, torch.zeros(h, w))
    assert unsure.size == plain.size


def test_strips_put_pictures_side_by_side() -> None:
    before, after = torch.zeros(3, 8, 9), torch.ones(3, 32, 36)
    picture = draw.before_after(before, after)
    assert {(0, 0, 0), (255, 255, 255)} <= colours(picture) and picture.width > 72
    strip = draw.steps_strip([(f"step {n}", torch.full((3, 16, 16), n / 4)) for n in range(5)], height=32)
    assert {(round(255 * n / 4),) * 3 for n in range(5)} <= colours(strip)
    with pytest.raises(ValueError, match="at least one labelled picture"):
        draw.steps_strip([])


def test_wrong_shapes_are_refused() -> None:
    picture = torch.rand(3, 32, 32)
    with pytest.raises(ValueError, match=r"confidence: expected \[h,w\]"):
        draw.confidence_map(torch.rand(1, 8, 8))
    with pytest.raises(ValueError, match=r"provenance: expected \[2\+K,H,W\]"):
        draw.provenance_map(torch.rand(1, 8, 8))
    with pytest.raises(ValueError, match=r"correspondence: expected \[3,h,w\]"):
        draw.match_drawing(picture, [picture], torch.rand(2, 8, 8), torch.rand(8, 8))
    with pytest.raises(ValueError, match=r"confidence: expected \[8, 8\], got \[8, 9\]"):
        draw.match_drawing(picture, [picture], correspondence(8, 8), torch.rand(8, 9))
    with pytest.raises(ValueError, match="names reference 2, only 1 given"):
        draw.match_drawing(picture, [picture], correspondence(8, 8, reference=2), torch.rand(8, 8))


def test_the_overlay_has_the_size_of_the_result_and_the_colours_of_the_sources() -> None:
    shares = torch.zeros(3, 12, 16)
    shares[2, :, 8:], shares[1, :, :8] = 1, 1
    overlay = draw.provenance_overlay(shares, torch.full((3, 12, 16), 0.5))
    left, right = (np.asarray(overlay)[6, x].astype(float) for x in (2, 13))
    assert overlay.size == (16, 12)
    assert np.allclose(left - right, 0.6 * (np.array(draw.PRIOR) - draw.reference_colour(0)), atol=2)
    assert [(s.name, s.share) for s in draw.sources(shares)] == [
        ("input", 0.0),
        ("diffusion prior", 0.5),
        ("reference 1", 0.5),
    ]
    with pytest.raises(ValueError, match=r"expected \[2\+K,12,16\]"):
        draw.provenance_overlay(shares[..., :8], torch.zeros(3, 12, 16))


def test_thumbnails_fit_and_are_never_enlarged() -> None:
    assert draw.thumbnail(torch.rand(3, 30, 90), 45).size == (45, 15)
    assert draw.thumbnail(torch.rand(3, 30, 20), 45).size == (20, 30)
