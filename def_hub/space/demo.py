"""The whole demo: the page, the examples that are prepared for it, and the named API."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from def_hub.pipeline import DEFPipeline
from def_hub.service.call import RunOptions
from def_hub.service.examples import PreparedExamples, examples
from def_hub.service.runner import Runner
from def_hub.service.uploads import MAX_BYTES
from def_hub.service.work import Work
from def_hub.service.workers import start as start_thread
from def_hub.space.components import asset
from def_hub.space.endpoints import add_endpoints
from def_hub.space.head import TitledBlocks, serving
from def_hub.space.links import fetch_nothing
from def_hub.space.page import HOUR, LIGHT, Page
from def_hub.space.theme import theme
from def_hub.space.visitors import OwnFiles


def build_demo(work: Work | DEFPipeline, prepare: bool = False) -> gr.Blocks:
    """The interface around who computes; start it with `.queue(max_size=…).launch(**launch_options())`.

    With `prepare`, the first example is computed now and the others in the background, so that a visitor sees a result
    at once. work: a pipeline computes in this process; see also `service.work`.
    """
    runner = Runner(work)
    prepared = PreparedExamples(runner.rank, lambda session: runner.run(session, RunOptions()))
    shipped = examples()
    if prepare and shipped:
        prepared.prepare(shipped[:1])
        start_thread(lambda: prepared.prepare(shipped), "def-examples")
    with TitledBlocks(title="def_hub", delete_cache=(600, HOUR), analytics_enabled=False) as demo:
        page = Page(demo, runner, prepared, shipped)
        page.wire()
        if prepare and shipped:
            demo.load(page.show_first, page.session, page.everything, **LIGHT)
        add_endpoints(runner)
    fetch_nothing(demo)
    return demo


def launch_options() -> dict[str, Any]:
    """What `launch` is called with, here and in the tests."""
    return {
        "theme": theme(),
        "css": asset("page.css"),
        "js": asset("page.js"),
        "max_file_size": MAX_BYTES,
        "enable_monitoring": False,
        "ssr_mode": False,
        "app_kwargs": serving(Middleware(OwnFiles)),
        "footer_links": ["api"],
    }
