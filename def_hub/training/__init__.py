"""Training of the three parts: prior, extractor and reference network. The command line calls `run`."""

from def_hub.training.run import run

__all__ = ["run"]
