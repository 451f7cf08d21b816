"""Training Ref-SR: a module as in `prior`."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from def_hub.config import ReferenceConfig
from def_hub.data import Pair
from def_hub.reference.matcher import FeatureMemory, Matcher
from def_hub.reference.matching import Correspondence, Views
from def_hub.reference.matching.detail import believed
from def_hub.reference.network import Estimate, ReferenceNetwork
from def_hub.reference.restoring.transfer import spread
from def_hub.training.given import OPERATOR, WATCHED, Given, degrade, degraded, given, given_reference
from def_hub.training.growing import load_grown
from def_hub.training.losses import Critic, PerceptualLoss, adversarial_loss, critic_loss, grid_loss
from def_hub.training.prior import enhance, enhance_given, load_enhancer
from def_hub.training.teacher import Teacher
from def_hub.training.validation import SHOWN, grid, mean_psnr, stacked

BICUBIC = "bicubic"  # the prior that adds nothing


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
