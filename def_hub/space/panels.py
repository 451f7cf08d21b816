"""The right half of the page: what a result looks like inside, and what can be taken away."""

from __future__ import annotations

from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from torch import Tensor

from def_hub import images
from def_hub.space.clock import Reading
from def_hub.space.outcome import PREVIEW, Outcome, compare_with_truth, look_up
from def_hub.space.studio import complaint
from def_hub.space.viewer import fold, legend, view, viewer
from def_hub.space.visit import PHOTOGRAPH, Visit
from def_hub.visualization import thumbnail

ORIGINAL = "result ◂▸ original"
PAIRS = {
    "bicubic ◂▸ result": ("bicubic", "result"),
    "enhanced ◂▸ result": ("enhanced", "result"),
    ORIGINAL: ("result", "truth"),
}
NAMES = {
    "bicubic": "plain bicubic enlargement",
    "result": "result",
    "enhanced": "enhanced by the diffusion alone",
    "truth": "original",
}
STAGES = {"enhance": "Enhancing", "match": "Matching", "transfer": "Laying in", "restore": "Restoring"}
DOWNLOADS = {"result": "PNG", "png16": "PNG, 16 bit", "zip": "Everything (ZIP)", "report": "Report (JSON)"}


@dataclass
class Shown:
    """The components that show a result."""

    pair: gr.Radio
    compare: gr.HTML
    truth: gr.File
    scores: gr.Markdown
    enhanced: gr.HTML
    pick: gr.HTML
    found: gr.HTML
    words: gr.Markdown
    matches: gr.HTML
    confidence: gr.HTML
    overlay: gr.HTML
    legend: gr.HTML
    transferred: gr.HTML
    steps: gr.HTML
    python: gr.Code
    downloads: dict[str, gr.DownloadButton]

    @property
    def outputs(self) -> list[Any]:
        """All that `refresh` sets."""
        single = [getattr(self, f.name) for f in fields(self) if f.name not in ("downloads", "truth")]
        return [*single, *self.downloads.values()]

    def refresh(self, visit: Visit) -> dict[Any, Any]:
        """Everything about the visit's outcome, or nothing. Pictures that are not drawn yet are left empty."""
        outcome = visit.outcome
        path = (lambda name: None) if outcome is None else outcome.picture
        entries = [] if outcome is None else [(f"{name}: {n} %", colour) for name, n, colour in outcome.legend]
        looked = outcome is not None and path("reference-1") is not None

        def explained(name: str, alt: str) -> Any:
            """A picture whose tab says what it is."""
            return view(path(name), alt, caption=False)

        return {
            self.pair: gr.Radio(choices=known(visit), value=list(PAIRS)[0]),
            self.compare: compared(visit, list(PAIRS)[0]),
            self.scores: scored(visit) if path("zip") else "",  # once, when all is drawn
            self.enhanced: explained("enhanced", NAMES["enhanced"]),
            self.pick: view(path("result"), "result") if looked else None,
            self.found: view(path("reference-1"), "reference 1") if looked else None,
            self.words: "Click a point of the result, or focus it and use the arrow keys." if looked else "",
            self.matches: explained("matches", "places of the result joined with their matches in the references"),
            self.confidence: explained("confidence", "how far each match is trusted"),
            self.overlay: explained("overlay", "where each pixel's detail came from"),
            self.legend: legend(entries) if entries else "",
            self.transferred: explained("transferred", "texture of the references, laid out like the result"),
            self.steps: explained("steps", "estimates of the diffusion, step by step"),
            self.python: "" if outcome is None else outcome.python,
            **{
                button: gr.DownloadButton(value=str(path(name)) if path(name) else None, interactive=bool(path(name)))
                for name, button in self.downloads.items()
            },
        }


