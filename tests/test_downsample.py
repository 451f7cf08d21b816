"""A A† y = y; projecting twice equals once; bicubic equals Pillow's. All tests check the largest error."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from def_hub.images import to_pil, to_tensor
from def_hub.observation.downsample import Downsample, consistency_error, make_operator, project_clipped

from .helpers.pictures import picture

KERNELS = ("bicubic", "box", "matlab", "lanczos", "bilinear", "nearest")
SIZES = ((8, 8), (13, 29), (64, 37))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", SIZES)
def test_pseudo_inverse_is_a_right_inverse(kernel: str, size: tuple[int, int]) -> None:
    operator = make_operator(kernel)  # type: ignore[arg-type]
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        y = torch.rand(2, 3, *size, dtype=dtype)
        assert (operator.forward(operator.pinv(y)) - y).abs().max() < tolerance


@pytest.mark.parametrize("kernel", KERNELS)
def test_pseudo_inverse_is_that_of_moore_and_penrose(kernel: str) -> None:
    """The full matrix, built column by column, against `torch.linalg.pinv`."""
    operator = make_operator(kernel)  # type: ignore[arg-type]
    basis = torch.eye(16 * 12, dtype=torch.float64).view(-1, 1, 16, 12)
    matrix = operator.forward(basis).flatten(1).T
    columns = operator.pinv(torch.eye(4 * 3, dtype=torch.float64).view(-1, 1, 4, 3)).flatten(1).T
    assert (torch.linalg.pinv(matrix) - columns).abs().max() < 1e-12


@pytest.mark.parametrize("kernel", KERNELS)
def test_blocks_give_the_same_result_as_the_whole_matrix(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large sides are computed in blocks, without the zeros far from the matrix's diagonal."""
    operator, x = make_operator(kernel), torch.rand(1, 2, 300, 1200, dtype=torch.float64)  # type: ignore[arg-type]
    x = torch.cat((x, x), dim=2)
    blocks = [operator.forward(x), operator.pinv(operator.forward(x)), operator.overshoot(2 * x)]
    monkeypatch.setattr("def_hub.observation.downsample.BLOCK", 10**6)
    whole = [operator.forward(x), operator.pinv(operator.forward(x)), operator.overshoot(2 * x)]
    for a, b in zip(blocks, whole, strict=True):
        assert (a - b).abs().max() < 1e-13


@pytest.mark.parametrize("kernel", KERNELS)
def test_projection_agrees_is_idempotent_and_orthogonal(kernel: str) -> None:
    operator = make_operator(kernel)  # type: ignore[arg-type]
    x, y = torch.rand(1, 3, 52, 36, dtype=torch.float64), torch.rand(1, 3, 13, 9, dtype=torch.float64)
    once = operator.project(x, y)
    assert (operator.forward(once) - y).abs().max() < 1e-12
    assert (operator.project(once, y) - once).abs().max() < 1e-12
    # it is the nearest such image: the step is orthogonal to the null space of A
    unseen = operator.project(torch.rand_like(x), torch.zeros_like(y))
    assert abs(((once - x) * unseen).sum()) < 1e-9


