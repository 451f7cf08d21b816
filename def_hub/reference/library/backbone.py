"""A vision model of `transformers` as the embedder of a library. The only place that imports `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from def_hub.hub.errors import plainly
from def_hub.images import to_pil
from def_hub.reference.library.embedding import Query, fingerprint_of


class Backbone:
    """The pooled output of a vision model, for the whole photo and for five overlapping parts of it.

    Args:
        name: a model on the Hub or in a folder. `AutoModel` must load it, and it must take pictures.

    Raises:
        OSError: for a model that cannot be loaded.
        ValueError: for a model that does not take pictures.
    """

    side = 448
    PARTS = ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5))
    """Where the parts begin, down and right: 0 at the top or left edge, 1 as far as they go."""
    SHARE = 0.6
    """Height and width of a part, as a share of the photo's."""

    def __init__(self, name: str) -> None:
        from transformers import AutoImageProcessor, AutoModel

        self.name = name
        with plainly(name):
            # without torchvision the processors on Pillow are the ones that load
            self._processor: Any = AutoImageProcessor.from_pretrained(name, backend="pil", trust_remote_code=False)
            model: nn.Module = AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self._model.state_dict(), self._processor.to_json_string())

    def photo(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[2:]
        tall, wide = round(self.SHARE * height), round(self.SHARE * width)
        parts = [picture]
        for down, right in self.PARTS:
            top, left = round(down * (height - tall)), round(right * (width - wide))
            parts.append(picture[..., top : top + tall, left : left + wide])
        return self._vectors(parts)

    def query(self, small: Tensor, large: Tensor) -> Query:
        return Query(self._vectors([large]), torch.ones(1))

    @torch.no_grad()
    def _vectors(self, pictures: Sequence[Tensor]) -> Tensor:
        given = self._processor(images=[to_pil(picture) for picture in pictures], return_tensors="pt")
        output = self._model(pixel_values=given["pixel_values"].to(self._device))
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            hidden = output.last_hidden_state  # [B,tokens,D], or [B,D,h,w] of a convolutional network
            pooled = hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))
        return F.normalize(pooled.flatten(1).float(), dim=1)
