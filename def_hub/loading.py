"""Checks for `DEFPipeline.from_pretrained`. `DiffusionPipeline` only warns about unknown keywords and missing weights,
and then continues; these functions raise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import SchedulerMixin, UNet2DModel
from torch import Tensor

from def_hub.hub import fetch
from def_hub.hub.contents import read_config, read_index, read_tensors, weights_of
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

    Raises TypeError for an unknown keyword or a component of the wrong class, ValueError for one that would run code.
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
    for name in ("custom_pipeline", "trust_remote_code"):
        if options.get(name):
            raise ValueError(f"{name}: no code of a repository is run; got {options[name]!r}")
    known = (*fetch.OPTIONS, *LOADING, *COMPONENTS, "operator", "window")
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"from_pretrained: no keyword {', '.join(unknown)}; there are {', '.join(known)}")
    return passed


def check_weights(folder: Path, name: str, variant: str | None = None, without: Collection[str] = ()) -> None:
    """Compare names and shapes of the stored tensors with the networks of the configurations, before they are read.

    name: what the model is called in messages. variant, without: as in `fetch.locate`, which has checked the files.

    Raises ValueError for a tensor that is missing, has another shape, or has no place; for a configuration that no
    network can be made of; and for a scheduler that is none of diffusers.
    """
    for part, (_, kind) in read_index(folder).items():
        if part in without:
            continue
        if part == "scheduler":
            scheduler_class(kind, name)
            continue
        stored: dict[str, tuple[int, ...]] = {}
        for path in weights_of(folder / part, variant):
            stored |= {_renamed(key): shape for key, shape in read_tensors(path).items()}
        _check_shapes(f"{name}: {part}", _shapes(COMPONENTS[part], folder / part / "config.json", len(stored)), stored)


def scheduler_class(kind: str, name: str) -> Any:
    """The scheduler of diffusers that is called `kind`. Raises ValueError, beginning with `name`, if there is none."""
    found = getattr(diffusers, kind, None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise ValueError(f"{name}: its scheduler {kind!r} is none of diffusers")
    return found


def check_whole(name: str, part: str, component: Any) -> None:
    """Raise ValueError if a tensor of the component `part` of the model `name` was not loaded, or is not finite."""
    weights: dict[str, Tensor] = getattr(component, "state_dict", dict)()
    for key, value in weights.items():
        if value.is_meta:
            raise ValueError(f"{name}: {part} lacks {key}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name}: {part}: {key} has NaN or infinity")


def _shapes(network: Any, path: Path, most: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of the network that a config.json describes; it is made without memory for them.

    most: number of stored tensors. A configuration of more layers is refused: making them would take forever.
    """
    config = read_config(path, network.__name__)
    for key in ("layers_per_block", "blocks"):
        counts = config.get(key, 1)
        if any(n > most for n in (counts if isinstance(counts, list) else [counts]) if isinstance(n, int)):
            raise ValueError(f"{path}: {key}: expected no more layers than the {most} stored tensors, got {counts}")
    try:
        with torch.device("meta"):
            made = network.from_config(config)
    except Exception as error:  # a configuration can be wrong in any way
        raise ValueError(f"{path}: no {network.__name__} can be made of it ({error})") from error
    return {key: tuple(value.shape) for key, value in made.state_dict().items()}


def _check_shapes(where: str, wanted: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]) -> None:
    for key, shape in wanted.items():
        if key not in stored:
            raise ValueError(f"{where} lacks {key}")
        if stored[key] != shape:
            raise ValueError(
                f"{where}: {key} has the shape {list(stored[key])}, its config.json asks for {list(shape)}"
            )
    if extra := sorted(set(stored) - set(wanted)):
        raise ValueError(f"{where} has no place for {extra[0]}")


def _renamed(key: str) -> str:
    """Attention as diffusers names it today; it renames the tensors of older priors in the same way."""
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        key = key.replace(f".{old}.", f".{new}.")
    return key
