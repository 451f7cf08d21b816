"""The Space: `python app.py` serves the browser interface with the model that `DEF_MODEL` names (a folder or a Hub
name), or with the embedded one, which needs no network.
"""

import sys
from contextlib import suppress

from def_hub.waiting import share_cores

# Threads of torch, of the ranking and of the server share few cores: threads that wait by spinning made a run ten times
# slower on a crowded machine. It counts when torch is imported.
share_cores()

with suppress(ImportError):  # ZeroGPU wants to be imported before torch
    import spaces  # noqa: F401

from def_hub.space.demo import build_demo, launch_options  # noqa: E402

__all__ = ["build_demo", "launch_options"]

if __name__ == "__main__":
    from def_hub import cli

    if status := cli.main(["app"]):  # as the command: what keeps the page from starting is one line
        sys.exit(status)
