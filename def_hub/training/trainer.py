"""One loop for every part: Accelerate, averaging of weights, schedule, log, checkpoints that survive a kill at any
moment.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from def_hub.config import RunConfig
from def_hub.data import SampleStream
from def_hub.training.optimizer import make_optimizer


class Task(Protocol):
    """What is trained: a module whose forward pass is its loss."""

    def __call__(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor: ...

    def export(self, folder: Path) -> None:
        """Write the part in the form that a pipeline folder holds it."""

    def validate(self) -> dict[str, float]:
        """Figures on the validation pictures; empty without any."""


class Trainer:
    """Trains the parameters of `task` that require gradients.

    Everything random is drawn from (seed, step), so a checkpoint is weights, averages, optimiser state and a step
    number.
    """

    def __init__(self, task: nn.Module, stream: SampleStream, config: RunConfig) -> None:
        self.task = task
        self.stream = stream
        self.config = config
        self.folder = Path(config.output)
        # a batch without references leaves the reference's layers without a gradient
        idle = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(kwargs_handlers=[idle])
        parameters = [p for p in task.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(parameters, config.optim)
        self.average = AveragedModel(task, multi_avg_fn=get_ema_multi_avg_fn(config.optim.average))
        self.step = 0

    def fit(self, *, resume: bool = True, max_minutes: float | None = None) -> Path:
        """Train up to the configured number of steps, or until the time is up; returns the folder with the exported
        weights.
        """
        config, device = self.config, self.accelerator.device
        self.folder.mkdir(parents=True, exist_ok=True)
        if resume and self._checkpoint.exists():
            self.load()
        self.average.to(device)
        task, optimizer = self.accelerator.prepare(self.task, self.optimizer)
        task.train()
        started = saved = time.monotonic()
        bar = tqdm(initial=self.step, total=config.optim.steps, desc=config.part, mininterval=5)
        recent: list[float] = []
        for batch in self._batches():
            if self.step >= config.optim.steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = config.optim.lr * self._schedule()
            loss = task({k: v.to(device) for k, v in batch.items()}, self._generator())
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"the loss became {loss.item()} at step {self.step}; the last checkpoint is unharmed"
                )
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(task.parameters(), config.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.average.update_parameters(self.accelerator.unwrap_model(task))
            self.step += 1
            recent.append(loss.item())
            bar.update()
            if self.step % config.log.every == 0:
                self._log(
                    "train.csv",
                    {"loss": sum(recent) / len(recent), "minutes": (time.monotonic() - started) / 60},
                )
                bar.set_postfix(loss=f"{sum(recent) / len(recent):.5f}")
                recent.clear()
            if self.step % config.log.validate == 0:
                self._validate()
            now = time.monotonic()
            if now - saved > 60 * config.log.checkpoint_minutes:
                self.save()
                saved = now
            if max_minutes is not None and now - started > 60 * max_minutes:
                break
        bar.close()
        self.save()
        self._validate()
        return self.folder / "export"

    def save(self) -> None:
        """Write a checkpoint and the averaged weights. Each file appears whole or not at all."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"task.{k}": v for k, v in self.accelerator.unwrap_model(self.task).state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in state.items()}
        temporary = self._checkpoint.with_suffix(".part")
        tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
        save_file(tensors, temporary, metadata={"step": str(self.step)})
        os.replace(temporary, self._checkpoint)
        self._averaged.export(self.folder / "export")

    def load(self) -> None:
        """Continue from the checkpoint in the run's folder."""
        states: dict[int, dict[str, Tensor]] = {}
        parts: dict[str, dict[str, Tensor]] = {"task": {}, "average": {}}
        with safe_open(self._checkpoint, framework="pt") as file:
            self.step = int(file.metadata()["step"])
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

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def _averaged(self) -> Any:
        return self.average.module

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        batch, world = self.config.optim.batch, self.accelerator.num_processes
        if batch % world:
            raise ValueError(f"a batch of {batch} cannot be shared by {world} processes")
        share, rank = batch // world, self.accelerator.process_index
        indices = [
            step * batch + rank * share + i for step in range(self.step, self.config.optim.steps) for i in range(share)
        ]
        return iter(DataLoader(Subset(self.stream, indices), batch_size=share))

    def _generator(self) -> torch.Generator:
        seed = (self.config.seed * 1_000_003 + self.step) * 64 + self.accelerator.process_index
        return torch.Generator().manual_seed(seed)

    def _schedule(self) -> float:
        """Factor on the learning rate: linear warm-up, then a cosine down to `final_lr`."""
        optim = self.config.optim
        if self.step < optim.warmup:
            return (self.step + 1) / optim.warmup
        progress = (self.step - optim.warmup) / max(optim.steps - optim.warmup, 1)
        return optim.final_lr + (1 - optim.final_lr) * (1 + math.cos(math.pi * progress)) / 2

    def _validate(self) -> None:
        if self.accelerator.is_main_process:
            figures = self._averaged.validate()
            if figures:
                self._log("validation.csv", figures)

    def _log(self, name: str, figures: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        path = self.folder / name
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", *figures])
            writer.writerow([self.step, *(f"{v:.6g}" for v in figures.values())])
