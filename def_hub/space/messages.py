"""What the page says: values of the component `status`.

A value has a state, messages, and, while something is computed, the stages and the share that is done:
`{"state": …, "stale": …, "messages": [{"kind": "note" or "warn", "html": …}], "stages": […], "share": …}`.
Handlers and scripts read the state; nobody reads the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import count as numbers
from typing import Any, Literal

from def_hub.estimate import gigabytes, total_memory
from def_hub.service.call import RunOptions
from def_hub.service.clock import Reading
from def_hub.service.result import Result
from def_hub.service.runner import Runner, complaint
from def_hub.service.session import Session
from def_hub.service.uploads import MAX_BYTES, MAX_PHOTO_PIXELS
from def_hub.settings import PRESETS
from def_hub.space import assumed

State = Literal["idle", "waiting", "running", "done", "cancelled", "failed"]
Message = dict[str, str]

STAGES = {"enhance": "Enhancing", "match": "Matching", "transfer": "Blending", "restore": "Restoring"}
EARLIER = {"photograph": "an earlier photo", "references": "another choice of references"}
AGREES = 0.75
"""Levels of 255 by which the result, shrunk again, may differ from the photo. Rounding to whole levels takes 0.5."""
NO_BREAK = "\N{NO-BREAK SPACE}"
CANCELLED = "Cancelled. Nothing is computing any more."
STILL_PREPARED = "Cancelled. The example is still being prepared, for all visitors."
_REFUSALS = numbers(1)  # by which the browser tells one refusal from the next


def note(html: str) -> Message:
    """html: ours, with every part that a visitor sent escaped."""
    return {"kind": "note", "html": html}


def warning(words: str) -> Message:
    """words: plain text, which may name what a visitor sent."""
    return {"kind": "warn", "html": escape(words)}


def status(state: State, *messages: Message, session: Session | None = None, **more: Any) -> dict[str, Any]:
    """The value of a `status`. session: whose result is shown; says so where it is no longer that of the inputs."""
    stale = session and session.stale
    said = list(messages)
    if stale:
        said.insert(0, note(f"<b>The result shown is of {EARLIER[stale]}.</b> Press Enlarge for a new one."))
    return {"state": state, "stale": stale, "messages": said, **more}


def standing(session: Session) -> dict[str, Any]:
    """What the result that is shown is, and of what."""
    if session.result is None:
        return status("idle")
    return status("done", *summary(session.result), session=session)


def failed(words: str, session: Session | None = None) -> dict[str, Any]:
    return status("failed", warning(words), session=session)


def cancelled(session: Session) -> dict[str, Any]:
    return status("cancelled", note(CANCELLED), session=session)


def progress(reading: Reading | None, words: str = "") -> dict[str, Any]:
    """Which stage is at work, how much is done, and the time left or other words. None: no stage has begun."""
    if reading is None:
        return status("running", note(escape(words)), stages=[], share=0.0)
    stages = [{"name": STAGES[name], "current": name == reading.stage} for name in reading.stages]
    return status("running", note(escape(words or time_left(reading))), stages=stages, share=round(reading.share, 3))


def time_left(reading: Reading) -> str:
    return f"about {duration(reading.left)} left" if not reading.late else "taking longer than expected …"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))}{NO_BREAK}s"
    return f"{round(seconds / 60)}{NO_BREAK}min"


def summary(result: Result) -> list[Message]:
    """A result in one sentence, and a warning where it does not agree with the photo."""
    if not result.report:
        return [note("The result is there; the pictures that explain it could not be drawn.")]
    size = result.report["sizes"]["output"].replace("x", "×")
    parts = [f"<b>{size}</b> in {result.seconds:.1f} s"]
    if result.sizes:
        share = round(100 * result.from_references)
        parts.append(f"<b>{share} % of the added detail</b> comes from the references, the rest from the models")
    error, agreed = result.report["scores"]["consistency_error"], result.call.options.settings.consistency
    observed = result.report["observation"]
    if agreed and error <= AGREES:
        exact = observed["degradation"] == "clean"
        parts.append("shrunk again, it is your photo" if exact else escape(observed["agreement"]))
    said = [note("; ".join(parts) + ".")]
    if error > AGREES:
        why = "some of its values lie outside black and white" if agreed else "agreement is switched off"
        said.append(warning(f"Shrunk again, the result differs from your photo by up to {error:.0f} of 255: {why}."))
    return said


def limits() -> dict[str, Any]:
    """What is said before there is a photo."""
    pixels, file = f"Up to {MAX_PHOTO_PIXELS / 1e6:g} million pixels", f"Files of up to {MAX_BYTES // 10**6} MB."
    return status("idle", note(f"{pixels}; of a larger photo a part, or a shrunk copy. {file}"))


def forecast(runner: Runner, session: Session, options: RunOptions) -> dict[str, Any]:
    """What a run would take and give. While a file is being opened, only that: an earlier forecast may come late."""
    if session.is_opening:
        return OPENING
    if session.photo is None:
        return limits()
    (height, width), scale = session.photo.size, options.settings.scale
    try:
        cost, seconds = session.cost(options), runner.seconds(session, options)
    except ValueError as error:
        return failed(complaint(error))
    there = total_memory()
    line = (
        f"{escape(PRESETS[options.preset].summary.capitalize())}.<br>"
        f"<b>{width}×{height}</b> in, <b>{scale * width}×{scale * height}</b> out, {used(session)}: "
        f"about <b>{duration(seconds)}</b> and {gigabytes(cost.bytes).replace(' ', NO_BREAK)} of memory"
    )
    if there is not None and cost.bytes > there:
        machine = f", but this machine has {gigabytes(there)}: use fewer or smaller references."
        return status("failed", {"kind": "warn", "html": line + machine})
    said = assumed.words(session.assessment, options.settings.degradation)
    return status("idle", note(f"{line}."), *([note(escape(said))] if said else []))


def refused(queue_is_full: bool) -> str:
    """Why Gradio did not even begin a handler. What goes wrong in a handler it says itself."""
    if queue_is_full:
        return "The queue is full: too many people are waiting. Nothing was started; try again in a minute."
    return "The server did not take this; the message in the corner of the page says why."


OPENING = status("running", note("Opening what you gave …"))
DRAWING = status("running", note("Drawing what happened …"))


def not_taken(wrong: Sequence[str]) -> dict[str, Any]:
    """What is wrong with files that were refused; it stays until the visitor has read it.

    By its number the browser knows what has been read: a handler that goes on to rank sends all that it said once more.
    """
    return status("failed", *map(warning, wrong), dismiss="OK", number=next(_REFUSALS))


def used(session: Session) -> str:
    """How many references are used, and whether drawings say which parts."""
    references = count(len(session.chosen))
    return f"{references}, only parts of the pictures" if any(session.inputs[2]) else references


def count(references: int) -> str:
    return {0: "no reference", 1: "one reference"}.get(references, f"{references} references")
