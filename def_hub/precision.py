"""Which precision the networks compute in, and which processors are fast in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, get_args

import torch

from def_hub.settings import Precision


def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products and convolutions are faster in bfloat16 than in float32 on this device.

    The answer comes from the processor's feature flags, not from a measurement. A busy machine therefore gives the same
    answer as an idle one.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older versions of torch lack it
        return False
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))


def compute_in(precision: Precision, device: torch.device, weights: torch.dtype = torch.float32) -> torch.autocast:
    """A context in which convolutions and matrix products run in `precision`, whatever the type of their inputs.

    "auto" is bfloat16 where `fast_bfloat16` is true, else float32. Networks with half-precision `weights` compute in
    the precision of their weights. Raises ValueError for an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    half = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))
    dtype = weights if weights != torch.float32 else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=half or weights != torch.float32)


def stored_precision(weights: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """A context in which a network with half-precision `weights` computes in their precision.

    For float32 weights the context changes nothing: a surrounding `compute_in` stays in force. Raises ValueError for
    weights that are neither float32, float16 nor bfloat16.
    """
    if weights not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"expected weights in float32, float16 or bfloat16, got {weights}")
    return nullcontext() if weights == torch.float32 else torch.autocast(device.type, weights)


@contextmanager
def float32_by_default() -> Iterator[None]:
    """A context in which torch's default type is float32, whatever default the caller has set for the process."""
    former = torch.get_default_dtype()
    if former == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(former)
