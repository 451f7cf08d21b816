"""`def-hub app`: the browser interface."""

import argparse
import os
from importlib.util import find_spec

from def_hub.cli.model import check_name


def app(options: argparse.Namespace) -> int:
    """Start the page and serve it until it is stopped."""
    if find_spec("gradio") is None:
        raise ModuleNotFoundError("the browser interface needs gradio: pip install 'def-hub[app]'")
    check_name(options.model)
    from def_hub.space.serve import main as serve

    if options.model:
        os.environ["DEF_MODEL"] = options.model
    if options.library:
        os.environ["DEF_LIBRARY"] = options.library
    serve()
    return 0
