"""Measuring: `metrics` says how well two pictures agree, `benchmark` runs methods over data sets."""
