"""Windows and tiles: cutting and blending returns the image for every size, primes included."""

import pytest
import torch
import torch.nn.functional as F

from def_hub.tiling import Window, blend, reflect_pad, sampled, tiled, windows

SIZES = ((7, 7), (64, 64), (97, 131), (65, 64), (200, 67))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("replace", (False, True))
def test_cutting_and_blending_returns_the_image(size: tuple[int, int], replace: bool) -> None:
    x = torch.rand(2, 3, *size, dtype=torch.float64)

    def cut(group: list[Window]) -> torch.Tensor:
        return torch.cat([w.cut(x) for w in group])

    assert torch.allclose(blend(cut, *size, 64, 16, batch=3, replace=replace), x, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
def test_windows_cover_with_overlap(size: tuple[int, int]) -> None:
    count = torch.zeros(size)
    found = windows(*size, 64, 16)
    for w in found:
        w.cut(count).add_(1)
    assert count.min() >= 1
    tops = sorted({w.top for w in found})
    assert all(b - a <= 64 - 16 for a, b in zip(tops, tops[1:], strict=False))


def test_no_seam_where_windows_disagree() -> None:
    """Neighbouring windows differ by one. Blending turns the difference into a ramp; replacing leaves a step of one."""
    numbers = iter(range(100))

    def constant(group: list[Window]) -> torch.Tensor:
        return torch.cat([torch.full((1, 1, 64, 64), float(next(numbers) % 2)) for _ in group])

    assert blend(constant, 64, 96, 64, 32).diff(dim=-1).abs().max() < 0.2
    numbers = iter(range(100))
    assert blend(constant, 64, 96, 64, 32, replace=True).diff(dim=-1).abs().max() == 1


def test_a_sample_has_the_right_size_and_covers_the_picture() -> None:
    rows, columns = torch.meshgrid(torch.arange(100.0), torch.arange(60.0), indexing="ij")
    assert torch.equal(sampled(rows, 128), rows)
    for picture, few in ((rows, sampled(rows, 64, 4)), (columns, sampled(columns, 40, 1))):
        assert few.min() == 0 and few.max() == picture.max()  # it includes both borders
    assert sampled(rows, 64, 4).shape == (64, 60) and sampled(rows, 40, 2).shape == (40, 40)
    starts = sampled(rows, 64, 4)[::16, 0]
    assert torch.equal(starts, torch.tensor([0.0, 28.0, 56.0, 84.0]))


@pytest.mark.parametrize(("height", "width"), ((64, 64), (60, 132), (256, 100), (20, 24)))
def test_tiles_with_enough_margin_equal_one_piece(height: int, width: int) -> None:
    x, blur = torch.rand(2, 1, height, width), torch.rand(1, 1, 9, 9)
    tiles = []

    def predict(window: Window) -> torch.Tensor:
        tiles.append(window)
        return F.conv2d(window.cut(x), blur, padding=4)

    whole = F.conv2d(x, blur, padding=4)
    assert torch.allclose(tiled(predict, height, width, 48, 4, multiple=4), whole, atol=1e-5)
    assert max(max(w.height, w.width) for w in tiles) <= 56
    assert max(height, width) <= 48 or not torch.allclose(tiled(predict, height, width, 48, 0), whole, atol=1e-5)


def test_corners_lie_on_multiples() -> None:
    assert all(w.top % 4 == 0 and w.left % 4 == 0 for w in windows(500, 332, 64, 8, multiple=4))


@pytest.mark.parametrize("length", (1, 2, 5, 32))
def test_reflection_extends_to_any_size(length: int) -> None:
    x = torch.arange(length, dtype=torch.float32).view(1, 1, 1, length)
    padded = reflect_pad(x, 1, 70)
    assert padded.shape == (1, 1, 1, 70) and torch.equal(padded[..., :length], x)
    assert padded.diff(dim=-1).abs().max() <= 1  # without jumps


def test_an_invalid_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        windows(100, 100, 64, 64)
