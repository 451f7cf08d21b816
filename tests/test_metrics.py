"""Metrics: known values, agreement with a slow implementation, and protocols that print what they are."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.evaluation.metrics import PROTOCOLS, Protocol, feature_distance, grid_pattern, luma, psnr, ssim


def pictures(height: int = 32, width: int = 40, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(batch, 3, height, width, generator=generator)
    image = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    return image, truth


@pytest.mark.parametrize("levels", [1, 5, 40])
def test_psnr_of_a_constant_difference(levels: int) -> None:
    truth = torch.full((1, 3, 16, 16), 100 / 255)
    image = torch.full((1, 3, 16, 16), (100 + levels) / 255)
    rgb = 20 * math.log10(255 / levels)
    assert psnr(image, truth, Protocol("rgb")).item() == pytest.approx(rgb, abs=1e-4)
    # luma spans 219 of 255 levels, so the same difference is smaller by that factor
    assert psnr(image, truth).item() == pytest.approx(rgb + 20 * math.log10(255 / 219), abs=1e-4)


def test_equal_pictures() -> None:
    image, _ = pictures()
    assert torch.isinf(psnr(image, image)).all()
    assert torch.allclose(ssim(image, image), torch.ones(2, dtype=torch.float64))


def test_luma_of_known_colours() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    expected = torch.tensor([16, 235, 81.481, 144.553, 40.966], dtype=torch.float64)
    assert torch.allclose(luma(colours.view(5, 3, 1, 1)).flatten(), expected)


def slow_ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """SSIM by its definition, one window at a time, on one channel of 0-255."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(image.shape[0] - 10):
        for left in range(image.shape[1] - 10):
            a, b = image[top : top + 11, left : left + 11], truth[top : top + 11, left : left + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            top_part = (2 * mean_a * mean_b + 6.5025) * (2 * covariance + 58.5225)
            values.append(top_part / ((mean_a**2 + mean_b**2 + 6.5025) * (variance_a + variance_b + 58.5225)))
    return float(np.mean(values))


@pytest.mark.parametrize("channel", ["y", "rgb"])
@pytest.mark.parametrize("border", [0, 4])
def test_agreement_with_the_definitions(channel: str, border: int) -> None:
    image, truth = pictures()
    protocol = Protocol(channel, border)  # type: ignore[arg-type]
    for index in range(2):
        planes = []
        for picture in (image, truth):
            rgb = np.round(picture[index].numpy().astype(np.float64) * 255)
            rgb = rgb[:, border : rgb.shape[1] - border, border : rgb.shape[2] - border]
            y = 16 + (65.481 * rgb[0] + 128.553 * rgb[1] + 24.966 * rgb[2]) / 255
            planes.append(y[None] if channel == "y" else rgb)
        error = np.mean((planes[0] - planes[1]) ** 2)
        expected = np.mean([slow_ssim(a, b) for a, b in zip(*planes, strict=True)])
        assert psnr(image, truth, protocol)[index].item() == pytest.approx(10 * math.log10(255**2 / error), abs=1e-9)
        assert ssim(image, truth, protocol)[index].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_agreement_with_scikit_image(channel: str) -> None:
    """An implementation by others, given what the protocol says to compare."""
    skimage = pytest.importorskip("skimage.metrics")
    image, truth = pictures(61, 75)
    for index in range(2):
        planes = [(p[index].double().mul(255).round()).numpy() for p in (image, truth)]
        if channel == "y":
            planes = [(16 + (65.481 * p[0] + 128.553 * p[1] + 24.966 * p[2]) / 255)[None] for p in planes]
        a, b = planes
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        similarity = skimage.structural_similarity(a, b, channel_axis=0, **options)
        protocol = Protocol(channel)  # type: ignore[arg-type]
        noise = skimage.peak_signal_noise_ratio(b, a, data_range=255)
        assert psnr(image, truth, protocol)[index].item() == pytest.approx(noise, abs=1e-3)
        assert ssim(image, truth, protocol)[index].item() == pytest.approx(similarity, abs=1e-3)


def test_presets_are_what_the_published_code_compares() -> None:
    assert {name: str(protocol) for name, protocol in PROTOCOLS.items()} == {
        "ttsr": "Y (BT.601, 16-235), no border crop, 8 bit",
        "masa": "Y (BT.601, 16-235), no border crop, 8 bit",
        "c2": "Y (BT.601, 16-235), 4 px border cropped, 8 bit",
        "mmagic": "RGB, 4 px border cropped, 8 bit",
    }


def test_rounding_and_border_are_part_of_the_protocol() -> None:
    image, truth = pictures()
    nearly = truth + 0.3 / 255
    assert torch.isinf(psnr((truth * 255).round() / 255, truth)).all()
    assert not torch.isinf(psnr(nearly, truth, Protocol(rounded=False))).any()
    framed = truth.clone()
    framed[..., 0] = 1 - framed[..., 0]
    assert torch.isinf(psnr(framed, truth, Protocol(border=1))).all() and psnr(framed, truth).max() < 30


def test_protocols_print_what_they_are() -> None:
    assert str(Protocol()) == "Y (BT.601, 16-235), no border crop, 8 bit"
    assert str(Protocol("rgb", 4, rounded=False)) == "RGB, 4 px border cropped, float"
    with pytest.raises(ValueError, match="channel must be one of"):
        Protocol("luma")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="border must be 0"):
        Protocol(border=-1)


def test_wrong_shapes_are_refused() -> None:
    image, truth = pictures()
    with pytest.raises(ValueError, match="of one shape"):
        psnr(image, truth[..., 1:])
    with pytest.raises(ValueError, match="leaves no pixels"):
        psnr(image, truth, Protocol(border=16))
    with pytest.raises(ValueError, match="at least 11×11"):
        ssim(image, truth, Protocol(border=12))


def test_feature_distance_is_zero_for_equal_pictures_and_ignores_the_length_of_features() -> None:
    a, b = (torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(n)) for n in (0, 1))

    def features(x: Tensor) -> tuple[Tensor, Tensor]:
        return x, F.avg_pool2d(x, 2)

    assert feature_distance(a, a, features).abs().max() == 0
    assert feature_distance(a, 0.5 * a, features).abs().max() < 1e-6  # the vectors differ in length only
    assert torch.allclose(feature_distance(a, b, features), feature_distance(b, a, features))
    cosine = [F.cosine_similarity(x, y).mean((1, 2)) for x, y in zip(features(a), features(b), strict=True)]
    assert torch.allclose(feature_distance(a, b, features), 2 - 2 * torch.stack(cosine).mean(0), atol=1e-5)
    with pytest.raises(ValueError, match="one shape"):
        feature_distance(a, b[..., 1:], features)


def test_grid_pattern_measures_grid_lines_and_no_others() -> None:
    image, truth = pictures(192, 168)
    assert grid_pattern(image, truth).sub(1).abs().max() < 0.5
    lines = torch.zeros(168)
    lines[::4] = 0.05
    assert (grid_pattern(image - lines, truth) > 3).all()  # vertical
    assert (grid_pattern((image - lines).mT, truth.mT) > 3).all()  # horizontal
    others = torch.zeros(168)
    others[::6] = 0.05
    assert grid_pattern(image - others, truth).max() < 2
    with pytest.raises(ValueError, match="24×24"):
        grid_pattern(image[..., :20], truth[..., :20])