def results() -> Shown:
    """Lay the components out."""
    nothing = "Nothing yet: choose an example, or upload a photograph and press Enlarge."
    without = "Only there when a reference was used."
    with gr.Column(scale=3, min_width=320):
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            with gr.Tab("Compare", render_children=True, id="compare"):
                pair = gr.Radio(
                    list(PAIRS)[:1], value=list(PAIRS)[0], label="Left and right of the divider", elem_id="pair"
                )
                compare = viewer(nothing, elem_id="compare")
                with fold("Do you have the original? Compare with it"):
                    truth = gr.File(
                        label="Sharp original, four times the size of the input", height=150, elem_id="truth"
                    )
                    scores = gr.Markdown(elem_id="scores")
            with gr.Tab("Enhanced", render_children=True, id="enhanced"):
                about("What the diffusion model made of the input, before any reference was looked at.")
                enhanced = viewer(nothing, elem_id="enhanced")
            with gr.Tab("Matches", render_children=True, id="matches"):
                words = gr.Markdown(elem_id="words")
                with gr.Row():
                    pick = viewer(without, pointed=True, min_width=300, elem_id="pick")
                    found = viewer(without, min_width=300, elem_id="found")
                about("All at once: lines join the surest places; below, equal colours are matched places.")
                matches = viewer(without, elem_id="matches")
            with gr.Tab("Confidence", render_children=True, id="confidence"):
                about("How far each match is trusted; where it is dark, the references have no say.")
                confidence = viewer(nothing, elem_id="confidence")
            with gr.Tab("Provenance", render_children=True, id="provenance"):
                about("Where the detail of each pixel came from.")
                key = gr.HTML(elem_id="legend", padding=False)
                overlay = viewer(nothing, elem_id="overlay")
            with gr.Tab("Texture", render_children=True, id="texture"):
                about("The pixels of the references, moved to where they were matched.")
                transferred = viewer(without, elem_id="transferred")
            with gr.Tab("Steps", render_children=True, id="steps"):
                about("What the diffusion model believed on the way. Settings has the number of its steps.")
                steps = viewer(nothing, elem_id="steps")
        gr.Markdown("### Take away")
        with gr.Row(elem_id="downloads"):
            downloads = {
                name: gr.DownloadButton(label, interactive=False, size="sm", min_width=120)
                for name, label in DOWNLOADS.items()
            }
        with fold("Copy as Python: the exact call"):
            about("Run it in the unpacked ZIP, which has the inputs: on a machine like this it writes the same bytes.")
            python = gr.Code(language="python", label="reproduce.py", interactive=False, elem_id="python")
    return Shown(
        pair, compare, truth, scores, enhanced, pick, found, words, matches, confidence, overlay, key, transferred,
        steps, python, downloads,
    )  # fmt: skip


def wire(shown: Shown, state: gr.State, photo: gr.Image, options: dict[str, Any]) -> None:
    """What happens on the right half alone: another pair, an original, a point; and another photograph."""

    def another(pair: str, visit: Visit) -> Any:
        return compared(visit, pair)

    def with_truth(path: str | None, visit: Visit) -> tuple[Any, Any, Any, Any]:
        words = ""
        try:
            visit.set_truth(path)
            words = scored(visit) or ("It is compared with as soon as there is a result." if path else "")
        except Exception as error:
            words = complaint(error)
        pairs = known(visit)
        pair = ORIGINAL if ORIGINAL in pairs else pairs[0]
        return visit, gr.Radio(choices=pairs, value=pair), compared(visit, pair), words

    def point(visit: Visit, event: gr.EventData) -> tuple[Any, Any, str]:
        outcome = visit.outcome
        if outcome is None or outcome.picture("reference-1") is None:
            return None, None, "This result is not kept any more: run again."
        try:
            look = look_up(outcome, float(event._data["x"]), float(event._data["y"]))
        except (ValueError, TypeError, KeyError):
            return gr.skip(), gr.skip(), "That is not a point of the picture."
        here = view(outcome.picture("result"), "result", mark=look.here)
        if look.reference is None:
            return here, None, "Nothing was looked up here."
        width, height = outcome.sizes[look.reference - 1]
        there = view(outcome.picture(f"reference-{look.reference}"), f"reference {look.reference}", mark=look.there)
        place = f"({look.there[0] * width:.0f}, {look.there[1] * height:.0f})"
        return (
            here,
            there,
            f"Found in **reference {look.reference}** at {place}, trusted {100 * look.confidence:.0f} %.",
        )

    def without_truth(visit: Visit) -> tuple[Any, Any, Any, Any, Any]:
        """It was the original of the photograph before."""
        return (None, *with_truth(None, visit))

    shown.pair.input(another, [shown.pair, state], shown.compare, **options)
    gr.on(
        [shown.truth.upload, shown.truth.clear],
        with_truth,
        [shown.truth, state],
        [state, shown.pair, shown.compare, shown.scores],
        **options,
    )
    gr.on(
        [photo.upload, photo.clear],
        without_truth,
        state,
        [shown.truth, state, shown.pair, shown.compare, shown.scores],
        **options,
    )
    shown.pick.select(point, state, [shown.pick, shown.found, shown.words], **options)


