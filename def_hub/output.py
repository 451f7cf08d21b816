"""What a call returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from def_hub.images import to_pil, with_alpha
from def_hub.observation.agreement import Agreement
from def_hub.observation.assessment import Assessment
from def_hub.reference.library import Choice
from def_hub.reference.matching import Correspondence
from def_hub.reference.picture import ReferencePicture

Picture = Image.Image | np.ndarray | Tensor


@dataclass
class DEFOutput(BaseOutput):
    """What a call returns: lists with one entry per image. `output_type` decides the type of the pictures.

    images: the results, 4h×4w. Pillow images have the transparency of the input.
    enhanced: I_DE, the diffusion prior's estimate from the image alone, 4h×4w.
    confidence: `[h, w]` in [0, 1], how far the match of each LR pixel is trusted; zeros without references.
    correspondence: `[3, h, w]`: number of the reference from 0 (-1: none), x and y in pixels of that reference.
    transferred: the references' pixels, moved to where they match the image, 4h×4w; None without references.
    provenance: `[2 + K, 4h, 4w]` shares that sum to one: of the input, the priors, and references 1 … K.
    consistency_error: the largest deviation of the 8-bit result, shrunk again, from the input, or from the nearest
        picture that agrees with a degraded input, in 1/255.
    observation: what was assumed of the input, and how sure that is.
    agreement: how well the result agrees with the file, with words for people.
    choices: with a library, which of its photos were chosen as references 1 … K, and why the next ones were not; empty
        without one.
    alpha: `[1, 4h, 4w]`, 0 where the input was transparent; None where it was opaque.
    """

    images: list[Any]
    enhanced: list[Any]
    confidence: list[Tensor]
    correspondence: list[Tensor]
    transferred: list[Any]
    provenance: list[Tensor]
    consistency_error: list[float]
    observation: list[Assessment] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    alpha: list[Tensor | None] = field(default_factory=list)


def output_of(results: list[dict[str, Any]], choices: list[Choice], output_type: str) -> DEFOutput:
    """Lists with one entry for each image, pictures in the form that the caller asked for."""
    for result in results:
        if output_type == "pil":
            result["images"] = with_alpha(result["images"][0], result["alpha"])[None]
        result |= {name: _picture(result[name], output_type) for name in ("images", "enhanced", "transferred")}
    return DEFOutput(**{name: [result[name] for result in results] for name in results[0]}, choices=choices)


def _picture(x: Tensor | None, output_type: str) -> Picture | None:
    """`x` `[1, 3 or 4, H, W]` as the type that `output_type` names."""
    if x is None:
        return None
    if output_type == "pil":
        return to_pil(x)
    x = x[0].clamp(0, 1).cpu()
    return x if output_type == "pt" else x.permute(1, 2, 0).numpy()


def confidence_of(matches: Correspondence | None, y: Tensor) -> Tensor:
    """`DEFOutput.confidence` of one image."""
    return torch.zeros(y.shape[-2:]) if matches is None else matches.confidence[0, 0].cpu()


def correspondence_of(matches: Correspondence | None, y: Tensor, seen: Sequence[ReferencePicture]) -> Tensor:
    """`DEFOutput.correspondence` of one image, in pixels of the references as the caller gave them."""
    if matches is None:
        return torch.full((3, *y.shape[-2:]), -1.0)
    reference, position = matches.reference[0], matches.position[0]
    for number, picture in enumerate(seen):
        position = torch.where(reference == number, picture.original(position), position)
    return torch.cat((reference[None].float(), position)).cpu()
