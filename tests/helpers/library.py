"""Photos and videos for tests of a library of references."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub import images


def scene(number: int, height: int = 120, width: int = 160) -> Tensor:
    """A picture `[1, 3, height, width]` with edges and texture, another one for each number."""
    random = torch.Generator().manual_seed(number)
    coarse = torch.rand(1, 3, 5, 6, generator=random)
    picture = F.interpolate(coarse, (height, width), mode="nearest")
    for _ in range(40):
        y, x = (int(torch.randint(n - 8, (), generator=random)) for n in (height, width))
        tall, wide = (int(torch.randint(4, 30, (), generator=random)) for _ in range(2))
        picture[..., y : y + tall, x : x + wide] = torch.rand(1, 3, 1, 1, generator=random)
    return (0.9 * picture + 0.1 * torch.rand(picture.shape, generator=random)).clamp(0, 1)


def photos(folder: Path, numbers: range) -> list[Path]:
    """A folder with a PNG of each scene."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        images.save_image(scene(number), path, compression=1)
    return paths


def thumbnail(number: int) -> Tensor:
    """The middle of a scene, four times smaller: `[1, 3, 24, 32]`."""
    return images.shrink(scene(number)[..., 12:108, 16:144])


def scores(monkeypatch: pytest.MonkeyPatch, by_name: dict[str, float]) -> None:
    """Let the second stage give these scores, and 0 to all others, in the order of the first: the order of what follows
    is then known."""

    def score(ranker: Any, candidate: Any) -> float:
        return by_name.get(Path(str(candidate)).name, 0.0)

    monkeypatch.setattr("def_hub.reference.selection.Ranker.score", score)
    monkeypatch.setattr("def_hub.reference.selection.Ranker.glance", lambda ranker, candidate: 0.0)


def write_video(path: Path, count: int, sharp: set[int]) -> None:
    """A video of `count` frames of a moving scene, all but some of which are blurred."""
    import av

    wide = scene(7, 96, 160 + count)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 96, "yuv420p", 4_000_000
        for number in range(count):
            picture = wide[..., number : number + 160]
            if number not in sharp:
                picture = F.avg_pool2d(F.pad(picture, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
            pixels = (picture[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
