"""The parts of the page laid out, and what happens between them. Each part has a file of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import gradio as gr

from def_hub.service.call import RunOptions
from def_hub.service.examples import Example, PreparedExamples
from def_hub.service.runner import Progress, Runner, complaint
from def_hub.service.session import Session
from def_hub.service.uploads import MAX_GIVEN_PIXELS, check_photo
from def_hub.space import action, large, library, masks, messages, options, pictures, queue, results
from def_hub.space.changes import Changes, repeating
from def_hub.space.components import card, cards
from def_hub.space.downloads import Downloads
from def_hub.space.panels import Panels

HOUR = 3600
INTRODUCTION = """
# Sharper with a reference

A small photo becomes up to eight times larger, with true detail from sharp photos of the same thing. You see what came
from where.
"""
# How handlers are registered. None is part of the API; those that answer at once do not queue.
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
LIGHT = PRIVATE | {"queue": False, "show_progress": "hidden"}
# What is given while the last is still assessed waits for its turn, too; Gradio would pass it over: `multiple`.
RANKING = PRIVATE | {
    "show_progress": "hidden",
    "concurrency_id": "ranking",
    "concurrency_limit": 1,
    "trigger_mode": "multiple",
}
# A second run may be sent while a first one, cancelled, still waits in the queue: `multiple`.
QUEUED = PRIVATE | {
    "show_progress": "hidden",
    "concurrency_id": queue.PIPELINE,
    "concurrency_limit": 1,
    "trigger_mode": "multiple",
    "js": "(...values) => defPage.stamped(...values)",
}
RUNNING, OPENING = "not while something is computed", "opening, or waiting for its turn …"


class Page:
    """The parts of the page and the handlers that concern several of them.

    `session` holds the visitor's `Session`; `stamp` the moment at which a button was pressed, in milliseconds of the
    visitor's browser.
    """

    def __init__(self, demo: gr.Blocks, runner: Runner, prepared: PreparedExamples, shipped: list[Example]) -> None:
        self.demo, self.runner, self.prepared, self.shipped = demo, runner, prepared, shipped
        self.session = gr.State(Session(), time_to_live=HOUR)
        self.stamp = gr.Number(visible=False)
        self.timer = gr.Timer(1.0, active=False)  # while the visitor waits
        gr.Markdown(INTRODUCTION, elem_id="introduction")
        with gr.Row(elem_id="halves"):
            with gr.Column(scale=2, min_width=320, elem_id="form"):
                self.pictures = pictures.lay_out(LIGHT)
                self.large = large.lay_out()
                self.library = library.lay_out(self.runner)
                self.options = options.lay_out()
                self.action = action.lay_out()
                self.pictures.info.render()
            self.panels = Panels(runner, self.options)
            with gr.Column(scale=3, min_width=320, elem_id="results"):
                self.action.status.render()
                self.panels.render()
                self.results = results.lay_out()
                self.downloads = Downloads()
                self.panels.history.render()
            with gr.Column(scale=2, min_width=320, elem_id="more"):  # below the form; on a phone, below the result
                self.examples = cards(
                    "Or try an example",
                    ask="Put the example in place of your own pictures and their result?",
                    value=[card(e.references[0], [e.title]) for e in shipped],
                    elem_id="examples",
                )
                self.masks = masks.lay_out()
                options.lay_out_settings(self.options, LIGHT)
                self.panels.batch.lay_out()

    # ---------------------------------------------------------------------------------------------- wiring

    @property
    def given(self) -> list[Any]:
        """All that shows what was given and chosen."""
        p, m = self.pictures, self.masks
        shown = [self.panels.preview.component, self.action.standing]
        return [self.session, p.photo, p.cards, p.refused, p.info, m.target, m.canvas, *shown]

    @property
    def result(self) -> list[Any]:
        """All that shows the result."""
        return [*self.results.outputs, *self.downloads.outputs]

    @property
    def everything(self) -> list[Any]:
        return [*self.given, *self.result, self.results.original, *self.panels.outputs]

    @property
    def held(self) -> list[Any]:
        """What cannot be pressed while something is computed, and what runs only while a visitor waits."""
        starts = [self.action.start, self.action.preview, self.panels.batch.start]
        return [self.examples, self.panels.history, *starts, self.action.cancel, self.timer]

    def wire(self) -> None:
        self._wire_pictures()
        self._wire_choice()
        self._wire_runs()
        self.action.wire(LIGHT)
        self.results.wire(self.session, LIGHT)
        self.panels.wire(self, self._queue, LIGHT)

    def _wire_pictures(self) -> None:
        p, inputs = self.pictures, [self.session, *self.options.widgets]
        outputs = self.everything
        # The browser closes the dialog. What handlers send reaches it component by component: a last "closed" of one
        # would close the dialog that a quicker one has opened meanwhile.
        gr.on([self.large.clear, self.large.submit], None, None, self.large, js="() => null", **LIGHT)
        for given in (p.photo.upload, p.references.upload):
            # Said at once: the handler itself may have to wait for those of other visitors.
            given(None, None, p.info, js=f"() => ({json.dumps(messages.OPENING)})", **LIGHT)
        for taken in (
            p.photo.upload(self.take_photo, inputs, [*outputs, self.large], **RANKING),
            p.photo.edit(self.crop_photo, inputs, [self.session, self.large, p.refused], **RANKING),
            self.large.submit(self.take_part, inputs, outputs, **RANKING),
            p.photo.clear(self.drop_photo, inputs, outputs, **RANKING),
            p.references.upload(self.take_references, inputs, outputs, **RANKING),
            self.library.click(self.take_from_library, inputs, outputs, **RANKING),
        ):
            taken.failure(self.not_begun, None, p.info, **LIGHT)
            self._forecast(taken.success)

    def _wire_choice(self) -> None:
        p, m = self.pictures, self.masks
        inputs = [self.session, m.target, *self.options.widgets]
        outputs = [*self.given, *self.downloads.outputs]
        p.cards.select(self.toggle, inputs, outputs, **LIGHT)
        p.cards.delete(self.remove, inputs, outputs, **LIGHT)
        m.target.input(masks.to_draw_on, [self.session, m.target], m.canvas, **LIGHT)
        m.canvas.input(self.draw, inputs, outputs, **LIGHT)
        m.wipe.click(self.wipe, inputs, outputs, **LIGHT)
        self._forecast(partial(gr.on, [widget.change for widget in self.options.widgets], trigger_mode="always_last"))

    def _forecast(self, trigger: Any) -> None:
        """Say what a run would take, as all is set when `trigger` comes: what a handler that takes long was called with
        may have been changed while it worked."""
        trigger(self.forecast, [self.session, *self.options.widgets], self.pictures.info, **LIGHT)

    def _wire_runs(self) -> None:
        a, inputs = self.action, [self.stamp, self.session, *self.options.widgets]
        self._queue(a.start.click, self.enlarge, inputs, RUNNING)
        if self.shipped:
            self._queue(self.examples.select, self.open_example, inputs, OPENING)
        self.timer.tick(self.show_place, None, a.place, **LIGHT)
        left = "(status, standing) => defPage.left(status, standing)"
        a.cancel.click(None, [a.status, a.standing], [*self.held, a.status], js=left, **LIGHT)
        a.cancel.click(self.cancel, [self.stamp, self.session], None, **LIGHT, js=QUEUED["js"])

    def _queue(self, trigger: Any, work: Callable[..., Any], inputs: list[Any], off: str) -> None:
        """Let `work` wait for its turn. The browser says so before the server answers."""
        status = self.action.status
        trigger(None, None, [*self.held, status], js=f"() => defPage.asked('{off}')", **LIGHT)
        trigger(None, js="() => defPage.show()", **LIGHT)
        begun = trigger(work, inputs, [*self.everything, *self.held, status], **QUEUED)
        # Not with the last words of a run: Gradio sends them once more at its very end, and would undo what a visitor
        # has pressed by then.
        begun.then(None, status, self.held, js="status => defPage.ended(status)", **LIGHT)
        begun.failure(self.run_not_begun, None, [*self.held, status], **LIGHT)
        self._forecast(begun.success)

    # ---------------------------------------------------------------------------------------------- showing

    def show_given(self, session: Session, *values: Any, target: int = masks.PHOTO[1]) -> Changes:
        """What was given and chosen, with what a run would take. values: of the options' widgets."""
        changes = self.pictures.show(session) | self.masks.show(session, target) | self.downloads.show(session)
        said = {self.pictures.info: self.forecast(session, *values), self.action.standing: messages.standing(session)}
        return {self.session: session} | changes | said | self.panels.show_given(session)

    def show_result(self, session: Session) -> Changes:
        changes = self.results.show(session) | self.downloads.show(session) | self.panels.show(session)
        return {self.session: session} | changes

    def show_all(self, session: Session, *values: Any) -> Changes:
        original = {self.results.original: session.original and str(session.original)}
        return self.show_given(session, *values) | self.show_result(session) | original

    def show_first(self, session: Session) -> Changes:
        """The first example, unless the visitor was quicker."""
        ready = self.prepared.session(self.shipped[0])
        own = session.photo is not None or session.uploads
        return self.show_all(session if own or ready.result is None else ready)

    def forecast(self, session: Session, *values: Any) -> dict[str, Any]:
        """What a run would take and give. Without values: with the preset and settings that the page starts with."""
        try:
            chosen = options.chosen(*values) if values else RunOptions()
        except (ValueError, TypeError) as error:
            return messages.failed(complaint(error))
        return messages.forecast(self.runner, session, chosen)

    # ---------------------------------------------------------------------------------------------- pictures

    @repeating
    def take_photo(self, session: Session, event: gr.EventData, *values: Any) -> Iterator[Changes]:
        """A photo was given. One that cannot be read leaves everything as it was; of one that is too large, a part or a
        shrunk copy is taken next."""
        try:
            with session.opening():
                yield {self.pictures.info: messages.OPENING}
                photo = check_photo(next(iter(pictures.given_paths(event)), None), MAX_GIVEN_PIXELS)
                session.thumbnail(photo)  # a file that cannot be decoded is found here
        except Exception as error:
            yield {self.pictures.refused: messages.not_taken([complaint(error)])}
            return
        if photo.is_large:
            session.give_part_of(photo)
            yield self.choose_part(session, *values)
            return
        session.set_photo(photo)
        yield self.show_all(session, *values)
        yield from self.rank(session, *values)

    def crop_photo(self, session: Session, *values: Any) -> Changes:
        session.give_part_of(None)
        return self.choose_part(session, *values)

    def choose_part(self, session: Session, *values: Any) -> Changes:
        """Open the dialog in which a part of the given photo is chosen."""
        try:
            return {self.session: session, self.large: large.show(session, self.runner, options.chosen(*values))}
        except Exception as error:
            return {self.pictures.refused: messages.not_taken([complaint(error)])}

    @repeating
    def take_part(self, session: Session, event: gr.EventData, *values: Any) -> Iterator[Changes]:
        """A part of a large photo was chosen, or a shrunk copy."""
        try:
            session.set_smaller(*large.chosen(event, session, options.chosen(*values)))
        except Exception as error:
            yield {self.pictures.refused: messages.not_taken([complaint(error)])}
            return
        yield self.show_all(session, *values)
        yield from self.rank(session, *values)

    def drop_photo(self, session: Session, *values: Any) -> Changes:
        session.set_photo(None)
        return self.show_all(session, *values)

    @repeating
    def take_references(self, session: Session, event: gr.EventData, *values: Any) -> Iterator[Changes]:
        try:
            with session.opening():
                yield {self.pictures.info: messages.OPENING}
                wrong = pictures.add_references(pictures.given_paths(event), session)
        except Exception as error:
            wrong = [complaint(error)]
        if wrong:
            yield {self.pictures.refused: messages.not_taken(wrong)}
        yield from self.rank(session, *values)

    @repeating
    def take_from_library(self, session: Session, *values: Any) -> Iterator[Changes]:
        yield {self.pictures.info: library.searching()}
        try:
            said = library.take(self.runner, session)
        except Exception as error:
            said = [complaint(error)]
        if said:
            yield {self.pictures.refused: messages.not_taken(said)}
        yield from self.rank(session, *values)

    def rank(self, session: Session, *values: Any) -> Iterator[Changes]:
        """Measure what degraded the photo, rank the candidates and choose among them."""
        try:
            session.assess()
            yield {self.session: session, self.pictures.info: self.forecast(session, *values)}
        except Exception as error:
            yield {self.pictures.refused: messages.not_taken([complaint(error)])}
        if session.photo is not None and session.uploads:
            matching = messages.note(f"Matching {messages.count(len(session.uploads))} …")
            yield {self.pictures.info: messages.status("running", matching)}
        try:
            session.rank(self.runner.rank)
        except Exception as error:
            session.set_uploads([])
            yield {self.pictures.refused: messages.not_taken([complaint(error)])}
        yield self.show_given(session, *values)

    def not_begun(self) -> dict[str, Any]:
        """Where Gradio did not even begin a handler; what goes wrong in a handler it says itself."""
        return messages.failed(messages.refused(queue.is_full(self.demo._queue)))

    def show_place(self, request: gr.Request) -> dict[str, Any] | None:
        ahead = queue.runs_ahead(self.demo._queue, request.session_hash)
        return queue.place(ahead, self.runner.usual_seconds)

    # ---------------------------------------------------------------------------------------------- choice

    def toggle(self, session: Session, target: int, event: gr.EventData, *values: Any) -> Changes:
        wrong = {}
        try:
            session.toggle(int(event._data["index"]))
        except ValueError as error:
            wrong = {self.pictures.refused: messages.not_taken([complaint(error)])}
        return self.show_given(session, *values, target=target) | wrong

    def remove(self, session: Session, target: int, event: gr.EventData, *values: Any) -> Changes:
        session.remove_upload(int(event._data["index"]))
        return self.show_given(session, *values)

    def draw(self, session: Session, target: int, event: gr.EventData, *values: Any) -> Changes:
        wrong = {}
        try:
            session.draw(None if target < 0 else target, event._data.get("drawing"))
        except ValueError as error:
            wrong = {self.pictures.refused: messages.not_taken([complaint(error)])}
        changes = self.show_given(session, *values, target=target) | wrong
        if not wrong:
            del changes[self.masks.canvas]  # it shows the stroke already
        return changes

    def wipe(self, session: Session, target: int, *values: Any) -> Changes:
        session.drawings.clear()
        return self.show_given(session, *values, target=target)

    # ---------------------------------------------------------------------------------------------- runs

    @repeating
    def enlarge(self, pressed: float, session: Session, *values: Any) -> Iterator[Changes]:
        if session.is_cancelled(pressed):  # while it waited. The browser has said so, and another run may wait.
            return
        status, stopped = self.action.status, False
        try:
            chosen = options.chosen(*values)
            yield self.busy | self.panels.closed | {status: messages.progress(None, "Starting …")}
            with closing(self.runner.run(session, chosen)) as progress:  # type: ignore[type-var]
                for at in progress:
                    stopped = session.is_cancelled(pressed) and at.result is None  # the other pictures are soon drawn
                    if stopped:
                        break
                    yield self.advance(session, at)
            if stopped:
                yield self.show_result(session) | {status: messages.cancelled(session)}
        except Exception as error:
            words = complaint(error)
            gr.Warning(words)
            yield self.show_result(session) | {status: messages.failed(words, session)}

    def advance(self, session: Session, at: Progress) -> Changes:
        """What is new in a run."""
        status = self.action.status
        if at.result is not None:
            if at.drawn:
                session.history.add(session)
            stands = messages.standing(session)
            said = {status: stands, self.action.standing: stands} if at.drawn else {status: messages.DRAWING}
            return self.show_result(session) | said | {self.action.cancel: gr.update(interactive=False)}
        assert at.reading is not None
        changes = {status: messages.progress(at.reading)}
        if at.step is not None:
            caption = f"estimate after step {at.step.number} of {at.step.total}"
            changes |= self.results.show_estimate(session, at.step.picture, caption)
        return changes

    @repeating
    def open_example(self, pressed: float, session: Session, event: gr.EventData, *values: Any) -> Iterator[Changes]:
        """An example with its result; where none is prepared, it is computed."""
        if session.is_cancelled(pressed):
            return
        example, status = self.shipped[int(event._data["index"])], self.action.status
        opened = self.prepared.session(example)
        opened.history = session.history
        opened.history.add(opened)
        yield self.show_all(opened, *values) | self.panels.closed
        for at in self.prepared.follow(example):
            if session.is_cancelled(pressed) or opened.is_cancelled(pressed):
                yield {status: messages.status("cancelled", messages.note(messages.STILL_PREPARED))}
                return
            yield self.busy | {status: messages.progress(at.reading, "This example is just being prepared …")}
        if opened.result is None:
            opened = self.prepared.session(example)
            opened.history = session.history
            opened.history.add(opened)
            yield self.show_all(opened, *values)
        if opened.result is None:
            yield from self.rank(opened, *values)
            yield from self.enlarge(pressed, opened, *values)
        else:
            yield {status: messages.standing(opened)}

    def cancel(self, pressed: float, session: Session) -> None:
        """The run looks, stops, and says so last. (After Gradio's own `cancels`, late progress overwrote it.)"""
        session.cancelled = pressed

    @property
    def busy(self) -> Changes:
        return self.action.busy | {self.timer: gr.Timer(active=False), self.examples: gr.update(off=RUNNING)}

    def run_not_begun(self) -> Changes:
        held = {self.timer: gr.Timer(active=False), self.examples: gr.update(off="")}
        return self.action.free | held | {self.action.status: self.not_begun()}