def compared(visit: Visit, pair: str) -> Any:
    """The value of the comparison: two pictures of a pair."""
    left, right = PAIRS.get(pair, ("bicubic", "result"))
    before, after = _picture(visit, left), _picture(visit, right)
    return None if before is None or after is None else view(after, NAMES[right], before=(before, NAMES[left]))


def known(visit: Visit) -> list[str]:
    """The pairs that there are pictures of; before there is any, the first."""
    there = [pair for pair, names in PAIRS.items() if all(_picture(visit, name) for name in names)]
    return there or list(PAIRS)[:1]


def scored(visit: Visit) -> str:
    """How near the result is to the original; empty where one of them is missing."""
    truth = _picture(visit, "truth")
    return "" if truth is None or visit.outcome is None else compare_with_truth(visit.outcome, truth)


def _picture(visit: Visit, name: str) -> Path | None:
    """A picture of the outcome, or the original of the photograph that it is of."""
    if visit.outcome is None or (name == "truth" and visit.outdated == PHOTOGRAPH):
        return None
    return visit.truth if name == "truth" else visit.outcome.picture(name)


def save_estimate(picture: Tensor, path: Path) -> None:
    """A live estimate as a file that is quickly sent."""
    images.save_image(thumbnail(picture, PREVIEW), path)


def about(text: str) -> None:
    gr.Markdown(text, elem_classes="def-about")


def note(words: str) -> str:
    return f"<div class='def-note' role='status'>{words}</div>" if words else ""


def warning(words: str) -> str:
    """Plain words: they may name what a visitor sent."""
    return f"<div class='def-warn' role='alert'>{escape(words)}</div>"


def progress(reading: Reading | None, words: str) -> str:
    """Which stage is at work, how far all of it is, and words. Without a reading none has begun."""
    share, stages = (0.0, ()) if reading is None else (reading.share, reading.stages)
    items = "".join(
        f"<li{' aria-current=step' if reading and name == reading.stage else ''}>{STAGES[name]}</li>" for name in stages
    )
    return (
        f"<div class='def-progress' role='status'><ol>{items}</ol><progress max='1' value='{share:.3f}' "
        f"aria-label='Progress'></progress><span>{escape(words)}</span></div>"
    )


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))}\N{NO-BREAK SPACE}s"
    return f"{round(seconds / 60)}\N{NO-BREAK SPACE}min"


def standing(visit: Visit) -> str:
    """What the result that is shown is, and of what."""
    if visit.outcome is None:
        return ""
    return earlier(visit) + note(summary(visit.outcome))


def earlier(visit: Visit) -> str:
    """To be said as long as the result that is shown is not of what is given."""
    return note(f"<b>The result shown is still that of the earlier {visit.outdated}.</b>") if visit.outdated else ""


def summary(outcome: Outcome) -> str:
    """A result in one sentence."""
    scores, sizes = outcome.report.get("scores"), outcome.report.get("sizes")
    if scores is None or sizes is None:
        return "The result is there; what explains it could not be drawn."
    lent = sum(per_cent for _, per_cent, _ in outcome.legend[2:])
    return (
        f"<b>{sizes['output'].replace('x', '×')}</b> in {outcome.seconds:.1f} s; "
        f"<b>{lent} %</b> of the detail comes from the references. Made smaller again, "
        f"the result differs from the input by at most {scores['consistency_error']:.2f} of 255."
    )
