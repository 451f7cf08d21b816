"""Training the features that matching compares: a module as in `prior`."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from def_hub.config import ExtractorConfig
from def_hub.data import Pair
from def_hub.reference.features import MiniFeatures, VGG19Features
from def_hub.training.given import OPERATOR, degrade


class ExtractorTask(nn.Module):
    """Trains `MiniFeatures` for correspondence: a patch of a degraded, partly re-sharpened image must find its own
    place in a warped, photometrically changed copy, among all other places of that copy and of the other copies of
    the batch.

    Both sides are drawn at a random point between "bicubic" and "sharp", so that the descriptor means the same in every
    domain that matching mixes. With a teacher, its three levels are also approximated through 1×1 heads (distillation).
    """

    def __init__(self, config: ExtractorConfig, validation: list[Pair]) -> None:
        super().__init__()
        self.config = config
        self.extractor = MiniFeatures()
        self.teacher: VGG19Features | None = None
        if config.teacher:
            self.teacher = VGG19Features.from_safetensors(config.teacher).requires_grad_(False)
            sizes = zip(self.extractor.channels, self.teacher.channels, strict=True)
            self.heads = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in sizes)
        self.validation = validation

    @property
    def learner(self) -> nn.Module:
        """The extractor."""
        return self.extractor

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator, step: int) -> Tensor:
        image = batch["image"]
        theta = _random_similarities(len(image), generator).to(image)
        grid = F.affine_grid(theta, list(image.shape), align_corners=False)
        copy = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
        copy = (
            copy * _random((len(image), 3, 1, 1), 0.85, 1.15, generator)
            + _random((len(image), 1, 1, 1), -0.08, 0.08, generator)
        ).clamp(0, 1)
        query = self.extractor(_resharpen(image, generator))
        key = self.extractor(_resharpen(copy, generator))
        loss = self._contrast(query[2], key[2], grid, generator)
        if self.teacher is not None:
            loss = loss + self.config.distill * self._distillation(image)
        return loss

    def _contrast(self, query: Tensor, key: Tensor, grid: Tensor, generator: torch.Generator) -> Tensor:
        """Symmetric InfoNCE over 3×3 patches at random positions of the copy; `grid` says where each comes from."""
        batch, _, height, width = key.shape
        patches = (F.normalize(F.unfold(f, 3, padding=1), dim=1).unbind() for f in (query, key))
        # source of every key cell, in cells of the query
        source = F.avg_pool2d(grid.permute(0, 3, 1, 2), 4)
        size = torch.tensor([width, height]).view(1, 2, 1, 1)
        source = ((source + 1) * size / 2 - 0.5).round().long().flatten(2)
        inside = ((source >= 0) & (source < size.flatten(2))).all(1)
        loss = query.new_zeros(())
        for n, (query_n, key_n) in enumerate(zip(*patches, strict=True)):
            cells = inside[n].nonzero()[:, 0]
            cells = cells[torch.randperm(len(cells), generator=generator)[: self.config.positions]]
            x, y = source[n][:, cells]
            # every cell of the image competes, not only the drawn ones: matching will search them all
            logits = key_n[:, cells].T @ query_n / self.config.temperature
            target = y * width + x
            column = torch.arange(width * height)
            near = ((column % width - x[:, None]).abs() <= 1) & ((column // width - y[:, None]).abs() <= 1)
            near[torch.arange(len(cells)), target] = False
            loss = loss + F.cross_entropy(logits.masked_fill(near, -torch.inf), target)
        return loss / batch

    def _distillation(self, image: Tensor) -> Tensor:
        assert self.teacher is not None
        image = image[:2]  # the teacher costs forty times the student
        wanted = self.teacher(image)
        terms = (
            F.l1_loss(head(got), want) / want.abs().mean()
            for head, got, want in zip(self.heads, self.extractor(image), wanted, strict=True)
        )
        return sum(terms, image.new_zeros(()))

    def start_from(self, folder: Path) -> None:
        self.extractor.load_state_dict(load_file(folder / "extractor.safetensors"))

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.contiguous() for k, v in self.extractor.state_dict().items()},
            folder / "extractor.safetensors",
        )

    def validate(self) -> dict[str, float]:
        return {}

    def pictures(self) -> Tensor | None:
        """None: there is nothing to look at."""
        return None


def _random(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _random_similarities(count: int, generator: torch.Generator) -> Tensor:
    """`[count, 2, 3]` maps from a copy to its original: rotation ±12°, scale 0.8 … 1.25, shift up to a fifth."""
    angle = _random((count,), -0.2, 0.2, generator)
    scale = torch.exp(_random((count,), -0.22, 0.22, generator))
    shift = _random((2, count), -0.2, 0.2, generator)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack((cos, -sin, shift[0], sin, cos, shift[1]), dim=1).view(-1, 2, 3)


def _resharpen(image: Tensor, generator: torch.Generator) -> Tensor:
    """Between the bicubic enlargement of the image's LR version (0) and the image itself (1), drawn per image."""
    share = _random((len(image), 1, 1, 1), 0, 1, generator)
    return torch.lerp(OPERATOR.upsample(degrade(image)), image, share)
