"""Checks for `DEFPipeline.from_pretrained`. `DiffusionPipeline` only warns about unknown keywords and missing weights,
and then continues; these functions raise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from diffusers import SchedulerMixin, UNet2DModel
from torch import Tensor

from def_hub.hub import fetch
from def_hub.reference.network import ReferenceNetwork

COMPONENTS = {
    "unet": UNet2DModel,
    "scheduler": SchedulerMixin,
    "refsr": ReferenceNetwork,
    "refsr_detail": ReferenceNetwork,
}
LOADING = (
    *("dtype", "torch_dtype", "variant", "device_map", "max_memory", "low_cpu_mem_usage", "offload_folder"),
    *("offload_state_dict", "quantization_config", "disable_mmap", "proxies", "custom_pipeline", "custom_revision"),
    *("trust_remote_code", "load_connected_pipeline", "use_onnx", "provider", "sess_options", "provider_options"),
)
"""Keywords of `DiffusionPipeline.from_pretrained` in addition to `fetch.OPTIONS`. A test compares this list with the
installed diffusers."""


def check_options(options: Mapping[str, Any], optional: Collection[str]) -> list[str]:
    """Names of the components among the keywords of `from_pretrained`. An `optional` component may be None.

    Raises TypeError for an unknown keyword, or for a component of the wrong class.
    """
    passed = [name for name in COMPONENTS if name in options]
    for name in passed:
        part = options[name]
        part = getattr(part, "_orig_mod", part)  # `torch.compile` wraps the component
        if part is None and name in optional:
            continue
        if not isinstance(part, COMPONENTS[name]):
            got = repr(part) if isinstance(part, str | None) else type(part).__name__
            kind = COMPONENTS[name].__name__
            raise TypeError(f"{name}: expected a {kind}, as its from_pretrained loads it, got {got}")
    known = (*fetch.OPTIONS, *LOADING, *COMPONENTS, "operator", "window")
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"from_pretrained: no keyword {', '.join(unknown)}; there are {', '.join(known)}")
    return passed


def check_whole(name: str, part: str, component: Any) -> None:
    """Raise ValueError if the component `part` of the model `name` lacks one of its tensors after loading."""
    weights: dict[str, Tensor] = getattr(component, "state_dict", dict)()
    if missing := [key for key, value in weights.items() if value.is_meta]:
        raise ValueError(f"{name}: {part} lacks {missing[0]}")
