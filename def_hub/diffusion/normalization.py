"""Group normalisation that sees a picture, whatever part of it the network is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class SharedStatistics(TorchFunctionMode):
    """Within this context the group norms of a network use the mean and the deviation of the first picture it sees.

    A group norm (Wu and He 2018) measures all that it is shown. A window of sky and one of leaves are normalised
    differently, then, and the windows of one picture disagree where they meet. With one picture measured for all of
    them they agree as far as the network is local.

        with SharedStatistics() as shared:
            network(picture)
            shared.fix()
            ...  # network(window), as often as needed
    """

    def __init__(self) -> None:
        super().__init__()
        self._measured: list[tuple[Tensor, Tensor]] = []  # mean and 1/deviation, [B,groups] each, in the order of calls
        self._fixed: Iterator[tuple[Tensor, Tensor]] | None = None

    def fix(self) -> None:
        """From now on nothing is measured."""
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
        # windows are outermost in the batch, and what was measured is one entry for each picture
        shift, scale = (
            t.float().repeat(batch // len(t), 1).repeat_interleave(channels // num_groups, 1) for t in next(self._fixed)
        )
        scale = scale if weight is None else scale * weight
        shift = -shift * scale if bias is None else bias - shift * scale
        scale, shift = (t.view(batch, channels, *[1] * (x.ndim - 2)) for t in (scale, shift))
        return torch.addcmul(shift, x, scale).to(x.dtype)
