"""What stands beside the one result: the preview, several photos, the results of this visit. And what happens there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from def_hub.service.runner import Runner, complaint
from def_hub.service.session import Session
from def_hub.space import history, messages
from def_hub.space.batch import BatchPanel
from def_hub.space.changes import Changes, repeating
from def_hub.space.options import Options
from def_hub.space.preview import PreviewPanel

if TYPE_CHECKING:
    from def_hub.space.page import Page

RUNNING = "not while something is computed"


class Panels:
    """preview and batch take the place of the result while they have a value; history stands below it."""

    def __init__(self, runner: Runner, options: Options) -> None:
        self.options = options
        self.batch = BatchPanel(runner)
        self.preview = PreviewPanel(runner)
        self.history = history.lay_out()

    def render(self) -> None:
        """What stands above the result."""
        self.preview.component.render()
        self.batch.table.render()

    @property
    def outputs(self) -> list[Any]:
        """All but the preview, which belongs to what was given."""
        return [self.batch.table, self.history]

    @property
    def closed(self) -> Changes:
        """Neither preview nor table: the result is seen."""
        return {self.preview.component: None, self.batch.table: None}

    def show(self, session: Session) -> Changes:
        return {self.history: history.shown(session)}

    def show_given(self, session: Session) -> Changes:
        """A preview of other pictures, or of another choice of references, goes."""
        shown = session.previewed
        return {} if shown is not None and shown.inputs == session.inputs else {self.preview.component: None}

    # ---------------------------------------------------------------------------------------------- wiring

    def wire(self, page: Page, queue: Callable[..., None], light: dict[str, Any]) -> None:
        """queue: lets work wait for its turn. light: how handlers that answer at once are registered."""
        self.page = page
        stamped = [page.stamp, page.session, *self.options.widgets]
        preview, batch = self.preview, self.batch
        queue(page.action.preview.click, self.look, stamped, RUNNING)
        preview.component.select(preview.aim, page.session, page.session, **light)
        queue(preview.component.select, self.look, stamped, RUNNING)
        preview.component.input(
            self.use, page.session, [page.session, preview.component, *self.options.widgets], **light
        )
        for panel in (preview.component, batch.table):
            panel.clear(lambda: None, None, panel, **light)
        batch.photos.upload(batch.take, page.session, [batch.table, preview.component], **light)
        queue(batch.start.click, self.enlarge_all, stamped, RUNNING)
        everything = [*page.everything, *self.options.widgets]
        self.history.select(self.reopen, [page.session, *self.options.widgets], everything, **light)

    # ---------------------------------------------------------------------------------------------- handlers

    @repeating
    def look(self, pressed: float, session: Session, *values: Any) -> Iterator[Changes]:
        """Preview the part at which the visitor aims."""
        seen = {self.batch.table: None}  # the last preview stays until the next is there
        yield from self._work(pressed, session, seen, self.preview.look(pressed, session, *values))

    @repeating
    def enlarge_all(self, pressed: float, session: Session, *values: Any) -> Iterator[Changes]:
        status = self.page.action.status
        seen = {self.preview.component: None}
        yield from self._work(pressed, session, seen, self.batch.enlarge(pressed, session, status, *values))

    def _work(self, pressed: float, session: Session, seen: Changes, work: Iterator[Changes]) -> Iterator[Changes]:
        """What is said of work before, after and where it fails. seen: what changes at once."""
        if session.is_cancelled(pressed):  # while it waited
            return
        status = self.page.action.status
        try:
            yield self.page.busy | seen | {status: messages.progress(None, "Starting …")}
            yield from work
            said = messages.cancelled(session) if session.is_cancelled(pressed) else messages.standing(session)
            yield {status: said}
        except Exception as error:
            words = complaint(error)
            gr.Warning(words)
            yield {status: messages.failed(words, session)}

    def use(self, session: Session, event: gr.EventData) -> Changes:
        """A preset was chosen by its preview."""
        chosen = self.preview.use(session, str(event._data["preset"]))
        return {self.preview.component: self.preview.show(session)} | self.options.show(chosen)

    def reopen(self, session: Session, event: gr.EventData, *values: Any) -> Changes:
        """An earlier result, with its pictures and its settings."""
        try:
            opened = session.history.reopened(int(event._data["index"]))
        except ValueError as error:
            return {self.page.pictures.refused: messages.not_taken([complaint(error)])}
        assert opened.result is not None
        chosen = opened.result.call.options
        return self.page.show_all(opened, *self.options.values(chosen)) | self.closed | self.options.show(chosen)
