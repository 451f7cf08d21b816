"""Options that several commands share; those of a call are made from `def_hub.settings`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import Field
from typing import Any

from def_hub import settings
from def_hub.settings import Choice, Range

NAMES = {"num_inference_steps": "steps", "reference_strength": "strength"}
"""Settings whose option has a shorter name; every other option is called like its setting."""


def add_model_options(command: argparse.ArgumentParser) -> None:
    """`--model` and `--device`."""
    command.add_argument("--model", metavar="MODEL", help="folder or Hub name (default: the embedded model)")
    command.add_argument("--device", metavar="DEVICE", help="cpu, cuda, mps … (default: cuda if there is one)")


def add_call_options(command: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> None:
    """`--preset`, `--seed` and one option for each setting of a call, `without` some."""
    presets = "; ".join(f"{name}: {preset.summary or 'no description'}" for name, preset in settings.PRESETS.items())
    command.add_argument(
        "--preset",
        choices=tuple(settings.PRESETS),
        default=settings.DEFAULT_PRESET,
        help=_escaped(f"{presets} (default: {settings.DEFAULT_PRESET})"),
    )
    command.add_argument("--seed", type=whole_number(), default=0, help="of all randomness (default: 0)")
    group = command.add_argument_group("settings of the call", "Each one overrides the preset's.")
    for setting in settings.SETTINGS:
        if setting.name not in without:
            _add_setting(group, setting)


def call_options(options: argparse.Namespace) -> dict[str, Any]:
    """The preset and every setting of the call, complete, so that a record of them says what was really done."""
    given = {setting.name: getattr(options, _option(setting.name), None) for setting in settings.SETTINGS}
    return {"preset": options.preset, **settings.resolve(options.preset, **given).as_dict()}


def whole_number(low: int = 0, high: int = 2**63 - 1) -> Callable[[str], int]:
    """A type for `add_argument`: whole numbers from `low` to `high`, both included."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            limit = "2^63 - 1" if high == 2**63 - 1 else high
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {limit}, got {text!r}")
        return int(text)

    return parse


def number(allowed: Range) -> Callable[[str], float]:
    """A type for `add_argument`: numbers of a range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")  # lies in no range
        if value not in allowed:
            raise argparse.ArgumentTypeError(f"expected a number {_words(allowed)}, got {text!r}")
        return value

    return parse


def _add_setting(group: Any, setting: Field[Any]) -> None:
    allowed, kind = setting.metadata["allowed"], type(setting.default)
    more: dict[str, Any] = {"default": None, "dest": _option(setting.name)}
    help_text = setting.metadata["help"]
    if kind is bool:
        more["action"] = argparse.BooleanOptionalAction
    elif isinstance(allowed, Choice):
        more |= {"type": kind, "choices": allowed.values}
    else:
        more |= {"type": _type(kind, allowed), "metavar": "N" if kind is int else "X"}
        help_text += f"; {_words(allowed)}" if allowed else ""
    group.add_argument(
        f"--{_option(setting.name).replace('_', '-')}", help=_escaped(f"{help_text} (default: the preset's)"), **more
    )


def _type(kind: type, allowed: Range | None) -> Callable[[str], Any]:
    if allowed is None:
        return kind
    return whole_number(int(allowed.low), int(allowed.high)) if kind is int else number(allowed)


def _words(allowed: Range) -> str:
    low = f"above {allowed.low:g} and up" if allowed.open_low else f"from {allowed.low:g}"
    return f"{low} to {allowed.high:g}"


def _option(setting: str) -> str:
    return NAMES.get(setting, setting)


def _escaped(text: str) -> str:
    """argparse reads % as the start of a placeholder."""
    return text.replace("%", "%%")
