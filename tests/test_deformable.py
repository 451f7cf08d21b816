"""Properties of the deformable convolution, for every implementation."""

import pytest
import torch
import torch.nn.functional as F

from def_hub.reference.restoring import deformable
from def_hub.reference.restoring.deformable import TAPS, Reader


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_without_offsets_it_is_a_plain_convolution() -> None:
    features, weight = uniform(2, 5, 9, 7), uniform(6, 5, 3, 3, seed=1)
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    x, y = (t.flatten().repeat(2)[:, None] for t in (x, y))
    tap = torch.arange(TAPS)
    read = Reader([features], torch.zeros(2, 9, 7, dtype=torch.long))
    actual = read.convolved(x + tap % 3 - 1, y + tap // 3 - 1, torch.ones(len(x), TAPS), weight)
    torch.testing.assert_close(actual, F.conv2d(F.pad(features, (1, 1, 1, 1), "replicate"), weight))


@pytest.mark.parametrize("gathered", [2**22, 500])  # in one part; in many parts
@pytest.mark.parametrize("sizes", [[(20, 24)], [(4, 9), (31, 6), (1, 12)]])
def test_agrees_with_the_operator_of_torchvision(
    sizes: list[tuple[int, int]], gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = deformable._imported()
    if operator is None:
        pytest.skip("torchvision is not installed, or does not import beside this torch")
    monkeypatch.setattr(deformable, "GATHERED", gathered)
    features = [uniform(2, 5, *size, seed=size[0]) for size in sizes]
    reference = torch.randint(len(sizes), (2, 16, 12), generator=torch.Generator().manual_seed(1))
    pixels = reference.numel()
    x, y = (uniform(pixels, TAPS, seed=seed) * 40 - 6 for seed in (2, 3))  # also outside
    share, weight = uniform(pixels, TAPS, seed=4), uniform(7, 5, 3, 3, seed=5) - 0.5
    inputs = [t.requires_grad_() for t in (*features, x, y, share, weight)]

    def results() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        actual = Reader(features, reference).convolved(x, y, share, weight)
        return actual, torch.autograd.grad((actual * uniform(*actual.shape, seed=6)).sum(), inputs)

    ours, our_gradients = results()
    monkeypatch.setattr(deformable, "_torchvision", lambda device: operator)
    theirs, their_gradients = results()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_nan_place_reads_no_memory_outside_the_map() -> None:
    read = Reader([uniform(1, 3, 5, 4)], torch.zeros(1, 2, 2, dtype=torch.long))
    x = torch.tensor([[0.0], [float("nan")], [float("inf")], [1.0]])
    actual = read.at(x, torch.ones(4, 1))
    assert actual[0, :, 0, 1].isnan().all() and actual[0, :, 1].isfinite().all()
