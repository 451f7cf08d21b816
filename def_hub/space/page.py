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
from def_hub.space.viewer import GIVEN, card, cards, view
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
WAITING = "<div class='def-note def-waits' role='status'>Waiting for your turn …</div>"
CANCELLED = panels.note("Cancelled. Nothing is computing any more.")
TAKEN = f"""() => [{{__type__: 'update', props: {{off: '%s'}}}}, {{__type__: 'update', interactive: false}},
  {{__type__: 'update', interactive: true}}, `{WAITING}`]"""
# What comes is brought into sight: the comparison, and on a phone, where all of it is far below, the words above it.
SHOW = """() => {
  document.querySelector('#tabs [role=tab]').click();
  document.querySelector('#tabs').parentElement.scrollTop = 0;
  const scroll = () => document.querySelector('#status').scrollIntoView({behavior: 'smooth'});
  if (innerWidth < 768) setTimeout(scroll, 100);  // the words are being laid out
}"""
REST = """{__type__: 'update', props: {off: ''}}, {__type__: 'update', interactive: true},
  {__type__: 'update', interactive: false}"""
# After a run. It changes nothing where another waits: that can be, after one that was called off before its turn.
RESTS = f"words => words?.includes('def-waits') ? [] : [{REST}]"
# What waits is left at once; a run that is at work stops and says so itself.
LEAVES = f"words => words?.includes('def-waits') ? [{REST}, `{CANCELLED}`] : []"
STAMPED = "(_, ...values) => [performance.now(), ...values]"  # a first value: when this was pressed


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
        stamp = gr.Number(visible=False)
        gr.Markdown(TITLE + INTRODUCTION)
        strip = cards(
            "Try an example: one click",
            ask="Put the example in place of your own pictures and their result?",
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

        hold = [strip, start, cancel]

        def ends(begun: Any) -> None:
            """Not with a run's last words: they come once more at its very end, and would undo what is pressed then."""
            begun.then(None, status, hold, js=RESTS, **LIGHT)
            begun.failure(lambda: rest | {status: refused()}, None, [*hold, status], **LIGHT)

        rest = {
            start: gr.update(interactive=True),
            cancel: gr.update(interactive=False),
            strip: gr.update(off=""),
        }
        busy = {
            start: gr.update(interactive=False),
            cancel: gr.update(interactive=True),
            strip: gr.update(off=RUNNING),
        }

        @kept
        def enlarge(pressed: float, visit: Visit, *values: Any) -> Iterator[dict[Any, Any]]:
            if visit.called_off(pressed):  # while it waited: the browser has said so, and another may wait
                return
            try:
                wanted = make_settings(*values)
                yield busy | {status: panels.progress(None, "Starting …")}
                stopped = False
                with closing(studio.run(visit, wanted)) as progress:  # type: ignore[type-var]
                    for at in progress:
                        stopped = visit.called_off(pressed) and at.outcome is None  # what explains it is soon drawn
                        if stopped:
                            break
                        yield advance(visit, at)
                yield {form.info: form.told(visit, *values)}
                if stopped:
                    yield {status: CANCELLED + panels.earlier(visit)} | panel(visit)
            except Exception as error:
                words = complaint(error)
                gr.Warning(words)
                yield {status: panels.warning(words) + panels.earlier(visit)} | panel(visit)

        def advance(visit: Visit, at: Progress) -> dict[Any, Any]:
            if at.outcome is not None:
                words = panels.standing(visit) if at.drawn else panels.note("Drawing what happened …")
                return {state: visit, status: words, cancel: gr.update(interactive=False)} | panel(visit)
            reading, update = at.reading, {}
            assert reading is not None
            words = f"about {panels.duration(reading.left)} left"
            if at.step is not None:
                path = visit.root / "estimate.png"
                panels.save_estimate(at.step.picture, path)
                update = {shown.compare: view(path, f"estimate after step {at.step.number} of {at.step.total}")}
            return update | {status: panels.progress(reading, words)}

        def queued(trigger: Any, work: Any, outputs: list[Any], off: str) -> None:
            """What waits for its turn. A second may be sent while a first, called off, still waits: `multiple`."""
            trigger(None, None, [*hold, status], js=TAKEN % off, **LIGHT)
            trigger(None, js=SHOW, **LIGHT)
            options = PRIVATE | {"trigger_mode": "multiple", "show_progress": "hidden", "js": STAMPED}
            inputs = [stamp, state, *form.settings]
            ends(trigger(work, inputs, outputs, **options, concurrency_id="pipeline", concurrency_limit=1))

        outputs = [state, form.info, *hold, status, *shown.outputs]
        queued(start.click, enlarge, outputs, RUNNING)
        if shipped:

            @kept
            def show_example(
                pressed: float, visit: Visit, event: gr.EventData, *values: Any
            ) -> Iterator[dict[Any, Any]]:
                if visit.called_off(pressed):
                    return
                example = shipped[int(event._data["index"])]
                visit = prepared.visit(example)
                yield opened(visit)
                for at in prepared.follow(example):
                    if visit.called_off(pressed):
                        yield {status: panels.note("Cancelled. The example is still being prepared, for all visitors.")}
                        return
                    yield busy | {status: panels.progress(at.reading, "This example is just being prepared …")}
                if visit.outcome is None:
                    visit = prepared.visit(example)
                    yield opened(visit)
                if visit.outcome is None:
                    yield from form.rank(visit, *values)
                    yield from enlarge(pressed, visit, *values)

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
            queued(strip.select, show_example, everything, OPENING)
            gr.on([form.photo.upload, form.files.upload], None, js=GIVEN, **LIGHT)

            def first(visit: Visit) -> dict[Any, Any]:
                """The first example, unless the visitor was quicker."""
                ready = prepared.visit(shipped[0])
                if visit.photo is None and not visit.uploads and ready.outcome:
                    return opened(ready)
                return {state: visit} | given(visit)

            if prepare:
                demo.load(first, state, everything, **LIGHT)

        def stop(pressed: float, visit: Visit, words: str | None) -> Any:
            """The run looks, stops, and says so last: after Gradio's own `cancels`, late progress overwrote it."""
            visit.cancelled = pressed
            return CANCELLED + panels.earlier(visit) if words == CANCELLED else gr.skip()

        cancel.click(None, status, [*hold, status], js=LEAVES, **LIGHT)
        cancel.click(stop, [stamp, state, status], status, js=STAMPED, **LIGHT)
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
