"""A cache on disk of results that training needs again and again: enhanced images, and matches.

The name of a file is a digest of everything that decides its content: all images, the weights, settings and precision
of the networks, and the source code of the matching. After any change another file is used, so no file is ever stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from def_hub import reference
from def_hub.config import DegradationConfig, ReferenceConfig, RunConfig
from def_hub.data import SPARE, Prepared, Source, degraded_pair, degrading, unrelated
from def_hub.reference.matching import CELL
from def_hub.training.given import given, given_reference
from def_hub.training.prior import enhance, enhance_given
from def_hub.training.reference import ReferenceTask
from def_hub.writing import replacing, sweep

BATCH = 8


def prepare(source: Source, task: ReferenceTask, run: RunConfig) -> Prepared:
    """Enhanced images of all pairs of a source, and with `match_once` their matches, as memory-mapped arrays.

    Where the run file degrades samples, each pair is always degraded as `degraded_pair` does it.
    """
    config, enhancer, size, degradation = task.config, task.enhancer, run.data.size, run.degradation
    assert enhancer is not None  # a task with a prior has an enhancer
    pictures = _pictures(source, config, degradation)

    def batch_of(images: list[int], references: list[int]) -> dict[str, Tensor]:
        batch = {
            "image": torch.stack([source[i].image for i in images]).float() / 255,
            "reference": torch.stack([source[i].reference for i in references]).float() / 255,
        }
        if degradation is not None:
            pairs = [degraded_pair(source, i, degradation) for i in images]
            batch |= {name: torch.stack([pair[name] for pair in pairs]) for name in ("y", "known", "exact")}
            batch["y_reference"] = torch.stack(
                [degraded_pair(source, i, degradation)["y_reference"] for i in references]
            )
            batch |= {name: batch[name].float() / 255 for name in ("y", "y_reference")}
        return batch

    def enhanced(first: int, last: int) -> np.ndarray:
        if degradation is not None:
            batch = batch_of(own := list(range(first, last)), own)
            views = (given(batch, config.known), given_reference(batch, config.known))
            small = enhancer.denoiser.multiple  # not extended to a window: that would cost more than the crop itself
            result = torch.stack([enhance_given(enhancer, of, config.enhancer_steps, small) for of in views], dim=1)
        else:
            images = torch.stack([x for i in range(first, last) for x in (source[i].image, source[i].reference)])
            result = enhance(enhancer, images.float() / 255, config.enhancer_steps)
        return (result * 255).round().byte().view(-1, 2, 3, size, size).numpy()

    shape = (len(source), 2, 3, size, size)
    stored = _stored(Path(config.cache) / f"{pictures}.npy", "uint8", shape, enhanced, f"enhancing {source.name}")
    if not config.match_once:
        return Prepared(stored)

    def matched(images: list[int], references: list[int]) -> np.ndarray:
        batch = batch_of(images, references)
        batch["enhanced"] = torch.from_numpy(stored[images, 0]).float() / 255
        batch["enhanced_reference"] = torch.from_numpy(stored[references, 1]).float() / 255
        return task.match(batch).numpy()

    def with_own(first: int, last: int) -> np.ndarray:
        images = list(range(first, last))
        return matched(images, images)

    def with_unrelated(first: int, last: int) -> np.ndarray:
        images = [SPARE * i for i in range(first, last)]
        return matched(images, [unrelated(i, len(source)) for i in images])

    name, cells = _matching(pictures, task), (7, size // CELL, size // CELL)
    folder, spare = Path(config.cache), -(-len(source) // SPARE)
    true, false = folder / f"{name}-true.npy", folder / f"{name}-false.npy"
    return Prepared(
        stored,
        _stored(true, "float32", (len(source), *cells), with_own, f"matching {source.name}"),
        _stored(false, "float32", (spare, *cells), with_unrelated, f"matching {source.name} with unrelated references"),
    )


def _stored(
    path: Path, kind: str, shape: tuple[int, ...], compute: Callable[[int, int], np.ndarray], label: str
) -> np.ndarray:
    """The array in a file. If there is no such file, it is computed in parts and written first.

    Args:
        kind: NumPy's name of the type.
        compute: returns the entries from the first index to before the second.
        label: for the progress bar.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with replacing(path) as temporary:
            stored = np.lib.format.open_memmap(temporary, mode="w+", dtype=kind, shape=shape)
            for first in tqdm(range(0, shape[0], BATCH), desc=label, mininterval=10):
                last = min(first + BATCH, shape[0])
                stored[first:last] = compute(first, last)
            stored.flush()
    return np.load(path, mmap_mode="c")  # copy on write: torch needs a writable array, and the file never changes


def _pictures(source: Source, config: ReferenceConfig, degradation: DegradationConfig | None) -> str:
    """The digest of the enhanced images."""
    prior = Path(str(config.prior))
    how = b"" if degradation is None else f"{degradation}".encode() + Path(str(degrading.__file__)).read_bytes()
    return _digest(
        f"{config.enhancer_steps} {_precision()}".encode() + how,
        *(path.read_bytes() for path in sorted((*prior.glob("unet/*"), *prior.glob("scheduler/*")))),
        *_bytes(x for i in range(len(source)) for x in (source[i].image, source[i].reference)),
    )


def _matching(pictures: str, task: ReferenceTask) -> str:
    """The digest of the matches. `pictures` is the digest of the enhanced images."""
    code = sorted(Path(str(reference.__file__)).parent.rglob("*.py"))
    return _digest(
        f"{pictures} {task.config.matching_image} {task.config.refined}".encode(),
        *(path.read_bytes() for path in code),
        *_bytes(task.network.state_dict().values()),
    )


def _precision() -> torch.dtype:
    """The precision that networks compute in under the present autocast state."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def _bytes(tensors: Iterable[Tensor]) -> Iterator[bytes]:
    for tensor in tensors:
        yield tensor.detach().cpu().contiguous().numpy().tobytes()


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:24]
