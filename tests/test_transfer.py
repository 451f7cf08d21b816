"""Properties of the transfer of reference features along the matches."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from def_hub.reference.matching import Correspondence
from def_hub.reference.restoring.transfer import DeformableTransfer, HardTransfer, overlapped, sample, warp


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def scattered(batch: int, h: int, w: int, sizes: list[tuple[int, int]], seed: int = 0) -> Correspondence:
    """Random places in random references with random confidence. `sizes`: (height, width) of each, in HR pixels."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randint(len(sizes), (batch, h, w), generator=generator)
    extent = torch.tensor(sizes, dtype=torch.float32).flip(-1)[reference].movedim(-1, 1)
    position = torch.rand(batch, 2, h, w, generator=generator) * (extent - 4) + 1.5
    return Correspondence(reference, position, torch.rand(batch, 1, h, w, generator=generator))


def disturb(transfer: DeformableTransfer, seed: int = 0) -> DeformableTransfer:
    """Random weights instead of the initial zeros, so that every term of eq. 13 counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transfer.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return transfer


def bilinear(map_: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Bilinear interpolation, written out: [C] from [C,H,W], clamped to the border."""
    height, width = map_.shape[1:]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    top = (1 - fx) * map_[:, y0, x0] + fx * map_[:, y0, x1]
    bottom = (1 - fx) * map_[:, y1, x0] + fx * map_[:, y1, x1]
    return (1 - fy) * top + fy * bottom


