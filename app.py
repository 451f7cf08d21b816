"""The Space: `python app.py` serves the browser interface with the model that `DEF_MODEL` names (a folder or a Hub
name), or with the embedded one, which needs no network.
"""

import os
from contextlib import suppress

# Threads that wait for work shall sleep: those of torch, of the ranking and of the server share few cores, and threads
# that wait by spinning made a run ten times slower on a crowded machine. It counts when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

with suppress(ImportError):  # ZeroGPU wants to be imported before torch
    import spaces  # noqa: F401

from def_hub.space.page import build_demo, launch_options
from def_hub.space.serve import main

__all__ = ["build_demo", "launch_options", "main"]

if __name__ == "__main__":
    main()
