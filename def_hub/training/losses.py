"""What a restored picture is punished for: perceptual and adversarial terms (eq. 14), and patterns of the LR grid."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from torch.func import functional_call


class PerceptualLoss(nn.Module):
    """Mean squared difference of deep features, L_per; relu5_1 of VGG19 in the paper.

    Reads VGG19 of any width up to its last given layer from safetensors: tensors `conv11.weight`, `conv12.weight` …
    or `conv1_1.weight` …, and `conv0`, which takes RGB in [0, 1] to what the first layer expects. Frozen.
    Raises ValueError where the file holds no such layers.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        tensors = load_file(path)
        names = sorted({m[0] for m in (re.match(r"conv(\d)_?(\d)(?=\.weight)", k) for k in tensors) if m})
        if "conv0.weight" not in tensors or not names:
            raise ValueError(
                f"{path}: expected the tensors conv0.* and conv11.* (or conv1_1.*) …, got {sorted(tensors)[:4]}"
            )
        layers: list[nn.Module] = [_conv(tensors, "conv0")]
        for name, following in zip(names, [*names[1:], ""], strict=True):
            layers += [nn.ReflectionPad2d(1), _conv(tensors, name), nn.ReLU()]
            if following and following[4] != name[4]:  # the next block begins
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers).requires_grad_(False)

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        """Two pictures `[B, 3, H, W]` in [0, 1] → a number."""
        return F.mse_loss(self.features(image), self.features(truth))


def _conv(tensors: dict[str, Tensor], name: str) -> nn.Conv2d:
    weight = tensors[f"{name}.weight"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
    conv.load_state_dict({"weight": weight, "bias": tensors[f"{name}.bias"]})
    return conv


def grid_loss(image: Tensor, truth: Tensor) -> Tensor:
    """Of an error, what repeats from cell to cell of the LR grid: two pictures `[B, 3, 4h, 4w]` → a number.

    A network that computes on that grid, has no noise to draw from and is to add texture adds the same to every cell:
    faint lines four pixels apart, which the other terms hardly see (`evaluation.metrics.grid_pattern`). What each of a
    cell's 16 pixels adds in the mean of 6×6 cells is near zero for detail that is where it should be.
    """
    phases = F.pixel_unshuffle(image - truth, 4)  # [B, 48, h, w]
    return F.avg_pool2d(phases, 6, stride=2).square().mean()


class Critic(nn.Module):
    """How real a picture of any size from 8×8 up looks: `[B, 3, H, W]` → `[B]`. No normalisation, as the gradient
    penalty is per picture."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        channels = (3, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.2)]
            layers += [nn.Conv2d(outputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Higher looks more real."""
        return self.layers(image - 0.5).mean((1, 2, 3))


def adversarial_loss(critic: Critic, image: Tensor) -> Tensor:
    """L_adv of the network that made `image` (WGAN). The critic gets no gradient from it."""
    frozen = {name: p.detach() for name, p in critic.named_parameters()}
    return -functional_call(critic, frozen, (image,)).mean()


def critic_loss(
    critic: Critic, image: Tensor, truth: Tensor, generator: torch.Generator, penalty: float = 10.0
) -> Tensor:
    """What the critic itself is trained on (WGAN-GP, Gulrajani et al. 2017). `image` gets no gradient from it."""
    image = image.detach()
    share = torch.rand(len(image), 1, 1, 1, generator=generator).to(image)
    between = torch.lerp(truth, image, share).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    steepness = slope.flatten(1).norm(dim=1)
    return critic(image).mean() - critic(truth).mean() + penalty * (steepness - 1).square().mean()