@pytest.mark.parametrize("size", ((32, 60), (52, 8), (256, 128)))
def test_bicubic_is_pillows(size: tuple[int, int]) -> None:
    operator, (height, width) = make_operator(), size
    plane = torch.rand(1, 1, height, width)
    small = np.asarray(Image.fromarray(plane[0, 0].numpy()).resize((width // 4, height // 4), Image.Resampling.BICUBIC))
    assert np.abs(operator.forward(plane)[0, 0].numpy() - small).max() < 1e-6
    large = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    assert np.abs(operator.upsample(torch.from_numpy(small)[None, None])[0, 0].numpy() - large.clip(0, 1)).max() < 1e-6


@pytest.mark.parametrize("kernel", ["box", "lanczos", "bilinear", "nearest"])
def test_other_kernels_are_pillows(kernel: str) -> None:
    plane = torch.rand(1, 1, 64, 52)
    small = Image.fromarray(plane[0, 0].numpy()).resize((13, 16), Image.Resampling[kernel.upper()])
    assert np.abs(make_operator(kernel).forward(plane)[0, 0].numpy() - np.asarray(small)).max() < 1e-6  # type: ignore[arg-type]


def test_box_averages() -> None:
    x = torch.rand(1, 3, 16, 8)
    assert torch.allclose(make_operator("box").forward(x), torch.nn.functional.avg_pool2d(x, 4), atol=1e-6)


def test_matlab_mirrors_the_border() -> None:
    """Downsampling an image gives the same as downsampling it with a mirrored border."""
    x = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    mirrored = torch.cat((x.flip(-1), x, x.flip(-1)), dim=-1)
    mirrored = torch.cat((mirrored.flip(-2), mirrored, mirrored.flip(-2)), dim=-2)
    inside = make_operator("matlab").forward(mirrored)[..., 8:16, 8:16]
    assert (make_operator("matlab").forward(x) - inside).abs().max() < 1e-12


def test_clipped_projection_holds_after_rounding() -> None:
    operator = make_operator()
    truth = picture(96, 132)
    y = (operator.forward(truth) * 255).round() / 255
    x, error = project_clipped(operator, truth.flip(-1), y)  # the start is wrong everywhere
    assert 0 <= x.min() and x.max() <= 1
    assert error == consistency_error(operator, x, y) <= 2 / 255


def test_clipping_alone_breaks_the_agreement() -> None:
    """The reason for alternating: at a hard edge, one projection and one clip leave an error above 2/255."""
    operator = make_operator()
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 21:43, 18:39] = 1
    y = operator.forward(edge).clamp(0, 1)
    naive = operator.project(operator.upsample(y), y).clamp(0, 1)
    assert consistency_error(operator, naive, y) > 2 / 255
    assert project_clipped(operator, operator.upsample(y), y)[1] <= 2 / 255


def test_invalid_kernels_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel must be one of"):
        make_operator("sinc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="multiples of 4, got 10x8"):
        Downsample().forward(torch.rand(1, 3, 10, 8))


@pytest.mark.parametrize("large", ((30, 44), (31, 40), (45, 66), (100, 41)))
@pytest.mark.parametrize("kernel", ("bicubic", "box"))
def test_any_size_between_once_and_many_times(kernel: str, large: tuple[int, int]) -> None:
    """A A† y = y and the projection is the nearest picture, at scales that are no whole numbers, too."""
    operator = Downsample.between(large, (30, 40), kernel)  # type: ignore[arg-type]
    x, y = torch.rand(1, 3, *large, dtype=torch.float64), torch.rand(1, 3, 30, 40, dtype=torch.float64)
    assert operator.pinv(y).shape == x.shape and operator.forward(x).shape == y.shape
    assert (operator.forward(operator.pinv(y)) - y).abs().max() < 1e-7
    moved = operator.project(x, y) - x
    assert (operator.forward(operator.project(x, y)) - y).abs().max() < 1e-7
    other = operator.project(torch.rand_like(x), y) - x
    assert moved.norm() <= other.norm()
    if kernel == "bicubic":
        plane = Image.fromarray(x[0, 0].float().numpy())
        wanted = np.asarray(plane.resize((40, 30), Image.Resampling.BICUBIC))
        assert np.abs(operator.forward(x)[0, 0].numpy() - wanted).max() < 1e-5
    with pytest.raises(ValueError, match="at least 1 along both sides"):
        Downsample.between((29, 40), (30, 40))


def test_blur_is_pillows() -> None:
    """Pillow's Gaussian is three box blurs over 8-bit pixels: the same within three levels."""
    large = to_pil(picture(128, 96))
    small = large.filter(ImageFilter.GaussianBlur(3)).resize((24, 32), Image.Resampling.BICUBIC)
    ours = Downsample(blur=3.0).forward(to_tensor(large))
    assert (ours - to_tensor(small)).abs().max() < 3 / 255


def test_projecting_with_a_blur_comes_nearer_every_time() -> None:
    operator, truth = Downsample(blur=2.0), picture(128, 96).double()
    y, x = operator.forward(truth), torch.full_like(truth, 0.5)
    errors = []
    for _ in range(5):
        x = operator.project(x, y)
        errors.append(float((operator.forward(x) - y).norm()))
    assert all(later < 0.9 * earlier for earlier, later in zip(errors, errors[1:], strict=False))
    assert Downsample(blur=2.0).pinv(y).abs().max() < 3


def test_what_is_kept_of_inference_serves_training() -> None:
    """The matrices are kept; made in inference mode, they could not be used where gradients are asked for."""
    size = 23  # that no other test takes
    with torch.inference_mode():
        Downsample("bicubic").forward(torch.zeros(1, 3, 4 * size, 4 * size))
    large = torch.zeros(1, 3, 4 * size, 4 * size, requires_grad=True)
    Downsample("bicubic").forward(large).sum().backward()
    assert large.grad is not None and large.grad.sum() > 0
