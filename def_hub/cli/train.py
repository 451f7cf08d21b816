"""`def-hub train`: one part, from a run file."""

import argparse

from def_hub import training
from def_hub.cli.console import say


def train(options: argparse.Namespace) -> int:
    """Train the part that a run file names."""
    folder = training.run(
        options.config,
        resume=options.resume,
        max_minutes=options.max_minutes,
        output=options.output,
        processes=options.processes,
    )
    say(f"weights in {folder}")
    return 0
