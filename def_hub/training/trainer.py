"""The training loop of all parts: Accelerate, averaged weights, learning rate schedule, log, and checkpoints that stay
intact if the process is killed.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from def_hub.config import RunConfig
from def_hub.data import SampleStream
from def_hub.training.optimizer import make_optimizer
from def_hub.writing import appending, replacing, replacing_files, sweep, write_text


class Task(Protocol):
    """The interface of a trained module. Its forward pass returns the loss."""

    @property
    def learner(self) -> nn.Module:
        """The part that most of a step is spent in."""

    def __call__(self, batch: dict[str, Tensor], generator: torch.Generator, step: int) -> Tensor: ...

    def export(self, folder: Path) -> None:
        """Write the trained part as a pipeline folder holds it."""

    def validate(self) -> dict[str, float]:
        """Scores on the validation images. The highest first score decides which weights are the best. Empty without
        validation images."""

    def pictures(self) -> Tensor | None:
        """A grid of images `[3, H, W]` in [0, 1] for TensorBoard; None without validation images."""


class Trainer:
    """Trains the parameters of `task` that require gradients.

    All random numbers follow from the seed and the step. A checkpoint therefore consists of weights, averaged weights,
    optimiser state and step number, without the state of a generator.
    """

    def __init__(self, task: nn.Module, stream: SampleStream, config: RunConfig, processes: int | None = None) -> None:
        self.task = task
        self.stream = stream
        self.config = config
        self.folder = Path(config.output)
        # After a batch without references, the layers for references have no gradient.
        idle = DistributedDataParallelKwargs(find_unused_parameters=True)
        AcceleratorState._reset_state()  # otherwise a second run in this process keeps the precision of the first
        self.accelerator = Accelerator(mixed_precision=config.optim.precision, kwargs_handlers=[idle])
        self._check_processes(processes)
        _freeze(task, config.freeze)
        self.optimizer = make_optimizer([p for p in task.parameters() if p.requires_grad], config.optim)
        self.average = AveragedModel(task, multi_avg_fn=get_ema_multi_avg_fn(config.optim.average))
        if config.optim.compiled:
            task.learner.compile()  # type: ignore[union-attr]
        self.step = 0
        self.best = -math.inf

    def fit(self, *, resume: bool = True, max_minutes: float | None = None) -> Path:
        """Train up to the configured number of steps, or for `max_minutes`. Returns the folder with the exported
        weights.

        Args:
            resume: continue from the checkpoint in the run's folder, if there is one.

        Raises:
            FloatingPointError: if the loss is not finite; the message names the samples.
        """
        config, device = self.config, self.accelerator.device
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._main:
            sweep(self.folder)
        if resume and self._checkpoint.exists():
            self.load()
        if self._main:
            self._forget_later_steps()
        self.average.to(device)
        task, optimizer = self.accelerator.prepare(self.task, self.optimizer)
        task.train()
        board = self._board()
        started = saved = time.monotonic()
        if config.optim.schedule == "timed" and max_minutes is None:
            raise ValueError('optim.schedule = "timed" needs a number of minutes to fill (--max-minutes)')
        bar = tqdm(initial=self.step, total=config.optim.steps, desc=config.part, mininterval=5, disable=not self._main)
        recent: list[float] = []
        batches = self._batches()
        while self.step < config.optim.steps:
            for group in optimizer.param_groups:
                group["lr"] = config.optim.lr * self._schedule((time.monotonic() - started) / 60, max_minutes)
            recent.append(self._accumulate(task, batches))
            self.accelerator.clip_grad_norm_(task.parameters(), config.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.average.update_parameters(self.accelerator.unwrap_model(task))
            self.step += 1
            bar.update()
            if self.step % config.log.every == 0:
                loss = sum(recent) / len(recent)
                minutes = (time.monotonic() - started) / 60
                self._log("train.csv", {"loss": loss, "minutes": minutes}, board)
                bar.set_postfix(loss=f"{loss:.5f}")
                recent.clear()
            if self.step % config.log.validate == 0:
                self._validate(board)
            now = time.monotonic()
            if now - saved > 60 * config.log.checkpoint_minutes:
                self.save()
                saved = now
            if max_minutes is not None and now - started > 60 * max_minutes:
                break
        bar.close()
        self.save()
        if self.step % config.log.validate:
            self._validate(board)
        if board is not None:
            board.close()
        return self.folder / "export"

    def _accumulate(self, task: Any, batches: Iterator[dict[str, Tensor]]) -> float:
        """Compute the gradients of one step, in `accumulate` parts. Returns the loss."""
        parts = self.config.optim.accumulate
        total = 0.0
        for part in range(parts):
            batch = {k: v.to(self.accelerator.device) for k, v in next(batches).items()}
            last = part == parts - 1
            with nullcontext() if last else self.accelerator.no_sync(task):
                loss = task(batch, self._generator(part), self.step) / parts
                if not math.isfinite(loss.item()):
                    names = ", ".join(self.stream.describe(i) for i in self._indices(self.step)[part])
                    raise FloatingPointError(
                        f"the loss became {loss.item()} at step {self.step}, on {names}; "
                        "the last checkpoint is from before that step"
                    )
                self.accelerator.backward(loss)
            total += loss.item()
        return total

    def save(self) -> None:
        """Write a checkpoint and the averaged weights. The checkpoint replaces the old one in a single step."""
        if not self._main:
            return
        tensors = {f"task.{k}": v for k, v in self.accelerator.unwrap_model(self.task).state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in state.items()}
        tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
        with replacing(self._checkpoint) as temporary:
            save_file(tensors, temporary, metadata={"step": str(self.step), "best": repr(self.best)})
        with replacing_files(self.folder / "export") as temporary:
            self._averaged.export(temporary)

    def load(self) -> None:
        """Continue from the checkpoint in the run's folder."""
        states: dict[int, dict[str, Tensor]] = {}
        parts: dict[str, dict[str, Tensor]] = {"task": {}, "average": {}}
        with safe_open(self._checkpoint, framework="pt") as file:
            self.step = int(file.metadata()["step"])
            self.best = float(file.metadata().get("best", "-inf"))
            for key in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                part, name = key.split(".", 1)
                if part == "optimizer":
                    number, field = name.split(".", 1)
                    states.setdefault(int(number), {})[field] = file.get_tensor(key)
                else:
                    parts[part][name] = file.get_tensor(key)
        self.task.load_state_dict(parts["task"])
        self.average.load_state_dict(parts["average"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})

    def _forget_later_steps(self) -> None:
        """Remove the rows of the logs that a stopped run wrote after its last checkpoint: they come again."""
        for path in (self.folder / name for name in ("train.csv", "validation.csv")):
            if path.exists():
                lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
                kept = [n for n in lines[1:] if n.endswith("\n") and int(n.partition(",")[0]) <= self.step]
                write_text(path, "".join([*lines[:1], *kept]))

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def _averaged(self) -> Any:
        return self.average.module

    @property
    def _main(self) -> bool:
        return self.accelerator.is_main_process

    def _check_processes(self, asked: int | None) -> None:
        """Raise ValueError unless the right number of processes is running and can share a batch. Some launchers
        silently start one process instead of several."""
        running = self.accelerator.num_processes
        for source, count in (("--processes", asked), ("the launcher", int(os.environ.get("WORLD_SIZE", running)))):
            if count is not None and count != running:
                raise ValueError(
                    f"{source} asked for {count} processes, but {running} is running; "
                    "on CPUs: ACCELERATE_USE_CPU=true torchrun --nproc_per_node N ..."
                )
        share = running * self.config.optim.accumulate
        if self.config.optim.batch % share:
            raise ValueError(
                f"a batch of {self.config.optim.batch} cannot be shared by {running} processes in "
                f"{self.config.optim.accumulate} parts each"
            )

    def _indices(self, step: int) -> list[list[int]]:
        """The numbers of the samples of this process in a step, one list for each part."""
        batch, parts = self.config.optim.batch, self.config.optim.accumulate
        share = batch // self.accelerator.num_processes
        first = step * batch + self.accelerator.process_index * share
        size = share // parts
        return [list(range(first + part * size, first + (part + 1) * size)) for part in range(parts)]

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        remaining = [part for step in range(self.step, self.config.optim.steps) for part in self._indices(step)]
        workers = self.config.optim.workers
        ahead = 4 if workers else None
        return iter(DataLoader(self.stream, batch_sampler=remaining, num_workers=workers, prefetch_factor=ahead))

    def _generator(self, part: int) -> torch.Generator:
        seed = ((self.config.seed * 1_000_003 + self.step) * 64 + self.accelerator.process_index) * 64 + part
        return torch.Generator().manual_seed(seed)

    def _schedule(self, minutes: float, max_minutes: float | None) -> float:
        """Factor of the learning rate: a linear warm-up, then 1 or a cosine down to `final_lr`."""
        optim = self.config.optim
        if self.step < optim.warmup:
            return (self.step + 1) / optim.warmup
        if optim.schedule == "constant":
            return 1.0
        progress = (self.step - optim.warmup) / max(optim.steps - optim.warmup, 1)
        if optim.schedule == "timed" and max_minutes is not None:
            progress = max(progress, min(minutes / max_minutes, 1.0))
        return optim.final_lr + (1 - optim.final_lr) * (1 + math.cos(math.pi * progress)) / 2

    def _validate(self, board: Any = None) -> None:
        if not self._main:
            return
        scores = self._averaged.validate()
        if not scores:
            return
        self._log("validation.csv", scores, board)
        score = next(iter(scores.values()))
        if score > self.best:
            self.best = score
            with replacing_files(self.folder / "best") as temporary:
                self._averaged.export(temporary)
        if board is not None:
            board.add_image("validation", self._averaged.pictures(), self.step)

    def _board(self) -> Any:
        """TensorBoard's writer; None if TensorBoard is not installed (it comes with the extra "train")."""
        if not self._main or importlib.util.find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.folder / "tensorboard", purge_step=self.step)

    def _log(self, name: str, figures: dict[str, float], board: Any = None) -> None:
        if not self._main:
            return
        path = self.folder / name
        with appending(path) as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(["step", *figures])
            writer.writerow([self.step, *(f"{v:.6g}" for v in figures.values())])
        if board is not None:
            for key, value in figures.items():
                board.add_scalar(f"{path.stem}/{key}", value, self.step)


def _freeze(task: nn.Module, names: tuple[str, ...]) -> None:
    """Exclude the parameters from training whose names begin with one of `names`. Raises ValueError if a name fits
    none."""
    parameters = dict(task.named_parameters())
    for name in names:
        found = [p for n, p in parameters.items() if n.startswith(name)]
        if not found:
            known = sorted({n.rsplit(".", 2)[0] for n in parameters})
            raise ValueError(f"freeze: no parameter begins with {name!r}; some that exist: {', '.join(known[:12])}")
        for parameter in found:
            parameter.requires_grad_(False)
