"""Serving the page."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.util import find_spec

import torch

from def_hub.service.elsewhere import Elsewhere, Killed
from def_hub.service.temporary import UPLOADS, forgetting, own_folder
from def_hub.service.work import Here
from def_hub.space.demo import build_demo, launch_options
from def_hub.space.page import HOUR
from def_hub.stopping import stopped_by_sigterm

QUEUE = 16  # visitors waiting at most; the next is told that the queue is full


def main() -> None:
    """Serve the page until it is stopped. `DEF_MODEL` is a folder or a Hub name, `DEF_REVISION` its version; without
    them the embedded model is served. `DEF_LIBRARY` is a library of references that visitors are offered.

    Raises `OSError` and `ValueError` where the model or the library cannot be loaded.
    """
    name, revision, library = (os.environ.get(key) or None for key in ("DEF_MODEL", "DEF_REVISION", "DEF_LIBRARY"))
    load = partial(Here.load, name, revision, library)
    # A GPU refuses memory that it does not have, and `spaces` has processes of its own.
    apart = not torch.cuda.is_available() and find_spec("spaces") is None
    work = Elsewhere(load) if apart else load()
    with own_folder() as folder, stopped_by_sigterm():
        if "gradio.mcp" in sys.modules:  # it has looked for the temporary folder when it was imported
            sys.modules["gradio.mcp"].DEFAULT_TEMP_DIR = str(folder / UPLOADS)  # type: ignore[attr-defined]
        try:
            demo = build_demo(work, prepare=True).queue(max_size=QUEUE)
        except Killed as error:
            words = "the page cannot be served: while the model was loaded, {}; is there enough memory?"
            raise OSError(words.format(error)) from error
        with forgetting(folder / UPLOADS, HOUR):
            demo.launch(**launch_options(), mcp_server=find_spec("mcp") is not None)
