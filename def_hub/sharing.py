"""One job for several processes, on one machine or many, that `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long a process waits for the others, whose shares may take hours longer. `torchrun` ends all where one fails."""


class Processes:
    """This process among those that share a job. Without `torchrun` it is alone, and nothing heavy is imported.

    Attributes:
        count: of processes. number: of this one, from 0.
    """

    def __init__(self) -> None:
        self._state: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            import torch
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        self.count: int = self._state.num_processes if self._state else 1
        self.number: int = self._state.process_index if self._state else 0

    @property
    def first(self) -> bool:
        """Whether this process is the one that reads and writes what there is only one of."""
        return self.number == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """What this process does: every `count`-th item, so that a long data set is spread evenly."""
        return list(items[self.number :: self.count])

    def wait(self) -> None:
        """Until all processes are here."""
        if self._state:
            self._state.wait_for_everyone()

    def gather(self, items: list[T]) -> list[T]:
        """The items of all processes, in all processes. Machines need no common folder for it."""
        if not self._state:
            return items
        from accelerate.utils import gather_object

        return gather_object(items)

    def end(self) -> None:
        """Take leave of the others; to be called once, last."""
        if self._state:
            self._state.destroy_process_group()
