"""What `def-hub evaluate --method` names: presets and ablations of the pipeline, and published networks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from def_hub.cli.model import device_of, load
from def_hub.cli.options import call_options
from def_hub.evaluation.baselines import BASELINES, Baseline, trained_here
from def_hub.evaluation.benchmark import fingerprint
from def_hub.evaluation.methods import Bicubic, Network, Pipeline, Restore
from def_hub.evaluation.published import TRAINED_HERE
from def_hub.report import conditions
from def_hub.settings import resolve


def methods_of(options: argparse.Namespace) -> tuple[list[Restore], dict[str, Any]]:
    """The methods in order, and what of them decides the numbers. The pipeline is loaded only where it is asked for."""
    names = list(dict.fromkeys(options.method or ["bicubic", "def"]))
    wanted = {name: _settings(name, call_options(options)) for name in names if name.split(":")[0] == "def"}
    described: dict[str, Any] = {"methods": {}}
    pipe = None
    if wanted:
        pipe = load(options)
        pipe.set_progress_bar_config(disable=True)
        call = wanted.get("def") or next(iter(wanted.values()))
        described |= {"model": str(options.model or "embedded default"), "call": call}
        described["weights"] = fingerprint(pipe.parts(call["preset"]))
        described["conditions"] = conditions(pipe, call["preset"], call["precision"])
    methods: list[Restore] = []
    for name in names:
        if name in wanted:
            assert pipe is not None
            methods.append(Pipeline(name, pipe, wanted[name], options.seed))
            weights = {"weights": fingerprint(pipe.parts(wanted[name]["preset"]))}
            described["methods"][name] = {} if name == "def" else wanted[name] | weights  # "call" has those of def
        elif name == "bicubic":
            methods.append(Bicubic())
            described["methods"][name] = {}
        else:
            kind, baseline, files = _baseline(name)
            network = baseline.load(*files)
            kind += TRAINED_HERE if trained_here(files[0]) is not None else ""
            references = baseline.uses_references, baseline.needs_references
            methods.append(Network(kind, network, *references, device_of(options)))
            described["methods"][kind] = {"weights": fingerprint({kind: network})}
    if len(described["methods"]) < len(names):
        raise ValueError("two methods have the same name, their rows could not be told apart")
    return methods, described


def _baseline(name: str) -> tuple[str, Baseline, list[str]]:
    """`rlfn=FILE` or `c2-matching=FILE,FILE,FILE` → its name, what it is, and its files."""
    kind, _, files = name.partition("=")
    if kind not in BASELINES:
        known = ", ".join(f"{k}=FILE" for k in BASELINES)
        raise ValueError(f"--method {name}: expected bicubic, def, def:PRESET, {known}")
    if not files:
        raise ValueError(f"--method {name}: its weights are not part of this package, give {kind}=FILE")
    return kind, BASELINES[kind], files.split(",")


def _settings(name: str, call: dict[str, Any]) -> dict[str, Any]:
    """`def:detail,refine=false` → the arguments of the call, complete. A bare `def` has those of the command line."""
    kind, _, rest = name.partition(":")
    if not rest:
        return call
    preset, *changes = rest.split(",")
    overrides = dict(_setting(name, change) for change in changes)
    return {"preset": preset, **resolve(preset, **overrides).as_dict()}


def _setting(name: str, change: str) -> tuple[str, Any]:
    """`refine=false` → ("refine", False)."""
    key, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"--method {name}: expected SETTING=VALUE, got {change!r}")
    try:
        return key, json.loads(value)
    except ValueError:  # a word
        return key, value


def by_method(given: list[tuple[str, Any]], methods: Sequence[Restore]) -> dict[str, list[Any]]:
    """What was given for each method, under "" for all of them. Raises ValueError for a method that is not measured."""
    values: dict[str, list[Any]] = {}
    for method, value in given:
        values.setdefault(method, []).append(value)
    names = [method.name for method in methods]
    if unknown := [name for name in values if name and name not in names]:
        what = f"{unknown[0]}={values[unknown[0]][0]}"
        raise ValueError(f"{what}: no such method is measured; there are {', '.join(names)}")
    return values
