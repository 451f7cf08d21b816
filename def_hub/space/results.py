"""A result: compared with what was known before, matched with the references, with evidence and details."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from def_hub import images
from def_hub.service.result import PREVIEW, compare_with_original, match_at
from def_hub.service.runner import complaint
from def_hub.service.session import Session
from def_hub.space import components, panes
from def_hub.space.components import view
from def_hub.visualization import VIRIDIS, thumbnail

NAMES = {
    "bicubic": "plain enlargement (bicubic)",
    "result": "result",
    "enhanced": "diffusion alone, no reference",
    "original": "original",
}
PAIRS = {
    "Plain enlargement": ("bicubic", "result"),
    "Without references": ("enhanced", "result"),
    "Original": ("result", "original"),
}
"""What a result is compared with: the pictures at the left and right of the divider."""
FIRST, ORIGINAL = "Plain enlargement", "Original"

SOURCES, TRUST = "Where the detail came from", "How far each match is trusted"
VEILS = {SOURCES: "source-colours", TRUST: "confidence-colours"}

NOTHING = "Nothing yet: choose an example, or give a photo and press Enlarge."
WITHOUT = "No reference was used."
CLICK = "Click a point of the result, or focus it and use the arrow keys."


@dataclass(frozen=True)
class ResultPanel:
    """The components of the four tabs: Compare, References, Evidence, Details."""

    pair: gr.Radio
    panes: gr.HTML
    compare: gr.HTML
    original: gr.File
    scores: gr.Markdown
    pick: gr.HTML
    found: gr.HTML
    words: gr.Markdown
    matches: gr.HTML
    transferred: gr.HTML
    veil: gr.Radio
    evidence: gr.HTML
    legend: gr.HTML
    steps: gr.HTML
    report: gr.JSON
    python: gr.Code

    @property
    def outputs(self) -> list[Any]:
        """All that `show` sets."""
        return [getattr(self, f.name) for f in fields(self) if f.name != "original"]

    def show(self, session: Session) -> dict[Any, Any]:
        """Everything about the session's result, or nothing. Pictures that are not drawn yet are left empty."""
        result = session.result
        path = (lambda name: None) if result is None else result.picture
        has_references = path("reference-1") is not None
        first = FIRST
        return {
            self.pair: gr.Radio(choices=known_pairs(session), value=first),
            self.panes: panes.shown(session, _picture(session, "original")),
            self.compare: compared(session, first),
            self.scores: scored(session) if path("zip") else "",  # once, when all is drawn
            self.pick: view(path("result"), "result") if has_references else None,
            self.found: view(path("reference-1"), "reference 1") if has_references else None,
            self.words: CLICK if has_references else "",
            self.matches: _explained(path("matches"), "places of the result joined with their matches"),
            self.transferred: _explained(path("transferred"), "texture of the references, laid out like the result"),
            self.veil: gr.Radio(value=SOURCES),
            self.evidence: veiled(session, SOURCES),
            self.legend: legend(session, SOURCES),
            self.steps: steps_strip(session),
            self.report: None if result is None else result.report or None,
            self.python: "" if result is None else result.python,
        }

    def show_estimate(self, session: Session, picture: Tensor, caption: str) -> dict[Any, Any]:
        """A live estimate of the diffusion, in a size that is quickly sent. picture: `[1, 3, H, W]`."""
        path = session.root / "estimate.png"
        images.save_image(thumbnail(picture, PREVIEW), path)
        return {self.compare: view(path, caption, look_at=session.look_at)}

    def wire(self, session: gr.State, light: dict[str, Any]) -> None:
        """What happens on this half of the page alone. light: how handlers that answer at once are registered."""
        self.pair.input(compared, [session, self.pair], self.compare, **light)
        self.veil.input(_evidence, [session, self.veil], [self.evidence, self.legend], **light)
        originals = [session, self.pair, self.panes, self.compare, self.scores]
        gr.on([self.original.upload, self.original.clear], set_original, [session, self.original], originals, **light)
        self.pick.select(point, session, [self.pick, self.found, self.words], **light)


def lay_out() -> ResultPanel:
    with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
        with gr.Tab("Compare", render_children=True, id="compare"):
            bare: dict[str, Any] = {"show_label": False, "container": False}
            with gr.Row(elem_id="ways"):
                pair = gr.Radio([FIRST], value=FIRST, label="Compare with", elem_id="pair", **bare)
                side_by_side = panes.lay_out()
            compare = components.viewer(NOTHING, elem_id="compare")
        with gr.Tab("References", render_children=True, id="references"):
            words = gr.Markdown(elem_id="words")
            with gr.Row():
                pick = components.viewer(WITHOUT, pointed=True, min_width=260, elem_id="pick")
                found = components.viewer(WITHOUT, min_width=260, elem_id="found")
            with components.fold("All matches at once"):
                _about("Lines join the surest places; below, equal colours are matched places.")
                matches = components.viewer(WITHOUT, elem_id="matches")
                _about("The pixels of the references, moved to where they were matched:")
                transferred = components.viewer(WITHOUT, elem_id="transferred")
        with gr.Tab("Evidence", render_children=True, id="evidence"):
            veil = gr.Radio(list(VEILS), value=SOURCES, label="Colours", elem_id="veil", **bare)
            legend = gr.HTML(elem_id="legend", padding=False)
            evidence = components.viewer(NOTHING, elem_id="evidence")
        with gr.Tab("Details", render_children=True, id="details"):
            steps = components.viewer(NOTHING, elem_id="steps")
            _about("**Copy as Python.** Run it in the unpacked ZIP, which holds the inputs: on a machine like this one "
                   "it writes the same bytes.")  # fmt: skip
            python = gr.Code(language="python", label="reproduce.py", interactive=False, elem_id="python")
            with components.fold("Do you have the original? Compare with it"):
                label = "Sharp original, as large as the result"
                original = gr.File(label=label, height=150, elem_id="original")
                scores = gr.Markdown(elem_id="scores")
            with components.fold("Report: settings, scores, versions"):
                report = gr.JSON(show_label=False, elem_id="report")
    return ResultPanel(
        pair, side_by_side, compare, original, scores, pick, found, words, matches, transferred, veil, evidence, legend,
        steps, report, python,
    )  # fmt: skip


