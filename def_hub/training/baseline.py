"""Training of published networks on the same pairs and steps: what their ideas make of equal means."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from def_hub.config import BaselineConfig
from def_hub.convert.checkpoint import load_strictly
from def_hub.data import Pair
from def_hub.evaluation.baselines import BASELINES, SIZES
from def_hub.training.given import OPERATOR, degrade
from def_hub.training.validation import SHOWN, grid, mean_psnr, stacked

VGG = {"ttsr": "refsr.feature_extractor", "c2-matching": "vgg"}
"""Where these networks have VGG19."""


class BaselineTask(nn.Module):
    """Trains a network for L1, as the "-rec" rows of the field's tables. Clean LR images; every pair has its reference.

    Raises ValueError for sizes that the network does not take, and for TTSR or C2-Matching without VGG19's weights.
    """

    def __init__(self, config: BaselineConfig, validation: list[Pair]) -> None:
        super().__init__()
        self.config = config
        self.baseline = BASELINES[config.network]
        try:
            self.network = self.baseline.make(**config.sizes)
        except TypeError as error:
            raise ValueError(f"baseline.sizes: {error}") from error
        if where := VGG.get(config.network):
            if config.vgg is None:
                raise ValueError(f"baseline.vgg: {config.network} needs the weights of VGG19")
            self.network.get_submodule(where).load_state_dict(load_file(config.vgg))
        self.validation = stacked(validation) if validation else {}

    @property
    def learner(self) -> nn.Module:
        """The network."""
        return self.network

    def restored(self, batch: dict[str, Tensor]) -> Tensor:
        """`[B, 3, H, W]`, not clipped."""
        small = degrade(batch["image"])
        return self.network(small, [batch["reference"]]) if self.baseline.uses_references else self.network(small)

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator, step: int) -> Tensor:
        return F.l1_loss(self.restored(batch), batch["image"])

    def start_from(self, folder: Path) -> None:
        load_strictly(self.network, folder / f"{self.config.network}.safetensors")

    def export(self, folder: Path) -> None:
        """One file, which `def-hub evaluate --method NAME=FILE` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        path = folder / f"{self.config.network}.safetensors"
        save_file(weights, path, metadata={SIZES: json.dumps(self.config.sizes)})

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """RGB PSNR, and that of bicubic enlargement."""
        if not self.validation:
            return {}
        images = self.validation["image"]
        parts = [
            self.restored({name: value[i : i + 8] for name, value in self.validation.items()})
            for i in range(0, len(images), 8)
        ]
        bicubic = mean_psnr(OPERATOR.upsample(degrade(images)), images)
        return {"psnr": mean_psnr(torch.cat(parts), images), "psnr_bicubic": bicubic}

    @torch.no_grad()
    def pictures(self) -> Tensor | None:
        """Rows of bicubic, result, truth and reference."""
        if not self.validation:
            return None
        some = {name: value[:SHOWN] for name, value in self.validation.items()}
        small, restored = OPERATOR.upsample(degrade(some["image"])), self.restored(some).clamp(0, 1)
        return grid([small, restored, some["image"], some["reference"]])