def bicubic(map_: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Bicubic interpolation, written out with Keys' kernel, a = -0.75: [C] from [C,H,W], border pixels repeated."""
    height, width = map_.shape[1:]

    def weight(t: float) -> float:
        t, a = abs(t), -0.75
        if t < 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    total = torch.zeros(len(map_))
    for row in range(math.floor(y) - 1, math.floor(y) + 3):
        for column in range(math.floor(x) - 1, math.floor(x) + 3):
            pixel = map_[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            total += weight(row - y) * weight(column - x) * pixel
    return total


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_identity_returns_the_reference(stride):
    features = random(2, 5, 24 // stride, 32 // stride)
    identity = Correspondence.identity(2, 6, 8)
    torch.testing.assert_close(warp([features], identity, stride), features)
    transfer = DeformableTransfer(5, 5, 3)  # as initialised
    guide = random(2, 3, 24 // stride, 32 // stride, seed=1)
    torch.testing.assert_close(transfer([features], guide, identity, stride), features)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_warp_copies_the_block_that_each_cell_matched(stride):
    sizes, size = [(24, 32), (20, 12)], 4 // stride
    correspondence = scattered(1, 5, 6, sizes)
    # Places are whole pixels of the level, so blocks are copied without interpolation.
    blocks = (((correspondence.position - 1.5) / stride).round() * stride + 1.5).float()
    correspondence = Correspondence(correspondence.reference, blocks, correspondence.confidence)
    features = [random(1, 3, h // stride, w // stride, seed=h) for h, w in sizes]
    actual = warp(features, correspondence, stride)
    for i in range(5):
        for j in range(6):
            x, y = ((blocks[0, :, i, j] - 1.5) / stride).round().long().tolist()
            block = features[correspondence.reference[0, i, j]][0, :, y : y + size, x : x + size]
            cell = actual[0, :, i * size : (i + 1) * size, j * size : (j + 1) * size]
            torch.testing.assert_close(cell, block, atol=1e-5, rtol=0)


@pytest.mark.parametrize("framed", [False, True])
def test_overlapped_is_the_weighted_mean_of_the_predictions_of_nine_cells(framed):
    sizes = [(24, 32), (20, 12)]
    correspondence = scattered(1, 4, 5, sizes)
    if framed:
        correspondence = replace(correspondence, frame=random(1, 2, 2, 4, 5, seed=7))
    images = [random(1, 3, *size, seed=size[0]) for size in sizes]
    actual = overlapped(images, correspondence)
    for i, j in torch.cartesian_prod(torch.arange(16), torch.arange(20)).tolist():
        total, weights = torch.zeros(3), 0.0
        for row in range(i // 4 - 1, i // 4 + 2):
            for column in range(j // 4 - 1, j // 4 + 2):
                r, c = min(max(row, 0), 3), min(max(column, 0), 4)  # beyond the border, the last cell is repeated
                away = torch.tensor([j, i]) - (torch.tensor([c, r]) * 4 + 1.5)
                weight = float((1 - away.abs() / 6).clamp_min(0).prod())
                x, y = (correspondence.position[0, :, r, c] + correspondence.frames[0, :, :, r, c] @ away).tolist()
                total += weight * bicubic(images[correspondence.reference[0, r, c]][0], x, y)
                weights += weight
        torch.testing.assert_close(actual[0, :, i, j], total / weights, atol=1e-4, rtol=1e-4)
    image = random(2, 3, 24, 32)
    torch.testing.assert_close(overlapped([image], Correspondence.identity(2, 6, 8)), image)


def test_sample_agrees_with_bilinear_written_out_also_outside():
    features = [random(2, 3, 5, 7, seed=1), random(2, 3, 9, 1, seed=2)]
    reference = torch.randint(2, (2, 4, 6), generator=torch.Generator().manual_seed(3))
    x, y = (random(2, 4, 6, seed=seed) * 12 - 3 for seed in (4, 5))
    actual = sample(features, reference, x, y)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(6)).tolist():
        expected = bilinear(features[reference[b, i, j]][b], float(x[b, i, j]), float(y[b, i, j]))
        torch.testing.assert_close(actual[b, :, i, j], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stride", [1, 4])
def test_agrees_with_equation_13_by_loops(stride):
    sizes = [(16, 20), (28, 12)]
    correspondence = scattered(2, 2, 3, sizes)
    features = [random(2, 4, h // stride, w // stride, seed=h) for h, w in sizes]
    height, width, per_cell = 8 // stride, 12 // stride, 4 // stride
    guide = random(2, 3, height, width, seed=7)
    transfer = disturb(DeformableTransfer(4, 5, 3))
    with torch.no_grad():
        actual = transfer(features, guide, correspondence, stride)
        raw = transfer.offsets(torch.cat((warp(features, correspondence, stride), guide), dim=1))
        for b in range(2):
            for i in range(height):
                for j in range(width):
                    cell = (b, slice(None), i // per_cell, j // per_cell)
                    map_ = features[correspondence.reference[b, i // per_cell, j // per_cell]][b]
                    # The centre of this pixel, displaced like its cell, in pixels of the level.
                    home = torch.tensor([j // per_cell, i // per_cell]) * 4 + 1.5
                    moved = correspondence.position[cell] - home
                    here = torch.tensor([j, i]) * stride + (stride - 1) / 2
                    px, py = ((here + moved - (stride - 1) / 2) / stride).tolist()
                    total = torch.zeros(5)
                    for tap in range(9):
                        row, column = divmod(tap, 3)
                        dx, dy, m = (
                            raw[b, tap, i, j],
                            raw[b, 9 + tap, i, j],
                            2 * raw[b, 18 + tap, i, j].sigmoid(),
                        )
                        value = bilinear(map_, px + column - 1 + float(dx), py + row - 1 + float(dy))
                        total += transfer.weight[:, :, row, column] @ value * m
                    torch.testing.assert_close(
                        actual[b, :, i, j], total * correspondence.confidence[cell], atol=1e-4, rtol=1e-4
                    )


def test_as_initialised_it_is_the_hard_transfer_times_the_confidence():
    sizes = [(24, 32), (20, 12)]
    correspondence = scattered(2, 6, 8, sizes)
    features = [random(2, 5, h // 4, w // 4, seed=h) for h, w in sizes]
    actual = DeformableTransfer(5, 5, 2)(features, random(2, 2, 6, 8), correspondence, 4)
    centre = warp(features, correspondence, 4) * correspondence.confidence
    torch.testing.assert_close(actual, centre)


def test_hard_transfer_is_a_convolution_of_the_matched_features():
    features = [torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(1))]
    matches = Correspondence.identity(1, 10, 12)
    matches = replace(matches, position=matches.position.flip(-1), confidence=0.5 * matches.confidence)
    hard = HardTransfer(3, 4)
    torch.nn.init.normal_(hard.weight)
    expected = 0.5 * F.conv2d(warp(features, matches, 2), hard.weight, padding=1)
    assert torch.allclose(hard(features, torch.empty(0), matches, 2), expected)


def test_without_confidence_nothing_is_transferred():
    correspondence = Correspondence.identity(1, 3, 3)
    silent = Correspondence(correspondence.reference, correspondence.position, torch.zeros(1, 1, 3, 3))
    actual = disturb(DeformableTransfer(2, 4, 2))([random(1, 2, 12, 12)], random(1, 2, 12, 12), silent, 1)
    assert torch.equal(actual, torch.zeros(1, 4, 12, 12))


def test_every_parameter_and_input_receives_the_true_gradient():
    sizes = [(12, 8), (8, 12)]
    correspondence = scattered(1, 2, 2, sizes)
    transfer = disturb(DeformableTransfer(2, 2, 1))
    features = [random(1, 2, h // 4, w // 4, seed=h).requires_grad_() for h, w in sizes]
    guide = random(1, 1, 2, 2, seed=3).requires_grad_()
    inputs = {
        **dict(transfer.named_parameters()),
        "guide": guide,
        **{f"map{k}": f for k, f in enumerate(features)},
    }
    weights = random(1, 2, 2, 2, seed=4) + 0.5

    def loss() -> torch.Tensor:
        return (transfer(features, guide, correspondence, 4) * weights).sum()

    gradients = torch.autograd.grad(loss(), list(inputs.values()))
    step = 1e-3
    for (name, tensor), gradient in zip(inputs.items(), gradients, strict=True):
        assert gradient.abs().max() > 0, name
        direction = gradient / gradient.norm()
        with torch.no_grad():
            tensor += step * direction
            above = loss()
            tensor -= 2 * step * direction
            below = loss()
            tensor += step * direction
        measured = float(above - below) / (2 * step)
        assert measured == pytest.approx(float(gradient.norm()), rel=0.05, abs=2e-3), name


def test_wrong_inputs_are_refused_with_the_expected_shape():
    identity = Correspondence.identity(1, 3, 4)
    with pytest.raises(ValueError, match="stride: expected 1, 2 or 4"):
        warp([random(1, 2, 12, 16)], identity, 3)
    with pytest.raises(ValueError, match="at least one reference, got none"):
        warp([], identity, 1)
    with pytest.raises(ValueError, match=r"features\[1\]: expected \[1,2,Hk,Wk\]"):
        warp([random(1, 2, 12, 16), random(1, 3, 12, 16)], identity, 1)
    with pytest.raises(ValueError, match=r"features: expected those of 2 references"):
        elsewhere = Correspondence(identity.reference + 1, identity.position, identity.confidence)
        warp([random(1, 2, 12, 16)], elsewhere, 1)
    with pytest.raises(ValueError, match=r"guide: expected \[1, 3, 6, 8\]"):
        DeformableTransfer(2, 2, 3)([random(1, 2, 6, 8)], random(1, 2, 6, 8), identity, 2)
