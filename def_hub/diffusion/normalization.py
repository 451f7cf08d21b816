"""Group normalisation with the statistics of a whole picture while the network sees windows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class SharedStatistics(TorchFunctionMode):
    """A context in which the group norms of a network reuse the mean and variance of the first picture.

    A group norm (Wu and He 2018) normalises by the statistics of its whole input. A window of sky and a window of
    leaves are therefore normalised differently, and neighbouring windows disagree where they overlap. Shared statistics
    remove this disagreement as far as the network is otherwise local.

        with SharedStatistics() as shared:
            network(picture)  # measures
            shared.fix()
            network(window)  # reuses, any number of times
    """

    def __init__(self) -> None:
        super().__init__()
        self._measured: list[tuple[Tensor, Tensor]] = []  # mean and 1/deviation, [B,groups] each, in order of execution
        self._fixed: Iterator[tuple[Tensor, Tensor]] | None = None

    def fix(self) -> None:
        """Stop measuring: the group norms reuse the statistics measured so far, in the same order."""
        self._fixed = cycle(self._measured)

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = self._group_norm if function is F.group_norm else function
        return operation(*args, **(kwargs or {}))  # torch disables the mode in here: no recursion

    def _group_norm(
        self, x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        batch, channels = x.shape[:2]
        if self._fixed is None:
            grouped = x.float().reshape(batch, num_groups, -1)
            variance, mean = torch.var_mean(grouped, dim=-1, correction=0)
            self._measured.append((mean, (variance + eps).rsqrt()))
            return F.group_norm(x, num_groups, weight, bias, eps)
        # The batch holds all pictures of the first window, then all of the second, and so on. There is one pair of
        # statistics for each picture.
        shift, scale = (
            t.float().repeat(batch // len(t), 1).repeat_interleave(channels // num_groups, 1) for t in next(self._fixed)
        )
        scale = scale if weight is None else scale * weight
        shift = -shift * scale if bias is None else bias - shift * scale
        scale, shift = (t.view(batch, channels, *[1] * (x.ndim - 2)) for t in (scale, shift))
        return torch.addcmul(shift, x, scale).to(x.dtype)
