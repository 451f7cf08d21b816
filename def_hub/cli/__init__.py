"""`def-hub upscale | rank | evaluate | compare | train | convert | assemble | card | publish | app`.

A command's own file is imported when the command runs, so that `--help` and a mistyped option answer at once. What a
user did wrong ends in one line on stderr and status 2; set `DEF_DEBUG=1` to see the traceback instead.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from importlib import import_module

from def_hub.cli.console import Warnings, complain, is_users, warn
from def_hub.cli.parser import make_parser as _parser
from def_hub.stopping import Terminated, stopped_by_sigterm
from def_hub.waiting import share_cores


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. The exit status: 0, 1 where some files of a folder failed, 2 for a wrong input."""
    options = _parser().parse_args(arguments)
    share_cores()  # before a command imports torch
    log, handler = logging.getLogger("def_hub"), Warnings(logging.WARNING)
    log.addHandler(handler)
    try:
        module, _, function = options.run.partition(":")
        with stopped_by_sigterm(), warnings.catch_warnings():
            # Pillow warns several times of one damaged file; whether it could be read is said anyway
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            return getattr(import_module(module), function)(options)
    except Terminated:
        warn("terminated")
        return 143
    except KeyboardInterrupt:
        warn("interrupted")
        return 130
    except Exception as error:
        if not is_users(error) or os.environ.get("DEF_DEBUG"):
            raise
        complain(error)
        return 2
    finally:
        log.removeHandler(handler)
