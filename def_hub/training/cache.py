"""What is computed once of a training set, and kept on disk: enhanced images, and matches.

The name of a file is a digest of everything that decides its content: the weights, settings and precision of what
computed it, the code that matches, and every picture. Whatever changes, another file is made; a stale one cannot be
taken.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from def_hub import reference
from def_hub.config import ReferenceConfig
from def_hub.data import SPARE, Prepared, Source, unrelated
from def_hub.reference.matching import CELL
from def_hub.training.tasks import ReferenceTask, enhance

BATCH = 8


def prepare(source: Source, task: ReferenceTask, size: int) -> Prepared:
    """Enhanced images of all pairs of a source, and their matches where the run file says so, memory-mapped."""
    config, enhancer = task.config, task.enhancer
    assert enhancer is not None  # a task with a prior has one
    pictures = _pictures(source, config)

    def enhanced(first: int, last: int) -> np.ndarray:
        images = torch.stack([x for i in range(first, last) for x in (source[i].image, source[i].reference)])
        result = enhance(enhancer, images.float() / 255, config.enhancer_steps)
        return (result * 255).round().byte().view(-1, 2, 3, size, size).numpy()

    shape = (len(source), 2, 3, size, size)
    stored = _stored(Path(config.cache) / f"{pictures}.npy", "uint8", shape, enhanced, f"enhancing {source.name}")
    if not config.match_once:
        return Prepared(stored)

    def matched(own: list[int], lenders: list[int]) -> np.ndarray:
        batch = {
            "image": torch.stack([source[i].image for i in own]),
            "reference": torch.stack([source[i].reference for i in lenders]),
            "enhanced": torch.from_numpy(stored[own, 0]),
            "enhanced_reference": torch.from_numpy(stored[lenders, 1]),
        }
        return task.match({name: x.float() / 255 for name, x in batch.items()}).numpy()

    def true(first: int, last: int) -> np.ndarray:
        return matched(own := list(range(first, last)), own)

    def false(first: int, last: int) -> np.ndarray:
        own = [SPARE * i for i in range(first, last)]
        return matched(own, [unrelated(i, len(source)) for i in own])

    name, cells = _matching(pictures, task), (7, size // CELL, size // CELL)
    return Prepared(
        stored,
        *(
            _stored(Path(config.cache) / f"{name}-{kind}.npy", "float32", (count, *cells), compute, what)
            for kind, count, compute, what in (
                ("true", len(source), true, f"matching {source.name}"),
                ("false", -(-len(source) // SPARE), false, f"mismatching {source.name}"),
            )
        ),
    )


def _stored(
    path: Path, kind: str, shape: tuple[int, ...], compute: Callable[[int, int], np.ndarray], what: str
) -> np.ndarray:
    """The file, computed part by part where it is not there yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        stored = np.lib.format.open_memmap(temporary, mode="w+", dtype=kind, shape=shape)
        for first in tqdm(range(0, shape[0], BATCH), desc=what, mininterval=10):
            last = min(first + BATCH, shape[0])
            stored[first:last] = compute(first, last)
        stored.flush()
        os.replace(temporary, path)
    return np.load(path, mmap_mode="c")  # torch wants to be able to write, the file stays as it is


def _pictures(source: Source, config: ReferenceConfig) -> str:
    prior = Path(str(config.prior))
    return _digest(
        f"{config.enhancer_steps} {_precision()}".encode(),
        *(path.read_bytes() for path in sorted((*prior.glob("unet/*"), *prior.glob("scheduler/*")))),
        *_bytes(x for i in range(len(source)) for x in (source[i].image, source[i].reference)),
    )


def _matching(pictures: str, task: ReferenceTask) -> str:
    code = sorted(Path(str(reference.__file__)).parent.rglob("*.py"))
    return _digest(
        f"{pictures} {task.config.matching_image} {task.config.refined}".encode(),
        *(path.read_bytes() for path in code),
        *_bytes(task.network.state_dict().values()),
    )


def _precision() -> torch.dtype:
    """What networks compute in here."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def _bytes(tensors: Iterable[Tensor]) -> Iterator[bytes]:
    for tensor in tensors:
        yield tensor.detach().cpu().contiguous().numpy().tobytes()


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:24]
