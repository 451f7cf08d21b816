"""Where half precision pays: the one place that knows which processors compute fast in bfloat16."""

from __future__ import annotations

import torch


def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products and convolutions in bfloat16 are faster than in float32 there.

    Asked of the processor, not measured: the same machine must always answer alike, busy or not.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.11
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))
