"""Widgets and wiring. What happens is in `studio` and `visit`; nothing here computes on pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import wraps
from typing import Any

import gradio as gr

from def_hub.estimate import gigabytes, total_memory
from def_hub.pipeline import PRESETS, DEFPipeline
from def_hub.reference.matching import PAIRINGS
from def_hub.space import panels
from def_hub.space.endpoints import add_endpoints
from def_hub.space.run import MAX_STEPS, Settings
from def_hub.space.run import start as start_thread
from def_hub.space.shipped import Prepared, examples
from def_hub.space.studio import Progress, Studio, complaint
from def_hub.space.uploads import (
    MAX_BYTES,
    MAX_CANDIDATES,
    MAX_PHOTO_PIXELS,
    check_photo,
    check_references,
)
from def_hub.space.viewer import CSS, card, cards, drawing, fold, photograph, view
from def_hub.space.visit import Visit

HOUR = 3600
TITLE = "# Sharper with a reference"
INTRODUCTION = """
Give it a small photograph and, if you have any, sharp photographs of the same place or thing: the result is four times
larger. Detail is taken from the references where they truly match and from a diffusion model where they do not, and you
can see which is which. Made smaller again, the result is the picture you gave.
"""
PRESET_WORDS = [
    ("Fast", "fast"),
    ("Balanced", "balanced"),
    ("Detail", "detail"),
]
MATCHING_WORDS = [("both, compared in three ways", "joint"), ("enhanced", "enhanced"), ("bicubic", "bicubic")]
LIMITS = panels.note(f"At most {MAX_PHOTO_PIXELS / 1e6:g} million pixels and {MAX_BYTES // 10**6} MB.")
assert {value for _, value in PRESET_WORDS} == set(PRESETS) and {value for _, value in MATCHING_WORDS} == set(PAIRINGS)


def build_demo(pipeline: DEFPipeline, prepare: bool = False) -> gr.Blocks:
    """The interface around a loaded pipeline; start it with `.queue(max_size=…).launch(**launch_options())`.

    With `prepare`, the first example is computed now and the others in the background, so that a visitor sees a result
    at once.
    """
    studio = Studio(pipeline)
    prepared = Prepared(studio.rank, lambda visit: studio.run(visit, Settings()))
    shipped = examples()
    if prepare and shipped:
        prepared.prepare(shipped[:1])
        start_thread(lambda: prepared.prepare(shipped), "def-examples")

    with gr.Blocks(title="def_hub", delete_cache=(600, HOUR), analytics_enabled=False) as demo:
        state = gr.State(Visit(), time_to_live=HOUR)
        gr.Markdown(TITLE + INTRODUCTION)
        if shipped:
            strip = cards(
                "Try an example: one click",
                value=[card(e.references[0], [e.title]) for e in shipped],
                elem_id="examples",
            )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photo = photograph(
                    label="1 · Small photograph",
                    sources=["upload", "clipboard", "webcam"],
                    height=260,
                    elem_id="photo",
                )
                info = gr.HTML(LIMITS, elem_id="info", padding=False)
                files = gr.File(
                    label=f"2 · References (up to {MAX_CANDIDATES})",
                    file_count="multiple",
                    file_types=["image"],
                    height=150,
                    elem_id="files",
                )
                gallery = cards("Best match first; click to use or to leave out", elem_id="candidates")
                with fold("Draw where references may be used (optional)"):
                    target = gr.Dropdown(
                        [("the photograph: leave this part alone", -1)], value=-1, label="Draw over", interactive=True
                    )
                    canvas = drawing("Upload a photograph first.", "#e6007e", elem_id="canvas")
                preset = gr.Radio(
                    PRESET_WORDS,
                    value="balanced",
                    label="3 · Preset",
                    info="Balanced keeps to what is known, Detail looks sharper and invents more",
                )
                with fold("Settings"):
                    standard = Settings()
                    steps = gr.Slider(1, MAX_STEPS, standard.num_inference_steps, step=1, label="Diffusion steps")
                    eta = gr.Slider(0, 1, standard.eta, step=0.05, label="η: fresh noise per step")
                    with gr.Row(equal_height=True):
                        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, scale=3)
                        dice = gr.Button("🎲 Random seed", size="sm", scale=1, min_width=130)
                    strength = gr.Slider(0, 1, 1, step=0.05, label="Reference strength: how much they may add")
                    matching = gr.Radio(MATCHING_WORDS, value=standard.matching_image, label="Matching image")
                    consistency = gr.Checkbox(True, label="Consistency: the result, made smaller, is the input")
                    reset = gr.Button("Reset to the preset", size="sm")
                with gr.Row():
                    start = gr.Button("Enlarge ×4", variant="primary", scale=3, elem_id="start")
                    cancel = gr.Button("Cancel", variant="stop", interactive=False, scale=1, elem_id="cancel")
                status = gr.HTML(elem_id="status", padding=False)
            shown = panels.results()
        settings = [preset, steps, eta, seed, strength, matching, consistency]
        panel = shown.refresh
        private: dict[str, Any] = {"api_visibility": "private"}
        light = private | {"queue": False, "show_progress": "hidden"}

        # ------------------------------------------------------------------------------ what is chosen

        def chosen(visit: Visit, **more: Any) -> dict[Any, Any]:
            """Everything at the left that follows from the visit."""
            return {
                state: visit,
                gallery: visit.gallery(),
                target: gr.Dropdown(
                    choices=[
                        ("the photograph: leave this part alone", -1),
                        *((f"reference {n}: use only this part", i) for n, i in enumerate(visit.chosen, start=1)),
                    ],
                    value=-1,
                ),
                canvas: None if visit.photo is None else view(visit.preview(None), "the photograph"),
            }

        def told(visit: Visit, *values: Any) -> str:
            """What a run would take and give."""
            if visit.photo is None:
                return LIMITS
            height, width = visit.photo.size
            try:
                wanted = make_settings(*values)
                cost, seconds = visit.cost(wanted), studio.seconds(visit, wanted)
            except ValueError as error:
                return panels.warning(complaint(error))
            there = total_memory()
            line = (
                f"<b>{width}×{height}</b> in, <b>{4 * width}×{4 * height}</b> out, with {count(len(visit.chosen))}. "
                f"Expected: <b>{panels.duration(seconds)}</b>, {gigabytes(cost.bytes)} of memory"
            )
            if there is not None and cost.bytes > there:
                return panels.warning(
                    f"{line}, but this machine has {gigabytes(there)}: use fewer or smaller references."
                )
            return panels.note(f"{line}.")

        @kept
        def take_photo(path: str | None, visit: Visit, *values: Any) -> Iterator[dict[Any, Any]]:
            try:
                visit.set_photo(None if path is None else check_photo(path))
                visit.preview(None) if visit.photo else None
            except Exception as error:
                visit.set_photo(None)
                yield {info: panels.warning(complaint(error)), photo: None} | chosen(visit)
                return
            seen = None if visit.photo is None else str(visit.shown() or visit.photo.path)
            yield {info: told(visit, *values), photo: seen}
            yield from rank(visit, *values)

        @kept
        def take_files(paths: list[str] | None, visit: Visit, *values: Any) -> Iterator[dict[Any, Any]]:
            try:
                visit.set_uploads(check_references(paths))
            except Exception as error:
                visit.set_uploads([])
                yield {info: panels.warning(complaint(error)), files: None} | chosen(visit)
                return
            yield from rank(visit, *values)

        def rank(visit: Visit, *values: Any) -> Iterator[dict[Any, Any]]:
            if visit.photo is not None and visit.uploads:
                yield {info: panels.note(f"Matching {count(len(visit.uploads))} …")}
            try:
                visit.rank(studio.rank)
                left = chosen(visit)
            except Exception as error:
                visit.set_uploads([])
                yield {info: panels.warning(complaint(error)), files: None} | chosen(visit)
                return
            yield left | {info: told(visit, *values)}

        def choose(visit: Visit, event: gr.EventData, *values: Any) -> dict[Any, Any]:
            try:
                visit.toggle(int(event._data["index"]))
            except ValueError as error:
                gr.Warning(complaint(error))
            return chosen(visit) | {info: told(visit, *values)}

        def refused() -> str:
            """Where Gradio did not even begin: handlers say themselves what goes wrong in them."""
            queue = demo._queue
            if queue.max_size is not None and len(queue) >= queue.max_size:
                return panels.warning(
                    "The queue is full: too many people are waiting. Nothing was started; try again in a minute."
                )
            return panels.warning("The server did not take this; the message in the corner of the page says why.")

        left = [state, gallery, target, canvas, info]
        gr.on(
            [photo.input, photo.clear],
            take_photo,
            [photo, state, *settings],
            [*left, photo],
            **private | {"show_progress": "hidden"},
            concurrency_id="ranking",
            concurrency_limit=1,
        ).failure(refused, None, info, **light)
        gr.on(
            [files.upload, files.clear, files.delete],
            take_files,
            [files, state, *settings],
            [*left, files],
            **private | {"show_progress": "hidden"},
            concurrency_id="ranking",
            concurrency_limit=1,
        ).failure(refused, None, info, **light)
        gallery.select(choose, [state, *settings], left, **light)

        def draw_over(index: int, visit: Visit) -> Any:
            if visit.photo is None:
                return None
            own = index < 0 or index >= len(visit.uploads)
            name = "the photograph" if own else f"reference {visit.chosen.index(index) + 1}"
            return view(visit.preview(None if own else index), name)

        def drawn(index: int, visit: Visit, event: gr.EventData) -> Visit:
            try:
                visit.draw(None if index < 0 else index, event._data.get("drawing"))
            except ValueError as error:
                gr.Warning(complaint(error))
            return visit

        target.input(draw_over, [target, state], canvas, **light)
        canvas.input(drawn, [target, state], state, **light)

        # ------------------------------------------------------------------------------ settings

        def preset_values(name: str) -> tuple[Any, ...]:
            standard = Settings.of(name)
            return standard.num_inference_steps, standard.eta, standard.matching_image

        gr.on([preset.input], preset_values, preset, [steps, eta, matching], **light).then(
            told, [state, *settings], info, **light
        )
        reset.click(
            lambda name: (*preset_values(name), 0, 1.0, True),
            preset,
            [steps, eta, matching, seed, strength, consistency],
            **light,
        ).then(told, [state, *settings], info, **light)
        dice.click(lambda: random.randrange(2**31), None, seed, **light)
        gr.on([steps.release, strength.release], told, [state, *settings], info, **light)

        # ------------------------------------------------------------------------------ run and look

        def rest() -> dict[Any, Any]:
            """After a run, not with its last words: the browser drops a click on what has not quite ended."""
            return {start: gr.update(interactive=True), cancel: gr.update(interactive=False)}

        def ends(begun: Any) -> None:
            begun.then(rest, None, [start, cancel], **light)
            begun.failure(lambda: rest() | {status: refused()}, None, [start, cancel, status], **light)

        busy = {start: gr.update(interactive=False), cancel: gr.update(interactive=True)}

        @kept
        def enlarge(visit: Visit, *values: Any) -> Iterator[dict[Any, Any]]:
            visit.cancelled = False
            try:
                wanted = make_settings(*values)
                yield busy | {status: panels.progress(None, "Starting …")}
                with closing(studio.run(visit, wanted)) as progress:  # type: ignore[type-var]
                    for at in progress:
                        if visit.cancelled:
                            break
                        yield advance(visit, at)
                yield {info: told(visit, *values)}
                if visit.cancelled:
                    words = panels.note("Cancelled. Nothing is computing any more.")
                    yield {status: words} | panel(visit.outcome)
            except Exception as error:
                words = complaint(error)
                gr.Warning(words)
                yield {status: panels.warning(words)} | panel(visit.outcome)

        def advance(visit: Visit, at: Progress) -> dict[Any, Any]:
            if at.outcome is not None:
                words = panels.summary(at.outcome) if at.drawn else "Drawing what happened …"
                return {state: visit, status: panels.note(words)} | panel(at.outcome)
            reading, update = at.reading, {}
            assert reading is not None
            words = f"about {panels.duration(reading.left)} left"
            if at.step is not None:
                path = visit.root / "estimate.png"
                panels.save_estimate(at.step.picture, path)
                update = {shown.compare: view(path, f"estimate after step {at.step.number} of {at.step.total}")}
            return update | {status: panels.progress(reading, words)}

        outputs = [state, info, start, cancel, status, *shown.outputs]
        begun = start.click(
            enlarge,
            [state, *settings],
            outputs,
            **private,
            show_progress="minimal",
            show_progress_on=status,
            concurrency_id="pipeline",
            concurrency_limit=1,
        )
        ends(begun)
        if shipped:

            @kept
            def show_example(visit: Visit, event: gr.EventData, *values: Any) -> Iterator[dict[Any, Any]]:
                example = shipped[int(event._data["index"])]
                visit = prepared.visit(example)
                yield opened(visit)
                for at in prepared.follow(example):
                    if visit.cancelled:
                        yield {status: panels.note("Cancelled. The example is still being prepared, for all visitors.")}
                        return
                    yield busy | {status: panels.progress(at.reading, "This example is just being prepared …")}
                if visit.outcome is None:
                    visit = prepared.visit(example)
                    yield opened(visit)
                if visit.outcome is None:
                    yield from rank(visit, *values)
                    yield from enlarge(visit, *values)

            def opened(visit: Visit) -> dict[Any, Any]:
                """An example, with its outcome where there is one."""
                assert visit.photo is not None
                words = panels.note(panels.summary(visit.outcome)) if visit.outcome else ""
                return (
                    chosen(visit)
                    | panel(visit.outcome)
                    | {photo: str(visit.photo.path), files: [str(u.path) for u in visit.uploads]}
                    | {status: words, info: told(visit, *standard_values())}
                )

            everything = [photo, files, *left, *outputs[2:]]
            begun = strip.select(
                show_example,
                [state, *settings],
                everything,
                **private,
                show_progress="hidden",
                concurrency_id="pipeline",
                concurrency_limit=1,
            )
            ends(begun)

            def first(visit: Visit) -> dict[Any, Any]:
                """The first example, unless the visitor was quicker."""
                ready = prepared.visit(shipped[0])
                if visit.photo is None and not visit.uploads and ready.outcome:
                    return opened(ready)
                given = {photo: visit.photo and str(visit.photo.path), files: [str(u.path) for u in visit.uploads]}
                return {state: visit} | given

            if prepare:
                demo.load(first, state, everything, **light)

        def stop(visit: Visit) -> None:
            """The run looks, stops, and says so last: after Gradio's own `cancels`, late progress overwrote it."""
            visit.cancelled = True

        cancel.click(stop, state, None, **light)
        panels.wire(shown, state, light)
        add_endpoints(studio)
    return demo


def make_settings(
    preset: str, steps: int, eta: float, seed: int, strength: float, matching: str, consistency: bool
) -> Settings:
    """What the widgets hold, as settings. Raises `ValueError` for what they should not."""
    if seed is None or steps is None:
        raise ValueError("Steps and seed must be whole numbers.")
    return Settings(preset, int(steps), float(eta), int(seed), float(strength), matching, bool(consistency))


def standard_values() -> tuple[Any, ...]:
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


def launch_options() -> dict[str, Any]:
    """What `launch` is called with, here and in the tests."""
    return {
        "theme": gr.themes.Soft(
            primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        "css": CSS,
        "max_file_size": MAX_BYTES,
        "enable_monitoring": False,
        "ssr_mode": False,
        "footer_links": ["api"],
    }
