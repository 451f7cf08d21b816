"""Parts, from folders and the Hub → one pipeline folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import SchedulerMixin, UNet2DModel
from safetensors import safe_open
from safetensors.torch import load_file

from def_hub.convert.ttsr import BASE
from def_hub.hub import fetch
from def_hub.hub.contents import check_network, read_config
from def_hub.hub.publish import check_runs
from def_hub.loading import scheduler_class
from def_hub.pipeline import EMBEDDED, DEFPipeline
from def_hub.reference.network import ReferenceNetwork

CONFIGS = ("def-base", "def-mini", "base")
"""Kinds of `ReferenceNetwork`: the paper's sizes, the embedded default's, and TTSR's own network."""


def assemble(
    config: str,
    *,
    unet: str | Path,
    refsr: str | Path | None = None,
    extractor: str | Path | None = None,
    refsr_detail: str | Path | None = None,
    operator: str = "bicubic",
    window: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> DEFPipeline:
    """The pipeline of these parts; `save_pretrained` makes a folder of it.

    Args:
        config: one of `CONFIGS`.
        unet: folder or Hub name with a `UNet2DModel` and its scheduler, at the top or in `unet/` and `scheduler/`.
        refsr, refsr_detail: folder or Hub name of a `ReferenceNetwork`, at the top or in `refsr/` (`refsr_detail/`).
            Without `refsr` a new network is made, which returns the enhanced image until it is trained.
        extractor: safetensors as `def-hub convert vgg19` or the extractor's training writes them, or a folder or Hub
            name that has them as `extractor.safetensors`; they take the place of those in `refsr`.
        operator: see `DEFPipeline`; a `refsr` that exists was made for one, which must be this. window: see there, too.
        dtype: of all weights.

    Raises:
        ValueError: for parts that are missing or do not fit together, or weights that are not safetensors.
        OSError: where something cannot be fetched.
    """
    if config not in CONFIGS:
        raise ValueError(f"config: expected one of {', '.join(CONFIGS)}, got {config!r}")
    if refsr is None and extractor is None:
        raise ValueError("refsr, extractor: expected at least one of them; an untrained extractor finds no matches")
    prior, scheduler = load_prior(unet)
    if refsr is not None:
        network = _network(refsr, "refsr", config)
    else:
        network = ReferenceNetwork(**{**_arguments(config), "operator": operator})
    if extractor is not None:
        network = _with_extractor(network, fetch.locate_file(extractor, "extractor.safetensors"))
    pipe = DEFPipeline(
        unet=prior,
        scheduler=scheduler,
        refsr=network,
        refsr_detail=None if refsr_detail is None else _network(refsr_detail, "refsr_detail", config),
        operator=operator,
        window=window,
    )
    if dtype != torch.float32:
        pipe.to(dtype=dtype)
    check_runs(pipe, "these parts together")
    return pipe


def load_prior(name: str | Path) -> tuple[UNet2DModel, SchedulerMixin]:
    """The `UNet2DModel` and the scheduler of a folder or a repository. Raises as `assemble`."""
    folder = fetch.locate_part(name, "unet")
    check_network(folder, UNet2DModel.__name__)
    unet = UNet2DModel.from_pretrained(str(folder), use_safetensors=True)
    beside = [folder, folder.parent / "scheduler"]
    found = next((f for f in beside if (f / "scheduler_config.json").is_file()), None)
    if found is None:
        raise ValueError(f"{name}: has no scheduler_config.json, so its noise schedule is not known")
    kind = read_config(found / "scheduler_config.json")["_class_name"]
    return unet, scheduler_class(kind, str(name)).from_pretrained(str(found))


def mix(network: torch.nn.Module, other: torch.nn.Module, share: float) -> None:
    """Average the weights of two networks: `share` of the first's, which is changed. Above 1 it goes on away from the
    other's."""
    theirs = other.state_dict()
    mean = {k: torch.lerp(theirs[k].float(), v.float(), share) for k, v in network.state_dict().items()}
    network.load_state_dict(mean)


def _arguments(config: str) -> dict[str, Any]:
    if config == "base":
        return dict(BASE)
    if config == "def-base":
        return {}
    saved = _read(EMBEDDED / "refsr" / "config.json")
    return {k: v for k, v in saved.items() if not k.startswith("_")}


def _network(name: str | Path, part: str, config: str) -> ReferenceNetwork:
    network = ReferenceNetwork.from_pretrained(str(fetch.locate_part(name, part)))
    wanted = _arguments(config)
    defaults = {"extractor": "vgg19", "folded": False, "ttsr": False}
    for key, default in defaults.items():
        asked, got = wanted.get(key, default), network.config[key]
        both_vgg = str(got).startswith("vgg19") and str(asked).startswith("vgg19")
        if asked != got and not both_vgg:
            raise ValueError(f"{name}: has {key}={got!r}, which is not {config} ({key}={asked!r})")
    return network


def _with_extractor(network: ReferenceNetwork, path: Path) -> ReferenceNetwork:
    """The network with the extractor of a file, whose metadata may name another kind than the network had."""
    try:
        with safe_open(path, framework="pt") as file:
            kind = (file.metadata() or {}).get("extractor", network.config.extractor)
        weights = load_file(path)
    except Exception as error:  # safetensors raises a class of its own
        raise ValueError(f"extractor: {path} is not readable as safetensors ({error})") from error
    if kind != network.config.extractor:
        former, settings = network, {k: v for k, v in network.config.items() if not k.startswith("_")}
        try:
            network = ReferenceNetwork(**{**settings, "extractor": kind})
        except ValueError as error:
            raise ValueError(f"extractor: {path}: {error}") from error
        kept = {k: v for k, v in former.state_dict().items() if not k.startswith("feature_extractor.")}
        _load(network, kept | {f"feature_extractor.{k}": v for k, v in weights.items()}, path)
        return network
    _load(network.feature_extractor, weights, path)
    return network


def _load(module: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"extractor: {path} does not fit: {' '.join(str(error).split())}") from error


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
