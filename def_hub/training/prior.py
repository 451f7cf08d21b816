"""Training the diffusion prior: a module whose forward pass is the loss, and which can export and validate itself."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

from def_hub.config import PriorConfig
from def_hub.data import Pair
from def_hub.diffusion.denoiser import Denoiser
from def_hub.diffusion.enhancer import DetailEnhancer, make_enhancer
from def_hub.hub.contents import check_network
from def_hub.training.given import OPERATOR, WATCHED, Given, degrade, degraded, given
from def_hub.training.growing import load_grown
from def_hub.training.validation import SHOWN, grid, mean_psnr, stacked


class PriorTask(nn.Module):
    """Trains a diffusion prior; see `Denoiser.loss`."""

    def __init__(self, config: PriorConfig, validation: list[Pair]) -> None:
        super().__init__()
        self.config = config
        self.unet, self.scheduler = make_prior(config)
        self.unet.to(memory_format=torch.channels_last)
        self.validation = validation

    @property
    def learner(self) -> nn.Module:
        """The network."""
        return self.unet

    @property
    def denoiser(self) -> Denoiser:
        return Denoiser(self.unet, self.scheduler.alphas_cumprod, self.config.prediction)

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator, step: int) -> Tensor:
        image = batch["image"]
        of = given(batch, self.config.known)
        condition = OPERATOR.pinv(of.y) * 2 - 1
        if self.config.known:
            condition = torch.cat((condition, F.interpolate(of.known, image.shape[2:])), dim=1)
        share = self.config.final_share
        return self.denoiser.loss(image * 2 - 1, condition, final_share=share, generator=generator)

    def start_from(self, folder: Path) -> None:
        check_network(folder / "unet", UNet2DModel.__name__)
        prior = UNet2DModel.from_pretrained(str(folder / "unet"), use_safetensors=True)
        load_grown(self.unet, prior.state_dict())

    def export(self, folder: Path) -> None:
        self.unet.save_pretrained(str(folder / "unet"))
        self.scheduler.save_pretrained(str(folder / "scheduler"))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        if not self.validation:
            return {}
        images = stacked(self.validation)["image"]
        enhancer = make_enhancer(self.unet, self.scheduler, OPERATOR)
        scores = {f"psnr_{steps}": mean_psnr(enhance(enhancer, images, steps), images) for steps in (1, 4)}
        for name in WATCHED if self.config.known else ():
            of = given(degraded(images, name), self.config.known)
            scores[f"psnr_{name}"] = mean_psnr(enhance_given(enhancer, of, 1), images)
        return scores | {"psnr_bicubic": mean_psnr(OPERATOR.upsample(degrade(images)), images)}

    @torch.no_grad()
    def pictures(self) -> Tensor | None:
        """Rows of bicubic, enhanced in one step, enhanced in four, truth."""
        if not self.validation:
            return None
        images = stacked(self.validation[:SHOWN])["image"]
        enhancer = make_enhancer(self.unet, self.scheduler, OPERATOR)
        columns = [OPERATOR.upsample(degrade(images)), *(enhance(enhancer, images, n) for n in (1, 4)), images]
        return grid(columns)


def make_prior(config: PriorConfig) -> tuple[UNet2DModel, DDIMScheduler]:
    """A new, untrained prior and its schedule."""
    levels = len(config.channels)
    folded = 3 * config.patch**2
    down, up = ["DownBlock2D"] * levels, ["UpBlock2D"] * levels
    if config.attention:  # ADM and the DDPM checkpoints attend at one low resolution
        down[-2], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    if config.known and not config.conditioned:
        raise ValueError("prior.known: only a prior with conditioned = true can be told what is known")
    unet = UNet2DModel(
        sample_size=config.window // config.patch,
        in_channels=folded * (2 if config.conditioned else 1) + config.known,
        out_channels=folded,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        norm_num_groups=config.groups,
        add_attention=config.attention,
    )
    if config.known:
        nn.init.zeros_(unet.conv_in.weight[:, -config.known :])
    if config.prediction == "sample":  # start from "nothing is missing"
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule="linear",
        prediction_type=config.prediction,
        clip_sample=False,
    )
    return unet, scheduler


def load_enhancer(folder: str) -> DetailEnhancer:
    """The enhancer of a folder that holds `unet` and `scheduler`."""
    check_network(Path(folder) / "unet", UNet2DModel.__name__)
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet", use_safetensors=True)
    unet.to(memory_format=torch.channels_last)
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    return make_enhancer(unet, scheduler, OPERATOR)


def enhance(enhancer: DetailEnhancer, images: Tensor, steps: int) -> Tensor:
    """The enhanced images of what is left of `images` after degradation, in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    parts = [enhancer(degrade(x), num_inference_steps=steps, generator=generator) for x in images.split(8)]
    return torch.cat(parts).clamp(0, 1)


def enhance_given(enhancer: DetailEnhancer, of: Given, steps: int, smallest: int | None = None) -> Tensor:
    """The enhanced images of a batch, told what is known of them, in [0, 1]. smallest: see `DetailEnhancer`."""
    loop = DetailEnhancer(enhancer.denoiser, of, window=enhancer.window, smallest=smallest)
    generator = torch.Generator().manual_seed(0)
    return loop(of.seen, num_inference_steps=steps, generator=generator).clamp(0, 1)
