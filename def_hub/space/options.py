"""The preset and the settings of a run. What each may be is read from `def_hub.settings`."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import gradio as gr

from def_hub.service.call import ALLOWED, MAX_SEED, MAX_STEPS, RunOptions
from def_hub.settings import DEFAULT_PRESET, PRESETS, SCALES
from def_hub.space import assumed, components

# The settings that have a widget, in the order of the widgets, and what each is called.
LABELS = {
    "num_inference_steps": "Diffusion steps",
    "eta": "Randomness (η)",
    "reference_strength": "Reference strength",
    "matching_image": "Compared with the references",
    "consistency": "Agree with the photo: shrink the result and you get your photo back",
}
MATCHING = {"joint": "both images", "enhanced": "the enhanced image", "bicubic": "the plain enlargement"}


@dataclass(frozen=True)
class Options:
    """preset, scale, seed, what happened to the photo, and one widget for each setting of `LABELS`."""

    preset: gr.Radio
    scale: gr.Radio
    seed: gr.Number
    assumed: assumed.Assumed
    settings: tuple[Any, ...]

    @property
    def widgets(self) -> list[Any]:
        """Their values are the arguments of `chosen`."""
        return [self.preset, self.scale, self.seed, *self.assumed.widgets, *self.settings]

    def values(self, options: RunOptions) -> list[Any]:
        """What the widgets hold for these options."""
        settings = options.settings
        happened = assumed.Assumed.values(settings.degradation)
        return [options.preset, settings.scale, options.seed, *happened, *(getattr(settings, name) for name in LABELS)]

    def show(self, options: RunOptions) -> dict[Any, Any]:
        return dict(zip(self.widgets, self.values(options), strict=True))


def lay_out() -> Options:
    """The preset and the scale. The other widgets are laid out by `lay_out_settings`."""
    standard = PRESETS[DEFAULT_PRESET]
    bare: dict[str, Any] = {"show_label": False, "container": False}
    presets = [(name.capitalize(), name) for name in PRESETS]
    preset = gr.Radio(presets, value=DEFAULT_PRESET, label="Preset", elem_id="preset", **bare)
    scales = [(f"×{scale}", scale) for scale in SCALES]
    scale = gr.Radio(scales, value=standard.scale, label="Scale", elem_id="scale", **bare)
    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, scale=3, render=False)
    settings = tuple(_widget(name, getattr(standard, name)) for name in LABELS)
    return Options(preset, scale, _unchecked(seed), assumed.make(), settings)


def lay_out_settings(options: Options, light: dict[str, Any]) -> None:
    """The settings, and what changes several of them. light: how handlers that answer at once are registered."""
    assumed.lay_out(options.assumed, light)
    with components.fold("Settings"):
        for widget in options.settings:
            widget.render()
        with gr.Row(equal_height=True):
            options.seed.render()
            dice = gr.Button("Random seed", size="sm", scale=1, min_width=130, elem_id="dice")
        reset = gr.Button("Reset to the preset", size="sm")
    everything = [*options.settings, options.seed]
    options.preset.input(values_of, options.preset, list(options.settings), **light)
    reset.click(lambda preset: [*values_of(preset), 0], options.preset, everything, **light)
    dice.click(lambda: random.randrange(MAX_SEED + 1), None, options.seed, **light)


def chosen(
    preset: str, scale: int, seed: Any, mode: str, noise: float, quality: int, blur: float, *values: Any
) -> RunOptions:
    """What the widgets hold. Raises `ValueError` or `TypeError` for what they should not hold.

    An empty field leaves the preset's value; an empty seed is refused.
    """
    degradation = assumed.degradation(mode, noise, quality, blur)
    settings = dict(zip(LABELS, values, strict=True))
    return RunOptions.of(preset, seed, scale=scale, degradation=degradation, **settings)


def values_of(preset: str) -> list[Any]:
    """What the widgets of the settings hold for a preset."""
    return [getattr(PRESETS[preset], name) for name in LABELS]


def _widget(name: str, value: Any) -> Any:
    """The widget that fits what a setting may be."""
    label, allowed = LABELS[name], ALLOWED[name]
    if isinstance(value, bool):
        return gr.Checkbox(value, label=label, render=False)
    if isinstance(value, str):
        choices = [(MATCHING[v], v) for v in allowed.values]  # type: ignore[union-attr]
        return gr.Radio(choices, value=value, label=label, elem_id="matching", render=False)
    low, high = allowed.low, allowed.high  # type: ignore[union-attr]
    if name == "num_inference_steps":
        return _unchecked(gr.Slider(1, min(high, MAX_STEPS), value, step=1, label=label, render=False))
    return _unchecked(gr.Slider(low, high, value, step=0.05, label=label, render=False))


def _unchecked(component: Any) -> Any:
    """A component whose number `chosen` checks. Gradio's own complaint does not name the field, and where nothing
    queues it is an error of the server."""
    component.preprocess = lambda payload: payload
    return component
