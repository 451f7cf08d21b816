"""The terms of eq. 14, and which network gets gradients from which."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from def_hub.training.losses import Critic, PerceptualLoss, adversarial_loss, critic_loss, grid_loss

from .helpers.pictures import picture


def tensors(width: int = 4) -> dict[str, torch.Tensor]:
    """The tensors of a VGG19 up to relu3_1 with `width` channels, named like the teacher's weights."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv0": (3, 3, 1, 1), "conv11": (width, 3, 3, 3), "conv21": (width, width, 3, 3)}
    weights = {f"{k}.weight": torch.randn(v, generator=generator) for k, v in shapes.items()}
    return weights | {f"{k}.bias": torch.randn(v[0], generator=generator) for k, v in shapes.items()}


def test_perceptual_loss_is_the_distance_of_the_last_layer(tmp_path: Path) -> None:
    stored = tensors()
    save_file(stored, tmp_path / "vgg.safetensors")
    loss = PerceptualLoss(tmp_path / "vgg.safetensors")
    a, b = picture(24, 20), picture(24, 20).flip(-1)

    def by_hand(x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.conv2d(x, stored["conv0.weight"], stored["conv0.bias"])
        for name in ("conv11", "conv21"):
            x = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
            x = torch.nn.functional.conv2d(x, stored[f"{name}.weight"], stored[f"{name}.bias"]).relu()
            if name == "conv11":
                x = torch.nn.functional.max_pool2d(x, 2)
        return x

    torch.testing.assert_close(loss(a, b), (by_hand(a) - by_hand(b)).square().mean())
    assert loss(a, a) == 0 and not any(p.requires_grad for p in loss.parameters())
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="expected the tensors conv0"):
        PerceptualLoss(tmp_path / "other.safetensors")


def test_network_and_critic_learn_only_from_their_own_loss() -> None:
    critic, generator = Critic(4), torch.Generator().manual_seed(0)
    image = picture(16, 24).clone().requires_grad_()
    adversarial_loss(critic, image).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(p.grad is None for p in critic.parameters())
    image.grad = None
    critic_loss(critic, image, picture(16, 24).flip(-1), generator).backward()
    assert image.grad is None and all(p.grad is not None for p in critic.parameters())


@pytest.mark.parametrize("size", [(8, 8), (21, 34)])
def test_the_critic_learns_and_its_slope_stays_near_one(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    critic, generator = Critic(8), torch.Generator().manual_seed(0)
    truth = picture(*size).expand(4, -1, -1, -1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(120):
        made = (truth + 0.2 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
        optimizer.zero_grad()
        critic_loss(critic, made, truth, generator).backward()
        optimizer.step()
    assert critic(truth).mean() > critic(made).mean() + 0.5
    between = torch.lerp(truth, made, 0.5).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between)
    assert 0.5 < slope.flatten(1).norm(dim=1).mean() < 1.5


def test_grid_loss_measures_what_repeats_in_every_cell() -> None:
    truth, noise = picture(96, 80), 0.02 * torch.randn(1, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    pattern = 0.02 * torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)).repeat(1, 1, 24, 20)
    chance, repeated = grid_loss(truth + noise, truth), grid_loss(truth + pattern, truth)
    assert grid_loss(truth, truth) == 0 and repeated == pytest.approx(pattern.square().mean().item(), rel=1e-3)
    assert chance < 0.1 * repeated  # the mean over 36 cells: a thirty-sixth
