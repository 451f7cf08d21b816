"""The left half of the page: what a visitor gives, chooses and sets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import wraps
from typing import Any

import gradio as gr

from def_hub.estimate import gigabytes, total_memory
from def_hub.reference.matching import PAIRINGS
from def_hub.settings import PRESETS
from def_hub.space import panels
from def_hub.space.run import MAX_STEPS, Settings
from def_hub.space.studio import Studio, complaint
from def_hub.space.uploads import MAX_BYTES, MAX_CANDIDATES, MAX_PHOTO_PIXELS, Upload, check_photo, check_reference
from def_hub.space.viewer import cards, drawing, fold, photograph, view
from def_hub.space.visit import Visit

PRESET_WORDS = [("Fast", "fast"), ("Balanced", "balanced"), ("Detail", "detail")]
MATCHING_WORDS = [("both, compared in three ways", "joint"), ("enhanced", "enhanced"), ("bicubic", "bicubic")]
assert {value for _, value in PRESET_WORDS} == set(PRESETS) and {value for _, value in MATCHING_WORDS} == set(PAIRINGS)
LIMITS = panels.note(f"At most {MAX_PHOTO_PIXELS / 1e6:g} million pixels and {MAX_BYTES // 10**6} MB.")
OWN = ("the photograph: leave this part alone", -1)  # what is drawn over, if no reference

# How handlers are registered: none is part of the API, and those that answer at once do not queue.
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
LIGHT = PRIVATE | {"queue": False, "show_progress": "hidden"}
RANKING = PRIVATE | {"show_progress": "hidden", "concurrency_id": "ranking", "concurrency_limit": 1}


@dataclass
class Form:
    """The components that take what a visitor gives, and what they show."""

    studio: Studio
    state: gr.State
    photo: gr.Image
    info: gr.HTML
    files: gr.File
    gallery: gr.HTML
    target: gr.Dropdown
    canvas: gr.HTML
    wipe: gr.Button
    preset: gr.Radio
    steps: gr.Slider
    eta: gr.Slider
    seed: gr.Number
    dice: gr.Button
    strength: gr.Slider
    matching: gr.Radio
    consistency: gr.Checkbox
    reset: gr.Button
    start: gr.Button
    cancel: gr.Button
    status: gr.HTML

    @property
    def settings(self) -> list[Any]:
        """Their values are the arguments of `make_settings`."""
        return [self.preset, self.steps, self.eta, self.seed, self.strength, self.matching, self.consistency]

    @property
    def outputs(self) -> list[Any]:
        """All that `chosen` and `told` set."""
        return [self.state, self.gallery, self.target, self.canvas, self.info]

    def chosen(self, visit: Visit, target: int = OWN[1]) -> dict[Any, Any]:
        """All that follows from the visit. target: what is drawn over, if it is still there."""
        references = [(f"reference {n}: use only this part", i) for n, i in enumerate(visit.chosen, start=1)]
        target = target if target in visit.chosen else OWN[1]
        return {
            self.state: visit,
            self.gallery: visit.gallery(),
            self.target: gr.Dropdown(choices=[OWN, *references], value=target),
            self.canvas: to_draw_on(visit, target),
        }

    def told(self, visit: Visit, *values: Any) -> str:
        """What a run with these settings would take and give."""
        if visit.photo is None:
            return LIMITS
        height, width = visit.photo.size
        try:
            wanted = make_settings(*values)
            cost, seconds = visit.cost(wanted), self.studio.seconds(visit, wanted)
        except ValueError as error:
            return panels.warning(complaint(error))
        there = total_memory()
        line = (
            f"<b>{width}×{height}</b> in, <b>{4 * width}×{4 * height}</b> out, with {count(len(visit.chosen))}. "
            f"Expected: <b>{panels.duration(seconds)}</b>, {gigabytes(cost.bytes)} of memory"
        )
        if there is not None and cost.bytes > there:
            return panels.warning(f"{line}, but this machine has {gigabytes(there)}: use fewer or smaller references.")
        return panels.note(f"{line}.")

    def rank(self, visit: Visit, *values: Any, refused: str = "") -> Iterator[dict[Any, Any]]:
        """Rank the candidates and choose among them. refused: what has been refused before, to be said with it."""
        if visit.photo is not None and visit.uploads:
            yield {self.info: refused + panels.note(f"Matching {count(len(visit.uploads))} …")}
        try:
            visit.rank(self.studio.rank)
            left = self.chosen(visit)
        except Exception as error:
            visit.set_uploads([])
            yield {self.info: panels.warning(complaint(error)), self.files: None} | self.chosen(visit)
            return
        yield left | {self.info: refused + self.told(visit, *values)}


def form(studio: Studio, state: gr.State) -> Form:
    """Lay the components out."""
    standard = Settings()
    with gr.Column(scale=2, min_width=320):
        photo = photograph(label="1 · Small photograph", height=260, elem_id="photo")
        info = gr.HTML(LIMITS, elem_id="info", padding=False)
        files = gr.File(
            label=f"2 · References (up to {MAX_CANDIDATES})",
            file_count="multiple",
            file_types=["image"],
            height=150,
            elem_id="files",
        )
        gallery = cards("Best match first; click to use or to leave out", elem_id="candidates")
        with fold("Draw which parts count (optional)"):
            target = gr.Dropdown([OWN], value=OWN[1], label="Draw over", interactive=True)
            canvas = drawing("Upload a photograph first.", "#e6007e", elem_id="canvas")
            wipe = gr.Button("Wipe all drawings", size="sm")
        preset = gr.Radio(
            PRESET_WORDS,
            value=standard.preset,
            label="3 · Preset",
            info="Fast looks less closely, Balanced keeps to what is known, Detail looks sharper and invents more",
        )
        with fold("Settings"):
            steps = unchecked(gr.Slider(1, MAX_STEPS, standard.num_inference_steps, step=1, label="Diffusion steps"))
            eta = unchecked(gr.Slider(0, 1, standard.eta, step=0.05, label="η: fresh noise per step"))
            with gr.Row(equal_height=True):
                seed = unchecked(gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, scale=3))
                dice = gr.Button("🎲 Random seed", size="sm", scale=1, min_width=130, elem_id="dice")
            strength = unchecked(gr.Slider(0, 1, 1, step=0.05, label="Reference strength"))
            matching = gr.Radio(MATCHING_WORDS, value=standard.matching_image, label="Matching image")
            consistency = gr.Checkbox(True, label="Consistency: the result, made smaller, is the input")
            reset = gr.Button("Reset to the preset", size="sm")
        with gr.Row():
            start = gr.Button("Enlarge ×4", variant="primary", scale=3, min_width=150, elem_id="start")
            cancel = gr.Button("Cancel", variant="stop", interactive=False, scale=1, min_width=100, elem_id="cancel")
        status = gr.HTML(elem_id="status", padding=False)
    return Form(
        studio, state, photo, info, files, gallery, target, canvas, wipe, preset, steps, eta, seed, dice, strength,
        matching, consistency, reset, start, cancel, status,
    )  # fmt: skip


def wire(form: Form, refused: Callable[[], str]) -> None:
    """What happens on the left half alone. refused: says why a handler was not even begun."""
    _wire_uploads(form, refused)
    _wire_choice(form)
    _wire_settings(form)


def _wire_uploads(form: Form, refused: Callable[[], str]) -> None:
    state, photo, files, info, status = form.state, form.photo, form.files, form.info, form.status

    @kept
    def take_photo(path: str, visit: Visit, *values: Any) -> Iterator[dict[Any, Any]]:
        try:
            visit.set_photo(check_photo(path))
            visit.preview(None)  # what cannot be decoded is found here
        except Exception as error:
            visit.set_photo(None)
            wrong = {info: panels.warning(complaint(error)), photo: None, status: panels.standing(visit)}
            yield wrong | form.chosen(visit)
            return
        yield {info: form.told(visit, *values), photo: str(visit.shown() or path), status: panels.standing(visit)}
        for change in form.rank(visit, *values):  # meanwhile a run may have ended
            yield change | {status: panels.standing(visit)}

    def drop_photo(visit: Visit) -> dict[Any, Any]:
        visit.set_photo(None)
        return {info: LIMITS, photo: None, status: panels.standing(visit)} | form.chosen(visit)

    @kept
    def take_files(paths: list[str] | None, visit: Visit, *values: Any) -> Iterator[dict[Any, Any]]:
        uploads, wrong = sifted(paths or [], visit)
        visit.set_uploads(uploads)
        yield {files: [str(upload.path) for upload in uploads] or None}
        yield from form.rank(visit, *values, refused="".join(map(panels.warning, wrong)))

    def said(begun: Any) -> None:
        begun.failure(refused, None, info, **LIGHT)

    # Not `input`: when a picture that came from here is removed, Gradio gives it the picture, as if it were new.
    said(photo.upload(take_photo, [photo, state, *form.settings], [*form.outputs, photo, status], **RANKING))
    said(photo.clear(drop_photo, state, [*form.outputs, photo, status], **RANKING))
    said(
        gr.on(
            [files.upload, files.clear, files.delete],
            take_files,
            [files, state, *form.settings],
            [*form.outputs, files],
            **RANKING,
        )
    )


def sifted(paths: list[str], visit: Visit) -> tuple[list[Upload], list[str]]:
    """Those of the files that can be references, and what is wrong with the others: one bad file costs no good one."""
    uploads, wrong = [], []
    if len(paths) > MAX_CANDIDATES:
        wrong.append(
            f"At most {MAX_CANDIDATES} references are taken at a time; the first of the {len(paths)} are kept."
        )
    for path in paths[:MAX_CANDIDATES]:
        try:
            upload = check_reference(path)
            visit.thumbnail(upload)  # what cannot be decoded is found here
            uploads.append(upload)
        except Exception as error:
            wrong.append(complaint(error))
    return uploads, wrong


def _wire_choice(form: Form) -> None:
    state = form.state

    def words(visit: Visit, values: Sequence[Any], wrong: str = "") -> dict[Any, Any]:
        """After a choice. wrong: why it was none (a toast is not shown for what does not queue)."""
        told = (wrong and panels.warning(wrong)) + form.told(visit, *values)
        return {form.info: told, form.status: panels.standing(visit)}

    def choose(visit: Visit, target: int, event: gr.EventData, *values: Any) -> dict[Any, Any]:
        wrong = ""
        try:
            visit.toggle(int(event._data["index"]))
        except ValueError as error:
            wrong = complaint(error)
        return form.chosen(visit, target) | words(visit, values, wrong)

    def drawn(visit: Visit, target: int, event: gr.EventData, *values: Any) -> dict[Any, Any]:
        try:
            visit.draw(None if target < 0 else target, event._data.get("drawing"))
        except ValueError as error:
            return form.chosen(visit, target) | words(visit, values, complaint(error))
        return {state: visit, form.gallery: visit.gallery()} | words(visit, values)  # the canvas stays as it is

    def wiped(visit: Visit, target: int, *values: Any) -> dict[Any, Any]:
        visit.drawings.clear()
        return form.chosen(visit, target) | words(visit, values)

    given, shown = [state, form.target, *form.settings], [*form.outputs, form.status]
    form.gallery.select(choose, given, shown, **LIGHT)
    form.target.input(lambda index, visit: to_draw_on(visit, index), [form.target, state], form.canvas, **LIGHT)
    form.canvas.input(drawn, given, shown, **LIGHT)
    form.wipe.click(wiped, given, shown, **LIGHT)


def to_draw_on(visit: Visit, index: int) -> dict[str, Any] | None:
    """The photograph (-1) or a reference with what was drawn over it, for the canvas."""
    if visit.photo is None:
        return None
    own = index not in visit.chosen  # the photograph, or a reference that was left out meanwhile
    name = "the photograph" if own else f"reference {visit.chosen.index(index) + 1}"
    key = None if own else index
    return view(visit.preview(key), name, drawing=visit.drawings.get(key))


def _wire_settings(form: Form) -> None:
    told = {"fn": form.told, "inputs": [form.state, *form.settings], "outputs": form.info, **LIGHT}
    with_preset = [form.steps, form.eta, form.matching]

    def preset_values(name: str) -> tuple[Any, ...]:
        standard = Settings.of(name)
        return standard.num_inference_steps, standard.eta, standard.matching_image

    form.preset.input(preset_values, form.preset, with_preset, **LIGHT).then(**told)
    form.reset.click(
        lambda name: (*preset_values(name), 0, 1.0, True),
        form.preset,
        [*with_preset, form.seed, form.strength, form.consistency],
        **LIGHT,
    ).then(**told)
    form.dice.click(lambda: random.randrange(2**31), None, form.seed, **LIGHT)
    gr.on([widget.change for widget in (form.steps, form.eta, form.seed, form.strength)], **told)


def make_settings(
    preset: str, steps: int, eta: float, seed: int, strength: float, matching: str, consistency: bool
) -> Settings:
    """What the widgets hold, as settings. Raises `ValueError` for what they should not."""
    numbers = {"Steps": steps, "η": eta, "Seed": seed, "Reference strength": strength}
    for name, number in numbers.items():
        whole = name in ("Steps", "Seed")
        if number is None or (whole and number != int(number)):
            raise ValueError(f"{name}: expected a {'whole ' * whole}number, got {number}")
    return Settings(preset, int(steps), float(eta), int(seed), float(strength), matching, bool(consistency))


def unchecked(component: Any) -> Any:
    """A component whose numbers `make_settings` checks: Gradio's own complaint does not say which field is wrong, and
    is an error of the server where nothing queues."""
    component.preprocess = lambda payload: payload
    return component


def standard_values() -> tuple[Any, ...]:
    """What the widgets hold at first."""
    s = Settings()
    return s.preset, s.num_inference_steps, s.eta, s.seed, s.reference_strength, s.matching_image, s.consistency


def kept(changes: Callable[..., Iterator[dict[Any, Any]]]) -> Callable[..., Iterator[dict[Any, Any]]]:
    """Make each change of the page repeat those before it.

    Gradio sends the differences of what a generator yields, and takes "unchanged" after a value for a new value.
    """

    @wraps(changes)
    def repeating(*arguments: Any, **more: Any) -> Iterator[dict[Any, Any]]:
        page: dict[Any, Any] = {}
        with closing(changes(*arguments, **more)) as iterator:  # type: ignore[type-var]
            for change in iterator:
                page |= change
                yield dict(page)

    return repeating


def count(references: int) -> str:
    return {0: "no reference", 1: "one reference"}.get(references, f"{references} references")
