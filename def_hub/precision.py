"""Half precision where it pays: the one place that knows which processors compute fast in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, get_args

import torch

from def_hub.settings import Precision


def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products and convolutions in bfloat16 are faster than in float32 there.

    Asked of the processor, not measured: the same machine must always answer alike, busy or not.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def compute_in(precision: Precision, device: torch.device, weights: torch.dtype = torch.float32) -> torch.autocast:
    """A context in which convolutions and matrix products run in `precision`, whatever their inputs; "auto" is bfloat16
    where `fast_bfloat16`. Networks whose `weights` are stored in half precision keep to that.

    Raises ValueError for an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    half = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))
    dtype = weights if weights != torch.float32 else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=half or weights != torch.float32)


def stored_precision(weights: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """A context in which a network whose `weights` are stored in half precision computes in that, whatever is set
    around it; a network in float32 computes in what is set.

    Raises ValueError for weights that are neither float32, float16 nor bfloat16.
    """
    if weights not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"expected weights in float32, float16 or bfloat16, got {weights}")
    return nullcontext() if weights == torch.float32 else torch.autocast(device.type, weights)


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Within it torch makes float32 of Python's numbers, whatever the caller has set for the process."""
    former = torch.get_default_dtype()
    if former == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(former)
