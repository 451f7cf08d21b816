"""Loading the model once and serving the page."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

from def_hub.pipeline import DEFPipeline
from def_hub.space.page import HOUR, build_demo, launch_options
from def_hub.space.temporary import forgetting, own_folder

QUEUE = 16  # visitors waiting at most; the next is told that the queue is full


def main() -> None:
    """Serve the interface until it is stopped. `DEF_MODEL`: a folder or a Hub name, of which `DEF_REVISION` says which
    version; the embedded model without it."""
    name, revision = (os.environ.get(key) or None for key in ("DEF_MODEL", "DEF_REVISION"))
    pipeline = DEFPipeline.from_pretrained(name, revision=revision)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    with own_folder() as folder:
        demo = build_demo(pipeline, prepare=True).queue(max_size=QUEUE)
        with forgetting(folder / "gradio", HOUR):
            demo.launch(**launch_options(), mcp_server=find_spec("mcp") is not None)
