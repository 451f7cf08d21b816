"""What a call may be told, in one place: `Settings`, the presets, and what every setting may be.

Every door reads this file: Python, the command line, the page, the endpoints, the estimate, the report and the card. A
new preset is one more entry of `PRESETS`; a new setting is one more field of `Settings`.
"""

from __future__ import annotations

import dataclasses
import difflib
import operator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

SCALES = (2, 3, 4, 6, 8)
"""How many times larger results may be along each side."""
MatchingImage = Literal["enhanced", "bicubic", "joint"]
Precision = Literal["auto", "float32", "bfloat16"]
WindowMode = Literal["blend", "replace"]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included or, where `open_low`, without `low`."""

    low: float
    high: float
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        return f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"


def _setting(default: Any, help: str, allowed: Range | Choice | None = None) -> Any:
    return field(default=default, metadata={"help": help, "allowed": allowed})


def _as_kind(name: str, value: Any, kind: type) -> Any:
    """The value as `kind`: whole numbers and numbers of any type (NumPy's, one-element tensors) are taken."""
    if kind is bool:
        if isinstance(value, bool) or type(value).__name__ == "bool_":  # numpy.bool is called `bool` or `bool_`
            return bool(value)
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    if kind is str:
        if isinstance(value, str):
            return str(value)
        raise TypeError(f"{name}: expected a name, got {value!r}")
    if isinstance(value, bool | str | bytes) or value is None:
        raise TypeError(f"{name}: expected a {'whole number' if kind is int else 'number'}, got {value!r}")
    if kind is int:
        return _whole(name, value)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a number, got {value!r}") from error


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):
        pass
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected a whole number, got {value!r}") from error
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return int(number)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a call. Every one can be overridden in the call; the presets are three instances.

    Raises:
        TypeError: for a value of another kind than the default's.
        ValueError: for a value outside the range or the choices of its field.
    """

    scale: int = _setting(4, "how many times larger the result is along each side", Choice(SCALES))
    degradation: str = _setting(
        "auto",
        "what degraded the input: 'auto' (measured), 'clean', or a description such as jpeg70, noise5, blur3+jpeg60",
    )
    num_inference_steps: int = _setting(1, "evaluations of the diffusion prior; 0 leaves it out", Range(0, 1000))
    eta: float = _setting(0.0, "fresh noise per diffusion step; 0 is deterministic DDIM, 1 is DDPM", Range(0, 1))
    start: float = _setting(
        1.0,
        "where on the noise schedule the diffusion starts; less keeps more of the input",
        Range(0, 1, open_low=True),
    )
    prior_strength: float = _setting(
        0.0, "how much of the prior's own detail is laid over the result where no reference is trusted", Range(0, 1)
    )
    matching_image: MatchingImage = _setting(
        "joint", "what is compared with the references", Choice(("enhanced", "bicubic", "joint"))
    )
    step: int = _setting(2, "HR pixels between the samples that alignment compares; more is faster", Range(1, 14))
    turns: int = _setting(1, "orientations whose mean is taken where no reference is trusted", Choice((1, 2, 4)))
    refsr: str = _setting(
        "refsr",
        "which Ref-SR weights restore; a checkpoint without refsr_detail uses refsr",
        Choice(("refsr", "refsr_detail")),
    )
    reference_strength: float = _setting(1.0, "how much the references may add; 0 ignores them", Range(0, 1))
    refine: bool = _setting(True, "bring references to the image's scale and align matches below a pixel")
    consistency: bool = _setting(True, "end with the nearest picture that shrinks back to the input")
    window_mode: WindowMode = _setting(
        "blend",
        "how windows of the prior are joined; 'replace' is the paper's section 4.2",
        Choice(("blend", "replace")),
    )
    precision: Precision = _setting(
        "auto",
        "what the networks compute in; 'auto' is bfloat16 where the processor is made for it",
        Choice(("auto", "float32", "bfloat16")),
    )
    summary: str = field(default="", metadata={"help": "one line for people who choose a preset"})

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            given = getattr(self, setting.name)
            value = _as_kind(setting.name, given, type(setting.default))
            allowed = setting.metadata["allowed"]
            if allowed is not None and value not in allowed:
                verb = "lie in" if isinstance(allowed, Range) else "be"
                raise ValueError(f"{setting.name} must {verb} {allowed}, got {given!r}")
            object.__setattr__(self, setting.name, value)

    def as_dict(self) -> dict[str, Any]:
        """Every setting by its name, ready for JSON and for `pipe(image, **settings)`."""
        return {setting.name: getattr(self, setting.name) for setting in SETTINGS}


SETTINGS = tuple(f for f in dataclasses.fields(Settings) if f.name != "summary")
"""The fields that a call may override, in order."""

PRESETS: dict[str, Settings] = {
    "fast": Settings(
        matching_image="enhanced", step=4, summary="the quickest: one search instead of three, a quarter of the samples"
    ),
    "balanced": Settings(turns=4, summary="the most faithful result"),
    "detail": Settings(refsr="refsr_detail", summary="sharper to the eye, invents more"),
}
DEFAULT_PRESET = "balanced"


def resolve(preset: str = DEFAULT_PRESET, **overrides: Any) -> Settings:
    """The settings of a preset, with those changed that are given; None leaves the preset's.

    Raises:
        TypeError: for an unknown setting, naming the nearest known one, or a value of the wrong kind.
        ValueError: for an unknown preset, or a value outside the range of its setting.
    """
    if not isinstance(preset, str):
        raise TypeError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    known = [setting.name for setting in SETTINGS]
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise TypeError(f"there is no setting {name!r}{hint}")
    return replace(PRESETS[preset], **{name: value for name, value in overrides.items() if value is not None})
