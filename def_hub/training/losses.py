"""Training losses of the restored image: perceptual and adversarial terms (eq. 14), and a term against LR grid
patterns.
"""

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
    """L_per: the mean squared difference of deep features (relu5_1 of VGG19 in the paper). The network is frozen.

    Args:
        path: safetensors of a VGG19 with any number of channels, up to the layer whose features are compared. Its
            tensors are `conv11.weight`, `conv12.weight` … (or `conv1_1.weight` …) with biases, and `conv0`, which maps
            RGB in [0, 1] to the input of the first layer.

    Raises:
        ValueError: if the file holds no such layers.
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
            if following and following[4] != name[4]:  # the next convolution belongs to the next block
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers).requires_grad_(False)

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        """Two images `[B, 3, H, W]` in [0, 1] → a scalar."""
        return F.mse_loss(self.features(image), self.features(truth))


def _conv(tensors: dict[str, Tensor], name: str) -> nn.Conv2d:
    weight = tensors[f"{name}.weight"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2])
    conv.load_state_dict({"weight": weight, "bias": tensors[f"{name}.bias"]})
    return conv


def grid_loss(image: Tensor, truth: Tensor) -> Tensor:
    """The part of the error that is the same in neighbouring cells of the LR grid: two images `[B, 3, 4h, 4w]` → a
    scalar.

    An adversarial loss asks for texture. A network that works on the LR grid, without noise as input, then tends to add
    the same pattern to every cell: faint lines four pixels apart (`evaluation.metrics.grid_pattern`). The other losses
    hardly measure them. This loss averages the error over 6×6 cells, separately for each of a cell's 16 pixels. For
    correctly placed detail this mean is near zero.
    """
    phases = F.pixel_unshuffle(image - truth, 4)  # [B, 48, h, w]
    return F.avg_pool2d(phases, 6, stride=2).square().mean()


class Critic(nn.Module):
    """The critic of WGAN: how real an image of at least 8×8 pixels looks, `[B, 3, H, W]` → `[B]`. It has no
    normalisation layers, because the gradient penalty is defined per image."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        channels = (3, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels, channels[1:], strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.2)]
            layers += [nn.Conv2d(outputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Scores `[B]`; a higher score means more real."""
        return self.layers(image - 0.5).mean((1, 2, 3))


def adversarial_loss(critic: Critic, image: Tensor) -> Tensor:
    """L_adv (WGAN), the loss of the network that made `image`. The critic gets no gradient from it."""
    frozen = {name: p.detach() for name, p in critic.named_parameters()}
    return -functional_call(critic, frozen, (image,)).mean()


def critic_loss(
    critic: Critic, image: Tensor, truth: Tensor, generator: torch.Generator, penalty: float = 10.0
) -> Tensor:
    """The loss of the critic (WGAN-GP, Gulrajani et al. 2017). The network that made `image` gets no gradient from
    it."""
    image = image.detach()
    share = torch.rand(len(image), 1, 1, 1, generator=generator).to(image)
    between = torch.lerp(truth, image, share).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    steepness = slope.flatten(1).norm(dim=1)
    return critic(image).mean() - critic(truth).mean() + penalty * (steepness - 1).square().mean()
