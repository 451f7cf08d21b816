"""Enhanced images of a training set, computed once and kept on disk.

The name of a cache is a digest of everything that decides its content: the prior's weights and schedule, the number
of steps, and every picture. Whatever changes, another cache is made; a stale one cannot be taken.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from def_hub.config import ReferenceConfig
from def_hub.data import Source
from def_hub.training.tasks import enhance, load_enhancer


def enhanced_images(source: Source, config: ReferenceConfig, size: int) -> np.ndarray:
    """uint8 `[len(source), 2, 3, size, size]`: the enhanced image and the enhanced reference of every pair,
    memory-mapped.
    """
    assert config.prior is not None
    path = Path(config.cache) / f"{_digest(source, config)}.npy"
    shape = (len(source), 2, 3, size, size)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        stored = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        enhancer = load_enhancer(config.prior)
        for start in tqdm(range(0, len(source), 8), desc=f"enhancing {source.name}", mininterval=10):
            pairs = [source[i] for i in range(start, min(start + 8, len(source)))]
            images = torch.stack([x for p in pairs for x in (p.image, p.reference)]).float() / 255
            result = (enhance(enhancer, images, config.enhancer_steps) * 255).round().byte()
            stored[start : start + len(pairs)] = result.view(-1, 2, 3, size, size).numpy()
        stored.flush()
        os.replace(temporary, path)
    return np.load(path, mmap_mode="r")


def _digest(source: Source, config: ReferenceConfig) -> str:
    digest = hashlib.sha256(f"{config.enhancer_steps}".encode())
    prior = Path(str(config.prior))
    for path in sorted((*prior.glob("unet/*"), *prior.glob("scheduler/*"))):
        digest.update(path.read_bytes())
    for i in range(len(source)):
        digest.update(source[i].image.numpy().tobytes())
        digest.update(source[i].reference.numpy().tobytes())
    return digest.hexdigest()[:24]
