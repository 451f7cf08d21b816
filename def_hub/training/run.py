"""A run file → trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from def_hub.config import RunConfig, load_config
from def_hub.data import Prepared, SampleStream, open_source, open_validation
from def_hub.pipeline import EMBEDDED, DEFPipeline
from def_hub.precision import compute_in
from def_hub.training.baseline import BaselineTask
from def_hub.training.cache import prepare
from def_hub.training.extractor import ExtractorTask
from def_hub.training.kernels import KernelTask
from def_hub.training.prior import PriorTask
from def_hub.training.reference import BICUBIC, ReferenceTask
from def_hub.training.teacher import Taught, Teacher
from def_hub.training.trainer import Trainer


def run(
    config: RunConfig | str | Path,
    *,
    resume: bool = True,
    max_minutes: float | None = None,
    output: str | None = None,
    processes: int | None = None,
) -> Path:
    """Train the part that the run file names. Returns the folder with the exported weights.

    Args:
        config: the path of a run file, or its content.
        resume: continue from the run's checkpoint, if there is one.
        max_minutes: write a checkpoint and stop after this time.
        output: output folder, instead of the run file's.
        processes: the expected number of running processes.

    Raises:
        ValueError: for an invalid run file, unusable training data, or another number of processes.
        FloatingPointError: if the loss is not finite; the message names the samples.
    """
    if not isinstance(config, RunConfig):
        config = load_config(config)
    if output is not None:
        config = replace(config, output=output)
    sources = [open_source(s, config.data.size, config.data.holdout) for s in config.data.sources]
    for source in sources:
        print(source.report(), flush=True)
    torch.manual_seed(config.seed)  # for the initial weights; later random numbers follow from the seed and the step
    if config.reference.prior not in (None, BICUBIC):
        config = replace(config, reference=replace(config.reference, prior=str(_folder(str(config.reference.prior)))))
    task = _task(config)
    if config.init is not None:
        task.start_from(_folder(config.init))
    matched = config.part == "reference" and config.reference.prior is not None and config.data.missing < 1
    paired = matched or config.part == "baseline"
    prepared: list[Prepared] = []
    if isinstance(task, ReferenceTask) and matched and config.reference.prior != BICUBIC:
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))  # as `Accelerator` does later
        precision = compute_in("bfloat16" if config.optim.precision == "bf16" else "float32", state.device)
        with state.local_main_process_first(), precision:  # the first process writes the cache, the others read it
            prepared = [prepare(source, task, config) for source in sources]
    taught: list[Taught] = []
    wanted = config.reference
    if config.part == "reference" and wanted.teacher is not None and wanted.kept:
        teacher, folder = Teacher(Path(wanted.teacher), wanted.teacher_network), Path(wanted.cache)
        taught = [Taught(source, config.data.size, teacher, folder) for source in sources]
    stream = SampleStream(
        sources, config.data, config.seed, prepared, paired, taught, wanted.taught, config.degradation
    )
    return Trainer(task, stream, config, processes).fit(resume=resume, max_minutes=max_minutes)


def _task(config: RunConfig) -> PriorTask | ExtractorTask | ReferenceTask | KernelTask | BaselineTask:
    if config.part == "kernel":
        return KernelTask()
    validation = open_validation(config.data, config.log.pairs)
    if config.part == "prior":
        return PriorTask(config.prior, validation)
    if config.part == "extractor":
        return ExtractorTask(config.extractor, validation)
    if config.part == "baseline":
        return BaselineTask(config.baseline, validation)
    return ReferenceTask(config.reference, validation)


def _folder(name: str) -> Path:
    """The local folder of a model: "def-mini" (the embedded default), a folder, or a repository of the Hub."""
    if name == "def-mini":
        return EMBEDDED
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(DEFPipeline.download(name))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name!r} is neither a folder nor a repository that can be fetched: {error}") from error
