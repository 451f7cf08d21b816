"""Training pairs in the field's folder layouts.

A source is a finite list of fixed pairs, so that what is computed from a pair (its enhanced image, its matches) can be
cached.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from def_hub.config import DataConfig, SourceConfig
from def_hub.hub.datasets import folder_of
from def_hub.images import list_pictures, open_rgb


@dataclass(frozen=True)
class Pair:
    """An image and a reference of it, both uint8 `[3, size, size]`."""

    image: Tensor
    reference: Tensor


class Source(Protocol):
    """A finite list of pairs with a sampling weight each."""

    name: str
    weights: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...

    def picture(self, index: int, rng: np.random.Generator) -> Tensor:
        """A picture for training without references, uint8 `[3, size, size]`: any of those behind pair `index`."""

    def describe(self, index: int) -> str:
        """Which file a pair comes from, for messages."""

    def report(self) -> str:
        """How many pairs of what sizes, and which files cannot be used, for the log."""


@dataclass
class Census:
    """What was found in a folder: `sizes` of the pictures that can be used, and why others cannot."""

    sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def accepts(self, path: Path, size: int) -> bool:
        """Decode a picture wholly, so that a broken one is known before training and not in its third hour."""
        try:
            image = open_rgb(path)
            if min(image.size) < size:
                raise ValueError(f"{path}: {image.width}x{image.height} is smaller than {size}x{size}")
            self.sizes[path] = image.size
        except (OSError, ValueError) as error:
            self.problems.append(str(error))
            return False
        return True

    def __str__(self) -> str:
        text = f"{len(self.sizes)} pictures"
        if self.sizes:
            small, large = (pick(self.sizes.values(), key=lambda s: s[0] * s[1]) for pick in (min, max))
            text += f" of {small[0]}x{small[1]} … {large[0]}x{large[1]} pixels"
        for problem in self.problems[:10]:
            text += f"\n  left out: {problem}"
        if len(self.problems) > 10:
            text += f"\n  left out: {len(self.problems) - 10} more"
        return text


@dataclass(frozen=True)
class Wear:
    """What happens to references before a network sees them: the shares that are shrunk and enlarged again, and that
    are saved as JPEG, as most references were that people have."""

    softened: float = 0.0
    compressed: float = 0.0

    def on(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """With these chances, shrunk by up to 2.8 and enlarged again, and saved as JPEG of quality 30 to 90."""
        if rng.random() < self.softened:
            factor = float(np.exp(rng.uniform(np.log(1.2), np.log(2.8))))
            small = image.resize([round(n / factor) for n in image.size], Image.Resampling.LANCZOS)
            image = small.resize(image.size, Image.Resampling.BICUBIC)
        if self.compressed and rng.random() < self.compressed:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=int(rng.integers(30, 91)))
            image = Image.open(file).convert("RGB")
        return image


UNWORN = Wear()


class PairFolder:
    """CUFED layout: `input/` and `ref/` with equal file names, or `NNN_0` with its references `NNN_1` …, each a pair.

    With a `pairs.tsv` that names groups, large groups are drawn less often (in proportion to the root of their size),
    so that no scene dominates. Groups whose names begin with one of `holdout` are left out, or with `held_out` are all
    there is.

    Pictures that are larger than a crop are cut `crops` times, both of a pair around one relative place."""

    def __init__(
        self,
        path: Path,
        size: int,
        holdout: tuple[str, ...] = (),
        held_out: bool = False,
        crops: int = 1,
        wear: Wear = UNWORN,
    ) -> None:
        self.name = path.name
        self.wear = wear
        self.size = size
        self.census = Census()
        files = [f for f in _paired(path) if all([self.census.accepts(p, size) for p in f])]
        if not files:
            raise ValueError(
                f"no pairs found: expected equal file names in {path}/input and {path}/ref, or NNN_0 with NNN_1 …, "
                f"{self.census}"
            )
        groups = self._groups(path / "pairs.tsv", files)
        wanted = [group.startswith(holdout) == held_out for group in groups]
        self.files = [f for f, keep in zip(files, wanted, strict=True) if keep]
        groups = [g for g, keep in zip(groups, wanted, strict=True) if keep]
        count = Counter(groups)
        crop_count = [1 if self.census.sizes[image] == (size, size) else crops for image, _ in self.files]
        self.crops = [(file, crop) for file, n in enumerate(crop_count) for crop in range(n)]
        self.weights = np.array([count[groups[file]] ** -0.5 / crop_count[file] for file, _ in self.crops])
        self._pairs: dict[int, Pair] = {}

    @staticmethod
    def _groups(table: Path, files: list[tuple[Path, Path]]) -> list[str]:
        if not table.exists():
            return [p.stem for p, _ in files]
        rows = (line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:])
        group = {row[0]: row[1] for row in rows}
        return [group.get(p.stem, p.stem) for p, _ in files]

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Pair:
        if index not in self._pairs:  # decoded once: a thousand pairs take 150 MB
            file, crop = self.crops[index]
            place = np.full(2, 0.5) if crop == 0 else np.random.default_rng((file, crop)).random(2)
            image, reference = (_crop(open_rgb(p), self.size, place) for p in self.files[file])
            reference = self.wear.on(reference, np.random.default_rng((file, crop, 1)))
            self._pairs[index] = Pair(_tensor(image), _tensor(reference))
        return self._pairs[index]

    def picture(self, index: int, rng: np.random.Generator) -> Tensor:
        pair = self[index]
        return pair.image if rng.integers(2) else pair.reference

    def describe(self, index: int) -> str:
        return f"{self.name}/{self.files[self.crops[index][0]][0].name}"

    def report(self) -> str:
        return f"{self.name}: {len(self)} pairs; {self.census}"


class SceneFolder:
    """Folders with several views each: pair `i` shows about the same part of two views, as far as the whole views do:
    crops of a large share of each picture, around one relative place. How much they overlap varies, and is meant to."""

    def __init__(self, path: Path, size: int, crops: int, wear: Wear = UNWORN) -> None:
        self.name = path.name
        self.size = size
        self.crops = crops
        self.wear = wear
        self.census = Census()
        folders = sorted(p for p in path.iterdir() if p.is_dir())
        scenes = [[p for p in _pictures(f) if self.census.accepts(p, size)] for f in folders]
        self.scenes = [views for views in scenes if len(views) > 1]
        if not self.scenes:
            raise ValueError(
                f"no scenes found: expected folders with two or more pictures of one place in {path}, {self.census}"
            )
        self.weights = np.ones(len(self.scenes) * crops)

    def __len__(self) -> int:
        return len(self.scenes) * self.crops

    def __getitem__(self, index: int) -> Pair:
        views, rng = self._views(index)
        share, place = rng.uniform(0.4, 0.9), rng.random(2)
        image, reference = (
            _part(open_rgb(view), share * stretch, place + shift, self.size)
            for view, stretch, shift in zip(views, (1.0, 1.1), (np.zeros(2), rng.uniform(-0.1, 0.1, 2)), strict=True)
        )
        return Pair(_tensor(image), _tensor(self.wear.on(reference, rng)))

    def picture(self, index: int, rng: np.random.Generator) -> Tensor:
        return self[index].image

    def _views(self, index: int) -> tuple[list[Path], np.random.Generator]:
        number, crop = divmod(index, self.crops)
        rng = np.random.default_rng((number, crop))
        views = self.scenes[number]
        return [views[i] for i in rng.choice(len(views), 2, replace=False)], rng

    def describe(self, index: int) -> str:
        image, reference = self._views(index)[0]
        return f"{self.name}/{image.parent.name}/{image.name} with {reference.name}"

    def report(self) -> str:
        return f"{self.name}: {len(self.scenes)} scenes, {len(self)} pairs; {self.census}"


class PhotoFolder:
    """Single photographs: pair `i` is a fixed crop, and a reference made from the same photograph by a shift, rotation,
    change of scale and photometric change."""

    def __init__(self, path: Path, size: int, crops: int, wear: Wear = UNWORN) -> None:
        self.name = path.name
        self.size = size
        self.crops = crops
        self.wear = wear
        self.census = Census()
        self.files = [p for p in _pictures(path) if self.census.accepts(p, size)]
        if not self.files:
            raise ValueError(f"no photographs of at least {size}x{size} pixels in {path}, {self.census}")
        self.weights = np.ones(len(self.files) * crops)
        self._photos: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        return len(self.files) * self.crops

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng(divmod(index, self.crops))
        photo = self._photo(index)
        image, (left, top), span = self._crop(photo, rng)
        reference = self._reference(photo, rng, left + span / 2, top + span / 2, span)
        return Pair(_tensor(image), _tensor(self.wear.on(reference, rng)))

    def picture(self, index: int, rng: np.random.Generator) -> Tensor:
        return _tensor(self._crop(self._photo(index), rng)[0])

    def _photo(self, index: int) -> Image.Image:
        number = index // self.crops
        if number not in self._photos:
            self._photos[number] = open_rgb(self.files[number])
        return self._photos[number]

    def _crop(self, photo: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, tuple[int, int], int]:
        """A random part of a photograph, its top left corner, and how many pixels it spans there."""
        zoom = rng.choice([1.0, 1.0, 0.7, 0.5])  # shrinking makes sharp pixels of a photograph that is not
        span = min(round(self.size / zoom), *photo.size)
        left, top = (int(rng.integers(0, n - span + 1)) for n in photo.size)
        image = photo.crop((left, top, left + span, top + span))
        return image.resize((self.size, self.size), Image.Resampling.LANCZOS), (left, top), span

    def describe(self, index: int) -> str:
        number, crop = divmod(index, self.crops)
        return f"{self.name}/{self.files[number].name} (crop {crop})"

    def report(self) -> str:
        return f"{self.name}: {len(self)} pairs; {self.census}"

    def _reference(self, photo: Image.Image, rng: np.random.Generator, x: float, y: float, span: int) -> Image.Image:
        angle, scale = rng.normal(0, 0.08), np.exp(rng.normal(0, 0.12)) * span / self.size
        x, y = x + rng.uniform(-0.2, 0.2) * span, y + rng.uniform(-0.2, 0.2) * span
        cos, sin, half = scale * np.cos(angle), scale * np.sin(angle), self.size / 2
        matrix = (cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos))
        size = (self.size, self.size)
        if scale > 1.2:  # shrink before sampling, or the reference aliases
            photo = photo.reduce(2)
            matrix = tuple(v / 2 for v in matrix)
        warped = photo.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
        for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            warped = change(warped).enhance(float(np.exp(rng.normal(0, 0.08))))
        return warped


class Thinned:
    """Every n-th pair of a source: for runs in which preparing all of them would take longer than the training."""

    def __init__(self, source: Source, every: int) -> None:
        self.source = source
        self.every = every
        self.name = source.name
        self.weights = source.weights[::every]

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: int) -> Pair:
        return self.source[index * self.every]

    def picture(self, index: int, rng: np.random.Generator) -> Tensor:
        return self.source.picture(index * self.every, rng)

    def describe(self, index: int) -> str:
        return self.source.describe(index * self.every)

    def report(self) -> str:
        return f"{self.source.report()}; {len(self)} of them used"


def open_source(config: SourceConfig, size: int, holdout: tuple[str, ...] = ()) -> Source:
    """The source that a run file describes. Raises ValueError where the folder holds nothing usable."""
    if config.every < 1:
        raise ValueError(f"data.sources.every: expected 1 or more, got {config.every}")
    if config.every > 1:
        return Thinned(open_source(replace(config, every=1), size, holdout), config.every)
    path = folder_of(config.path, "train", config.limit)
    if not path.is_dir():
        raise ValueError(f"training data: there is no folder {path}")
    wear = Wear(config.softened, config.compressed)
    if config.kind == "pairs":
        return PairFolder(path, size, holdout, crops=config.crops, wear=wear)
    if config.kind == "scenes":
        return SceneFolder(path, size, config.crops, wear)
    return PhotoFolder(path, size, config.crops, wear)


def _paired(folder: Path) -> list[tuple[Path, Path]]:
    """Pictures with a reference each, in the layout that the folder has."""
    numbered = {} if (folder / "input").is_dir() else {p.stem: p for p in _pictures(folder)}
    groups = [(p, re.fullmatch(r"(\d+)_[1-9]\d*", stem)) for stem, p in numbered.items()]
    pairs = [(numbered[f"{m[1]}_0"], p) for p, m in groups if m is not None and f"{m[1]}_0" in numbered]
    if pairs:
        return pairs
    references = {p.stem: p for p in _pictures(folder / "ref")}
    return [(p, references[p.stem]) for p in _pictures(folder / "input") if p.stem in references]


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"training data: there is no folder {folder}")
    return list_pictures(folder)


def _crop(image: Image.Image, size: int, place: np.ndarray) -> Image.Image:
    """`size`×`size` pixels at the relative `place` (x, y), 0 … 1 each."""
    left, top = (int(p * (n - size)) for p, n in zip(place, image.size, strict=True))
    return image.crop((left, top, left + size, top + size))


def _part(image: Image.Image, share: float, place: np.ndarray, size: int) -> Image.Image:
    """A square of `share` of the shorter side (but no fewer than `size` pixels), at the relative `place` (x, y)."""
    span = min(max(round(share * min(image.size)), size), *image.size)
    left, top = (round(float(p) * (n - span)) for p, n in zip(place.clip(0, 1), image.size, strict=True))
    return image.crop((left, top, left + span, top + span)).resize((size, size), Image.Resampling.LANCZOS)


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def open_validation(config: DataConfig, count: int) -> list[Pair]:
    """At most `count` pairs, evenly spaced, of the held-out groups; none where nothing is held out."""
    pairs = [
        source[i]
        for c in config.sources
        if c.kind == "pairs" and config.holdout
        for source in [PairFolder(folder_of(c.path, "train", c.limit), config.size, config.holdout, held_out=True)]
        for i in range(len(source))
    ]
    return pairs[:: max(len(pairs) // count, 1)][:count]
