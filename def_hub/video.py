"""Frames of videos as pictures. The only place that imports PyAV, which is optional: def-hub[library]."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from def_hub.formats import check_size

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
GLANCE = 160
"""Pixels: width of the copy whose sharpness is measured."""


def is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def sharp_frames(path: Path, every: int) -> Iterator[tuple[int, Tensor]]:
    """The sharpest frame of every `every` frames of a video: its time stamp and its picture `[1, 3, H, W]` in [0, 1].

    A camera that moves blurs most frames; the sharpest of a second is as good as a photograph.

    Raises:
        ModuleNotFoundError: without PyAV.
        ValueError: for a file that is no video, or frames that are too small or too large.
    """
    with _Opened(path) as video:
        best: Any = None
        sharpest = -1.0
        for number, frame in enumerate(video.frames()):
            if frame.pts is not None and (sharpness := _sharpness(frame)) > sharpest:
                best, sharpest = frame, sharpness
            if (number + 1) % every == 0 and best is not None:
                yield int(best.pts), video.picture(best)
                best, sharpest = None, -1.0
        if best is not None:
            yield int(best.pts), video.picture(best)


def frame_at(path: Path, stamp: int) -> Tensor:
    """The frame `[1, 3, H, W]` with a time stamp that `sharp_frames` gave. Raises as that, and ValueError where the
    video has no such frame."""
    with _Opened(path) as video:
        video.seek(stamp)
        for frame in video.frames():
            if frame.pts == stamp:
                return video.picture(frame)
            if frame.pts is not None and frame.pts > stamp:
                break
    raise ValueError(f"{path}: has no frame with the time stamp {stamp}")


class _Opened:
    """A video whose first stream of pictures is decoded."""

    def __init__(self, path: Path) -> None:
        if find_spec("av") is None:
            raise ModuleNotFoundError(f"{path}: videos need PyAV: pip install 'def-hub[library]'")
        self.path = path

    def __enter__(self) -> _Opened:
        import av

        try:
            self.container = av.open(str(self.path))
        except av.FFmpegError as error:
            raise ValueError(f"{self.path}: not a readable video ({error.strerror})") from error
        if not self.container.streams.video:
            self.container.close()
            raise ValueError(f"{self.path}: has no pictures")
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def seek(self, stamp: int) -> None:
        """To the last whole picture at or before a time stamp."""
        self.container.seek(stamp, stream=self.container.streams.video[0])

    def frames(self) -> Iterator[Any]:
        import av

        try:
            yield from self.container.decode(video=0)
        except av.FFmpegError as error:
            raise ValueError(f"{self.path}: damaged ({error.strerror})") from error

    def picture(self, frame: Any) -> Tensor:
        check_size(frame.width, frame.height, str(self.path))
        pixels = frame.to_ndarray(format="rgb24")
        quarters = round(getattr(frame, "rotation", 0) / 90) % 4  # phones store how they were held
        return torch.from_numpy(np.rot90(pixels, quarters) / np.float32(255)).permute(2, 0, 1)[None].contiguous()


def _sharpness(frame: Any) -> float:
    """Variance of the Laplacian of a small grey copy."""
    height = max(3, round(frame.height * GLANCE / frame.width))
    grey = frame.reformat(width=GLANCE, height=height, format="gray").to_ndarray().astype(np.float32)
    centre = grey[1:-1, 1:-1]
    return float((4 * centre - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]).var())
