"""Plain enlargement, result, reference and original side by side over the whole screen; all move and zoom together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from def_hub.service.places import places_of
from def_hub.service.session import Session
from def_hub.space import components


def lay_out() -> gr.HTML:
    """A button that opens the comparison; there is none without a value, see `shown`."""
    return components.panel("panes", elem_id="panes", min_width=120, scale=0)


def shown(session: Session, original: Path | None) -> dict[str, Any] | None:
    """original: of the result that is shown. The reference is seen where the middle of the result was found in it."""
    result = session.result
    bicubic, picture = (None, None) if result is None else (result.picture("bicubic"), result.picture("result"))
    if result is None or bicubic is None or picture is None or not result.report:
        return None
    panes = [("Plain enlargement", bicubic), ("Result", picture)]
    if original is not None:
        panes.append(("Original", original))
    width, height = map(int, result.report["sizes"]["output"].split("x"))
    value: dict[str, Any] = {
        "panes": [{"name": name, "picture": components.file(path)} for name, path in panes],
        "size": [width, height],
        "references": [],
        "grid": None,
    }
    places = places_of(result)
    if places is not None:
        value["grid"] = {"rows": places.rows, "columns": places.columns, "cells": places.cells}
        for number, (size, frame) in enumerate(zip(result.sizes, places.frames, strict=True), start=1):
            path = result.picture(f"reference-{number}")
            value["references"].append({"picture": path and components.file(path), "size": size, "frame": frame})
    return value