def _about(text: str) -> None:
    gr.Markdown(text, elem_classes="def-about")


# -------------------------------------------------------------------------------------------------- compare


def compared(session: Session, pair: str) -> dict[str, Any] | None:
    """The two pictures of a pair with a divider."""
    left, right = PAIRS.get(pair, PAIRS[FIRST])
    before, after = _picture(session, left), _picture(session, right)
    if before is None or after is None:
        return None
    return view(after, NAMES[right], before=(before, NAMES[left]), look_at=session.look_at)


def known_pairs(session: Session) -> list[str]:
    """The pairs whose pictures there are; without any, the first."""
    there = [pair for pair, names in PAIRS.items() if all(_picture(session, name) for name in names)]
    if session.result is not None and not session.result.call.references and "Without references" in there:
        there.remove("Without references")  # it would be nearly the same picture
    return there or [FIRST]


def scored(session: Session) -> str:
    """How near the result is to the original; empty where one of them is missing."""
    original = _picture(session, "original")
    if original is None or session.result is None:
        return ""
    return compare_with_original(session.result, original)


def set_original(session: Session, path: str | None) -> tuple[Session, Any, Any, Any, str]:
    """An original was given, or taken away: what is compared with it."""
    words = ""
    try:
        session.set_original(path)
        words = scored(session) or ("It is compared with as soon as there is a result." if path else "")
    except Exception as error:
        words = complaint(error)
    pairs = known_pairs(session)
    pair = ORIGINAL if ORIGINAL in pairs else pairs[0]
    side_by_side = panes.shown(session, _picture(session, "original"))
    return session, gr.Radio(choices=pairs, value=pair), side_by_side, compared(session, pair), words


def _picture(session: Session, name: str) -> Path | None:
    """A picture of the result, or the original of the photo that the result is of, where it is as large."""
    result = session.result
    if result is None or name != "original":
        return None if result is None else result.picture(name)
    same = session.stale != "photograph" and session.original_scale == result.call.options.settings.scale
    return session.original if same else None


# -------------------------------------------------------------------------------------------------- references


def point(session: Session, event: gr.EventData) -> tuple[Any, Any, str]:
    """A point of the result was chosen: where it was found in the references."""
    result = session.result
    if result is None or result.picture("reference-1") is None:
        return None, None, "This result is not kept any more: run again."
    try:
        match = match_at(result, float(event._data["x"]), float(event._data["y"]))
    except (ValueError, TypeError, KeyError):
        return gr.skip(), gr.skip(), "That is not a point of the picture."
    here = view(result.picture("result"), "result", mark=match.here)
    if match.reference is None:
        return here, None, "There is no match here."
    width, height = result.sizes[match.reference - 1]
    there = view(result.picture(f"reference-{match.reference}"), f"reference {match.reference}", mark=match.there)
    place = f"({match.there[0] * width:.0f}, {match.there[1] * height:.0f})"
    words = f"Found in **reference {match.reference}** at {place}, trusted {100 * match.confidence:.0f} %."
    return here, there, words


def _explained(path: Path | None, alt: str) -> dict[str, Any] | None:
    """A picture below a heading that already says what it is."""
    return view(path, alt, caption=False)


# -------------------------------------------------------------------------------------------------- evidence


def veiled(session: Session, veil: str) -> dict[str, Any] | None:
    """The result under the colours of a kind of evidence."""
    if session.result is None:
        return None
    colours = session.result.picture(VEILS[veil])
    if colours is None:
        return None
    return view(session.result.picture("result"), veil.lower(), caption=False, veil=colours)


def legend(session: Session, veil: str) -> str:
    """What the colours of a kind of evidence mean."""
    if session.result is None:
        return ""
    if veil == TRUST:
        words = {0: "not at all: no reference is used here", 5: "half", 10: "fully"}
        stops = [(word, tuple(map(int, VIRIDIS[stop]))) for stop, word in words.items()]
        return components.legend("Trusted:", stops)  # type: ignore[arg-type]
    shares = [(f"{name}: {n} %", colour) for name, n, colour in session.result.legend]
    return components.legend("Added detail:", shares)


def _evidence(session: Session, veil: str) -> tuple[Any, str]:
    return veiled(session, veil), legend(session, veil)


# -------------------------------------------------------------------------------------------------- details


def steps_strip(session: Session) -> Any:
    """The estimates of the diffusion, where there were several steps."""
    result = session.result
    several = result is not None and result.call.options.settings.num_inference_steps > 1
    path = result.picture("steps") if result is not None and several else None
    return gr.HTML(value=view(path, "estimates of the diffusion, step by step"), visible=path is not None)
