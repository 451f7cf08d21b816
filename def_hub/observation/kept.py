"""Tensors that are made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")


def kept(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator for functions that make tensors: the results of the last `most` arguments are kept. They are made
    outside of `torch.inference_mode`, because training may use them later."""

    def keeping(make: Callable[P, T]) -> Callable[P, T]:
        return cast(Callable[P, T], lru_cache(maxsize=most)(torch.inference_mode(False)(make)))

    return keeping
