"""Training of the three parts; `run` is what the command line calls."""

from def_hub.training.run import run

__all__ = ["run"]
