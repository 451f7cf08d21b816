"""What happened to the photo: as it was measured, and as a visitor says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from def_hub.observation.agreement import describe
from def_hub.observation.assessment import Assessment
from def_hub.observation.degradation import Degradation
from def_hub.settings import DEFAULT_PRESET, PRESETS
from def_hub.space import components

DESCRIBED = "described"
MODES = {"auto": "Measured", "clean": "Clean, as it is", DESCRIBED: "As described"}
NOISE = {"none": 0, "slight": 3, "clear": 8, "strong": 15}  # levels
QUALITY = {"no JPEG": 0, "90": 90, "70": 70, "50": 50, "30": 30}
BLUR = {"none": 0, "slight": 1, "clear": 2, "strong": 4}  # pixels of the result


@dataclass(frozen=True)
class Assumed:
    """mode: measured, clean, or what the other widgets say."""

    mode: gr.Radio
    noise: gr.Dropdown
    quality: gr.Dropdown
    blur: gr.Dropdown

    @property
    def widgets(self) -> list[Any]:
        """Their values are the arguments of `degradation`."""
        return [self.mode, self.noise, self.quality, self.blur]

    @staticmethod
    def values(setting: str) -> list[Any]:
        """What the widgets hold for a setting `degradation`."""
        if setting in MODES:
            return [setting, 0, 0, 0]
        told = Degradation.parse(setting)
        return [DESCRIBED, told.noise, told.quality or 0, told.blur]


def make() -> Assumed:
    """The widgets, to be laid out by `lay_out`."""
    default = PRESETS[DEFAULT_PRESET].degradation
    mode = gr.Radio(
        [(label, value) for value, label in MODES.items()],
        value=default if default in MODES else DESCRIBED,
        label="What happened to the photo",
        elem_id="assumed",
        render=False,
    )
    return Assumed(mode, _choice("Noise", NOISE), _choice("JPEG quality", QUALITY), _choice("Blur", BLUR))


def lay_out(assumed: Assumed, light: dict[str, Any]) -> None:
    """light: how handlers that answer at once are registered."""
    with components.fold("Noise, JPEG, blur of the photo"):
        assumed.mode.render()
        with gr.Row(visible=assumed.mode.value == DESCRIBED, elem_id="described") as described:
            for widget in assumed.widgets[1:]:
                widget.render()
    assumed.mode.change(lambda mode: gr.update(visible=mode == DESCRIBED), assumed.mode, described, **light)


def degradation(mode: str, noise: float, quality: int, blur: float) -> str:
    """What the widgets say, as the setting `degradation`. Raises `ValueError` for values that they do not offer."""
    if mode not in MODES:
        raise ValueError(f"What happened to the photo: expected one of {', '.join(MODES)}, got {mode!r}")
    return mode if mode != DESCRIBED else str(Degradation(noise=noise, quality=quality or None, blur=blur))


def words(measured: Assessment | None, assumed: str) -> str:
    """What was measured, and what a run with the setting `degradation` = `assumed` does about it."""
    if measured is None:
        return ""
    found = measured.degradation
    told = found if assumed == "auto" else Degradation.parse(assumed)
    looks = describe(found)
    if told == Degradation():
        said = "Looks clean; taken as it is." if found == told else f"Looks like {looks}, but is taken as it is."
    else:
        does = "taken into account" if told.clean else "cleaned while it is enlarged"
        which = f"{looks[0].upper()}{looks[1:]}" if told == found else f"Taken as: {describe(told)}"
        said = f"{which}; will be {does}."
    if measured.shrinkable > 1:
        said += f" It was enlarged before: {measured.shrinkable:g} times smaller it would show as much."
    return said


def _choice(label: str, choices: dict[str, int]) -> gr.Dropdown:
    return gr.Dropdown(list(choices.items()), value=0, label=label, min_width=110, interactive=True, render=False)
