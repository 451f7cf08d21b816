"""What each part is trained for: a module whose forward pass is the loss, and which can export and validate itself."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from def_hub.config import ExtractorConfig, PriorConfig, ReferenceConfig
from def_hub.data import Pair
from def_hub.diffusion.denoiser import Denoiser
from def_hub.diffusion.enhancer import DetailEnhancer, make_enhancer
from def_hub.hub.contents import check_network
from def_hub.reference.features import MiniFeatures, VGG19Features
from def_hub.reference.matcher import FeatureMemory, Matcher
from def_hub.reference.matching import Correspondence, Views
from def_hub.reference.matching.detail import believed
from def_hub.reference.network import Estimate, ReferenceNetwork
from def_hub.reference.restoring.transfer import spread
from def_hub.training.given import OPERATOR, WATCHED, Given, degrade, degraded, given, given_reference
from def_hub.training.losses import Critic, PerceptualLoss, adversarial_loss, critic_loss, grid_loss
from def_hub.training.teacher import Teacher

BICUBIC = "bicubic"  # the prior that adds nothing
SHOWN = 6  # pairs in a picture of the validation


def load_grown(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Start from the weights of a smaller network, whose function is kept: new inputs get weights of zero, and new
    residual blocks at the end of a trunk begin as the identity.

    Raises ValueError where the networks differ in another way.
    """
    grown = dict(module.state_dict())
    for name, value in state.items():
        new = grown.get(name)
        if new is None or new.ndim != value.ndim:
            raise ValueError(f"init: the network has no place for {name}")
        if new.shape != value.shape:
            if new.shape[2:] != value.shape[2:] or len(new) != len(value) or new.shape[1] < value.shape[1]:
                raise ValueError(f"init: {name} is {list(value.shape)}, expected {list(new.shape)} or fewer inputs")
            value = torch.cat((value, value.new_zeros(len(value), new.shape[1] - value.shape[1], *value.shape[2:])), 1)
        grown[name] = value
    if lost := sorted(name for name in grown.keys() - state.keys() if ".trunk." not in name):
        raise ValueError(f"init: the weights lack {lost[0]}")
    module.load_state_dict(grown)


def mean_psnr(a: Tensor, b: Tensor) -> float:
    """Mean RGB PSNR in dB of a batch of images in [0, 1]; for watching a run, not for reporting."""
    error = (a.clamp(0, 1) - b).square().flatten(1).mean(1).clamp_min(1e-12)
    return float((-10 * error.log10()).mean())


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


