"""Starting from the weights of a smaller network."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor


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
