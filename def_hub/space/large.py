"""The dialog for a photo that is too large: which part of it is enlarged, or how far it is shrunk first."""

from __future__ import annotations

from typing import Any

import gradio as gr

from def_hub.crop import Crop, Size
from def_hub.estimate import gigabytes
from def_hub.formats import MIN_SIDE
from def_hub.service.call import RunOptions
from def_hub.service.runner import Runner
from def_hub.service.session import Session
from def_hub.space import components, messages

SMALLEST = 64  # pixels: of a frame, along a side
SIZES = 12
"""For how many sizes of the frame the cost is estimated; the next larger one is said."""


def lay_out() -> gr.HTML:
    """The dialog; shown while it has a value. It triggers `submit`, see `chosen`, or `clear`."""
    return components.cropper(elem_id="large")


def show(session: Session, runner: Runner, options: RunOptions) -> dict[str, Any]:
    """The value of the dialog: the given photo, what of it can be enlarged here, and what that costs.

    Raises `ValueError` where nothing can.
    """
    given = session.given
    assert given is not None
    (height, width), name = given.size, given.path.name
    most = session.largest(given.size, options)
    return {
        **components.picture(session.large(), f"the photo {name}", name),
        "size": [width, height],
        "most": most[0] * most[1],
        "least": min(SMALLEST, height, width),
        "scale": options.settings.scale,
        "shrunk": [most[1], most[0]] if most != given.size else None,
        "cost": cost(session, runner, options, most),
        "costs": [[h * w, cost(session, runner, options, (h, w))] for h, w in _frames(most)],
    }


def cost(session: Session, runner: Runner, options: RunOptions, size: Size) -> str:
    """Time and memory of a run with a photo of that (height, width), in words."""
    expected = session.cost(options, size)
    return f"about {messages.duration(expected.seconds * runner.pace)}, {gigabytes(expected.bytes)} of memory"


def chosen(event: gr.EventData, session: Session, options: RunOptions) -> tuple[Crop | None, Size | None]:
    """What a visitor chose: a part, or the size of a shrunk copy. Raises `ValueError` for what is no part."""
    if event._data.get("whole"):
        assert session.given is not None
        return None, session.largest(session.given.size, options)
    return Crop.parse(str(event._data.get("crop"))), None


def _frames(most: Size) -> list[Size]:
    """Sizes of the frame, from the smallest to the largest."""
    least = max(MIN_SIDE, SMALLEST) / max(min(most), SMALLEST)
    factors = [least ** (1 - n / (SIZES - 1)) for n in range(SIZES)]
    return [(max(round(most[0] * f), 1), max(round(most[1] * f), 1)) for f in factors]