class ReferenceTask(nn.Module):
    """Trains Ref-SR (eq. 14) on top of a frozen extractor and, through the cached enhanced images, a frozen prior.

    With an adversarial term, network and critic are trained at once: each gets the gradient of its own loss alone.
    """

    def __init__(self, config: ReferenceConfig, validation: list[Pair]) -> None:
        super().__init__()
        self.config = config
        self.network = ReferenceNetwork(
            config.extractor,
            config.features,
            config.blocks,
            config.folded,
            config.match_estimate,
            deformable=config.deformable,
            known=config.known,
        )
        self.network.to(memory_format=torch.channels_last)
        if config.extractor_weights:
            self.network.feature_extractor.load_state_dict(load_file(config.extractor_weights))
        if config.perceptual and config.perceptual_weights is None:
            raise ValueError("reference.perceptual needs reference.perceptual_weights")
        self.perceptual = PerceptualLoss(str(config.perceptual_weights)) if config.perceptual else None
        self.critic = Critic() if config.adversarial else None
        kept = config.teacher is None or config.kept
        self.teacher = None if kept else Teacher(Path(str(config.teacher)), config.teacher_network)
        self.validation = stacked(validation) if validation else {}
        self.enhancer = None if config.prior in (None, BICUBIC) else load_enhancer(str(config.prior))
        if validation and self.enhancer is not None:
            for name in ("image", "reference"):
                self.validation[f"enhanced{'_reference' * (name == 'reference')}"] = enhance(
                    self.enhancer, self.validation[name], config.enhancer_steps
                )

    @property
    def learner(self) -> nn.Module:
        """What blends image and texture; features are frozen, and matches are found without a gradient."""
        return self.network.aggregator

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator, step: int) -> Tensor:
        of = given(batch, self.config.known)
        output, matches = self._output(of, batch)
        restored, truth = of.project(output, of.y), batch["image"]
        target = self._target(batch, matches)
        loss = F.l1_loss(restored, target)
        if step < self.config.reconstruction_steps:
            return loss
        if self.config.grid:
            loss = loss + self.config.grid * grid_loss(restored, target)
        if self.perceptual is not None:
            loss = loss + self.config.perceptual * self.perceptual(restored, target)
        if self.critic is not None:
            loss = loss + self.config.adversarial * adversarial_loss(self.critic, restored)
            loss = loss + critic_loss(self.critic, restored, truth, generator)
        return loss

    def _target(self, batch: dict[str, Tensor], matches: Correspondence | None) -> Tensor:
        """The truth, drawn towards what a teacher makes of the clean image where no reference shows more than that."""
        truth = batch["image"]
        if self.teacher is None and "taught" not in batch:
            return truth
        taught = batch["taught"] if self.teacher is None else self.teacher(truth)
        share = self.config.teaching * (1 if matches is None else 1 - spread(matches.confidence, 1))
        return truth + share * (taught - truth)

    @torch.no_grad()
    def match(self, batch: dict[str, Tensor]) -> Tensor:
        """Where the images of a batch are found in its references, `[B, 7, h, w]`: see `def_hub.data.Prepared`."""
        of = given(batch, self.config.known)
        estimate = self.network.estimate(of.seen, self._treated(batch, "image"))
        found = self._matches(of.y, estimate, batch, self.network.memory(of.y.device))
        return torch.cat((found.position, found.frames.flatten(1, 2), found.confidence), dim=1)

    def restored(self, batch: dict[str, Tensor]) -> Tensor:
        """What the pipeline would return, before clipping: the last projection is part of what is trained for."""
        of = given(batch, self.config.known)
        return of.project(self._output(of, batch)[0], of.y)

    def _output(self, of: Given, batch: dict[str, Tensor]) -> tuple[Tensor, Correspondence | None]:
        """The network's result, and the matches that it used."""
        if self.config.prior is None or "present" not in batch:
            return self.network.estimate(of.seen, self._enhanced(of)).once, None
        with torch.no_grad():  # the estimate is only what is compared; what is restored learns
            estimate = self.network.estimate(of.seen, self._treated(batch, "image"))
        features = self.network.memory(of.y.device)
        known = _correspondence(batch["match"]) if "match" in batch else self._matches(of.y, estimate, batch, features)
        matches = known.trusted(batch["present"].view(-1, 1, 1, 1))
        return self.network.restored(of.seen, estimate, [batch["reference"]], matches, features).sr, matches

    @torch.no_grad()
    def _matches(
        self, y: Tensor, estimate: Estimate, batch: dict[str, Tensor], features: FeatureMemory
    ) -> Correspondence:
        reference = given_reference(batch, self.config.known)
        theirs = self.network.estimate(reference.seen, self._treated(batch, "reference"))
        matcher = Matcher(features, self.config.matching_image, self.config.refined)
        key = Views(OPERATOR.upsample(reference.y), theirs.matched, batch["reference"])
        key = believed(key, OPERATOR) if self.network.config.match_estimate else key
        return matcher(Views(OPERATOR.upsample(y), estimate.matched), [key])

    def _treated(self, batch: dict[str, Tensor], name: str) -> Tensor:
        """Images or references of a batch, degraded and enhanced."""
        if self.config.prior == BICUBIC:
            view = given if name == "image" else given_reference
            return OPERATOR.upsample(view(batch, self.config.known).y)
        return batch["enhanced" if name == "image" else "enhanced_reference"]

    def _enhanced(self, of: Given) -> Tensor:
        """Of single images, which have no cache: they are drawn anew every time."""
        if self.enhancer is None:
            return OPERATOR.pinv(of.y)
        # a crop is not extended to a window: what would be added costs more than the crop itself
        return enhance_given(self.enhancer, of, self.config.enhancer_steps, self.enhancer.denoiser.multiple)

    def start_from(self, folder: Path) -> None:
        load_grown(self.network, ReferenceNetwork.from_pretrained(str(folder / "refsr")).state_dict())
        if self.config.extractor_weights:
            self.network.feature_extractor.load_state_dict(load_file(self.config.extractor_weights))

    def export(self, folder: Path) -> None:
        self.network.save_pretrained(str(folder / "refsr"))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """RGB PSNR with the true reference, without one, and with the reference of another pair; before them, where
        L_per is trained for, how near that says the first of them is, for sharpness costs PSNR."""
        if not self.validation:
            return {}
        every = self.validation | {"present": torch.ones(len(self.validation["image"]))}
        count = len(every["image"])
        shift = count // 2  # neighbours may show one scene
        unrelated = {k: v.roll(shift, 0) if "reference" in k else v for k, v in every.items()}
        none = every | {"present": torch.zeros_like(every["present"])}
        scores: dict[str, float] = {}
        for name, batch in {"true": every, "none": none, "unrelated": unrelated}.items():
            if (name != "none" and self.config.prior is None) or (name == "unrelated" and count == 1):
                continue
            parts = [self.restored({k: v[i : i + 8] for k, v in batch.items()}) for i in range(0, count, 8)]
            if not scores and self.perceptual is not None:
                pairs = zip(parts, every["image"].split(8), strict=True)
                distance = sum(len(part) * float(self.perceptual(part, truth)) for part, truth in pairs)
                scores[f"nearness_{name}"] = -distance / count
            scores[f"psnr_{name}"] = mean_psnr(torch.cat(parts), every["image"])
        for name in WATCHED if self.config.known else ():
            parts = [self.restored(degraded(images, name)) for images in every["image"].split(8)]
            scores[f"psnr_{name}"] = mean_psnr(torch.cat(parts), every["image"])
        return scores | {"psnr_bicubic": mean_psnr(OPERATOR.upsample(degrade(every["image"])), every["image"])}

    @torch.no_grad()
    def pictures(self) -> Tensor | None:
        """Rows of bicubic, result, truth and reference."""
        if not self.validation:
            return None
        some = {k: v[:SHOWN] for k, v in self.validation.items()}
        some["present"] = torch.ones(len(some["image"]))
        restored = self.restored(some).clamp(0, 1)
        return grid([OPERATOR.upsample(degrade(some["image"])), restored, some["image"], some["reference"]])


def _correspondence(match: Tensor) -> Correspondence:
    """Of a batch of matches in one reference each."""
    place, frame, confidence = match.split((2, 4, 1), dim=1)
    return Correspondence(
        torch.zeros_like(match[:, 0], dtype=torch.long), place, confidence, frame.unflatten(1, (2, 2))
    )


def grid(columns: list[Tensor]) -> Tensor:
    """Columns of pictures, each `[N, 3, H, W]`, → one picture `[3, N·H, columns·W]`."""
    return torch.cat([torch.cat(tuple(column), dim=1) for column in columns], dim=2)


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


def stacked(pairs: list[Pair]) -> dict[str, Tensor]:
    """Pairs as a batch in [0, 1]."""
    return {
        "image": torch.stack([p.image for p in pairs]).float() / 255,
        "reference": torch.stack([p.reference for p in pairs]).float() / 255,
    }


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
