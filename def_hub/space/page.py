"""The page: its two halves, runs, and the examples. What happens is in `studio` and `visit`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from def_hub.pipeline import DEFPipeline
from def_hub.space import form as forms
from def_hub.space import panels
from def_hub.space.endpoints import add_endpoints
from def_hub.space.form import LIGHT, PRIVATE, kept, make_settings, standard_values
from def_hub.space.run import Settings
from def_hub.space.run import start as start_thread
from def_hub.space.shipped import Prepared, examples
from def_hub.space.studio import Progress, Studio, complaint
from def_hub.space.style import CSS, theme
from def_hub.space.uploads import MAX_BYTES
from def_hub.space.viewer import card, cards, view
from def_hub.space.visit import Visit

HOUR = 3600
TITLE = "# Sharper with a reference"
INTRODUCTION = """
Give it a small photograph and, if you have any, sharp photographs of the same place or thing: the result is four times
larger. Detail is taken from the references where they truly match and from a diffusion model where they do not, and you
can see which is which. Made smaller again, the result is the picture you gave.
"""
# In the browser, before the server answers: while a run or an example waits for its turn, no other is taken.
RUNNING, OPENING = "not while something is computed", "opening, or waiting for its turn …"
TAKEN = "() => [{__type__: 'update', props: {off: '%s'}}, {__type__: 'update', interactive: false}]"
# On a phone, what an example shows is far below it.
SCROLL = "() => { if (innerWidth < 768) document.querySelector('#status').scrollIntoView({behavior: 'smooth'}); }"


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
        strip = cards(
            "Try an example: one click",
            value=[card(e.references[0], [e.title]) for e in shipped],
            elem_id="examples",
        )
        with gr.Row():
            form = forms.form(studio, state)
            shown = panels.results()
        start, cancel, status, panel = form.start, form.cancel, form.status, shown.refresh

        def refused() -> str:
            """Where Gradio did not even begin: handlers say themselves what goes wrong in them."""
            queue = demo._queue
            if queue.max_size is not None and len(queue) >= queue.max_size:
                return panels.warning(
                    "The queue is full: too many people are waiting. Nothing was started; try again in a minute."
                )
            return panels.warning("The server did not take this; the message in the corner of the page says why.")

        forms.wire(form, refused)

        # ------------------------------------------------------------------------------ run and look

        def rest() -> dict[Any, Any]:
            """After a run, not with its last words: the browser drops a click on what has not quite ended."""
            return {
                start: gr.update(interactive=True),
                cancel: gr.update(interactive=False),
                strip: gr.update(off=""),
            }

        def ends(begun: Any) -> None:
            begun.then(rest, None, [start, cancel, strip], **LIGHT)
            begun.failure(lambda: rest() | {status: refused()}, None, [start, cancel, strip, status], **LIGHT)

        busy = {
            start: gr.update(interactive=False),
            cancel: gr.update(interactive=True),
            strip: gr.update(off=RUNNING),
        }

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
                yield {form.info: form.told(visit, *values)}
                if visit.cancelled:
                    words = panels.note("Cancelled. Nothing is computing any more.")
                    yield {status: words + panels.earlier(visit)} | panel(visit)
            except Exception as error:
                words = complaint(error)
                gr.Warning(words)
                yield {status: panels.warning(words) + panels.earlier(visit)} | panel(visit)

        def advance(visit: Visit, at: Progress) -> dict[Any, Any]:
            if at.outcome is not None:
                words = panels.standing(visit) if at.drawn else panels.note("Drawing what happened …")
                return {state: visit, status: words} | panel(visit)
            reading, update = at.reading, {}
            assert reading is not None
            words = f"about {panels.duration(reading.left)} left"
            if at.step is not None:
                path = visit.root / "estimate.png"
                panels.save_estimate(at.step.picture, path)
                update = {shown.compare: view(path, f"estimate after step {at.step.number} of {at.step.total}")}
            return update | {status: panels.progress(reading, words)}

        outputs = [state, form.info, start, cancel, strip, status, *shown.outputs]
        start.click(None, None, [strip, start], js=TAKEN % RUNNING, **LIGHT)
        begun = start.click(
            enlarge,
            [state, *form.settings],
            outputs,
            **PRIVATE,
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
                    yield from form.rank(visit, *values)
                    yield from enlarge(visit, *values)

            def given(visit: Visit) -> dict[Any, Any]:
                """The files of a visit, as if they were uploaded."""
                files = [str(upload.path) for upload in visit.uploads]
                truth = visit.truth and str(visit.truth)
                return {form.photo: visit.photo and str(visit.photo.path), form.files: files, shown.truth: truth}

            def opened(visit: Visit) -> dict[Any, Any]:
                """An example, with its outcome where there is one."""
                words = {status: panels.standing(visit), form.info: form.told(visit, *standard_values())}
                return form.chosen(visit) | panel(visit) | given(visit) | words

            everything = [form.photo, form.files, shown.truth, *form.outputs, *outputs[2:]]
            strip.select(None, None, [strip, start], js=TAKEN % OPENING, **LIGHT)
            strip.select(None, js=SCROLL, **LIGHT)
            begun = strip.select(
                show_example,
                [state, *form.settings],
                everything,
                **PRIVATE,
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
                return {state: visit} | given(visit)

            if prepare:
                demo.load(first, state, everything, **LIGHT)

        def stop(visit: Visit) -> None:
            """The run looks, stops, and says so last: after Gradio's own `cancels`, late progress overwrote it."""
            visit.cancelled = True

        cancel.click(stop, state, None, **LIGHT)
        panels.wire(shown, state, form.photo, LIGHT)
        add_endpoints(studio)
    return demo


def launch_options() -> dict[str, Any]:
    """What `launch` is called with, here and in the tests."""
    return {
        "theme": theme(),
        "css": CSS,
        "max_file_size": MAX_BYTES,
        "enable_monitoring": False,
        "ssr_mode": False,
        "i18n": gr.I18n(en={"common.upload": "Upload more"}),  # Gradio has no words for this label
        "footer_links": ["api"],
    }
