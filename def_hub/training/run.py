"""From a run file to trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from def_hub.config import RunConfig, load_config
from def_hub.data import SampleStream, open_source, open_validation
from def_hub.training.tasks import ExtractorTask, PriorTask
from def_hub.training.trainer import Trainer


def run(
    config_path: str | Path,
    *,
    resume: bool = True,
    max_minutes: float | None = None,
    output: str | None = None,
) -> Path:
    """Train the part that the run file names; returns the folder with its weights.

    Args:
        resume: continue from the run's checkpoint where there is one.
        max_minutes: stop, with a checkpoint, after this time.
        output: instead of the run file's.

    Raises:
        ValueError: for a run file or training data that cannot be used.
    """
    config = load_config(config_path)
    if output is not None:
        config = replace(config, output=output)
    sources = [open_source(s, config.data.size, config.data.holdout) for s in config.data.sources]
    for source in sources:
        print(f"{source.name}: {len(source)} pairs", flush=True)
    stream = SampleStream(sources, config.data, config.seed)
    return Trainer(_task(config), stream, config).fit(resume=resume, max_minutes=max_minutes)


def _task(config: RunConfig) -> nn.Module:
    validation = open_validation(config.data, config.log.pairs)
    if config.part == "prior":
        return PriorTask(config.prior, validation)
    return ExtractorTask(config.extractor, validation)
