"""The Space: `python app.py` serves the browser interface with the model that `DEF_MODEL` names (a folder or a Hub
name), or with the embedded one, which needs no network.
"""

from contextlib import suppress

with suppress(ImportError):  # ZeroGPU wants to be imported before torch
    import spaces  # noqa: F401

from def_hub.space.page import build_demo, launch_options
from def_hub.space.serve import main

__all__ = ["build_demo", "launch_options", "main"]

if __name__ == "__main__":
    main()
