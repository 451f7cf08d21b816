"""Loading the model once and serving the page."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.util import find_spec

import torch

from def_hub.pipeline import DEFPipeline
from def_hub.reference.library import ReferenceLibrary
from def_hub.service.temporary import forgetting, own_folder
from def_hub.space.demo import build_demo, launch_options
from def_hub.space.page import HOUR

QUEUE = 16  # visitors waiting at most; the next is told that the queue is full


def main() -> None:
    """Serve the page until it is stopped. `DEF_MODEL` is a folder or a Hub name, `DEF_REVISION` its version; without
    them the embedded model is served. `DEF_LIBRARY` is a library of references that visitors are offered."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    name, revision = (os.environ.get(key) or None for key in ("DEF_MODEL", "DEF_REVISION"))
    pipeline = DEFPipeline.from_pretrained(name, revision=revision)
    library = os.environ.get("DEF_LIBRARY")
    photos = ReferenceLibrary(library) if library else None
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    with own_folder() as folder:
        if "gradio.mcp" in sys.modules:  # it has looked for the temporary folder when it was imported
            sys.modules["gradio.mcp"].DEFAULT_TEMP_DIR = str(folder / "gradio")  # type: ignore[attr-defined]
        demo = build_demo(pipeline, prepare=True, photos=photos).queue(max_size=QUEUE)
        with forgetting(folder / "gradio", HOUR):
            demo.launch(**launch_options(), mcp_server=find_spec("mcp") is not None)


def _stop(*_: object) -> None:
    """Containers stop with SIGTERM. It ends like Ctrl-C, so that the visitors' files are deleted."""
    raise KeyboardInterrupt
