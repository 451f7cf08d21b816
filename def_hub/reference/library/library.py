"""ReferenceLibrary: finds the few photos that help an image among thousands, in seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import file_digest
from pathlib import Path

import torch

from def_hub.images import ImageLike
from def_hub.reference.library.building import PARTS, UNUSABLE, Changes, bring_up_to_date, files_in, problem, within
from def_hub.reference.library.cells import shares, standing
from def_hub.reference.library.choice import Choice, Found, by_turns, choice_of, ranked_until_misses
from def_hub.reference.library.embedding import POOLED, Embedder, make_embedder
from def_hub.reference.library.index import INDEX, Index, located, read_index, write_index
from def_hub.reference.library.nearest import Nearest
from def_hub.reference.library.query import Cleaned, cleaned
from def_hub.reference.network import ReferenceNetwork
from def_hub.reference.selection import Ranker, embedded_network

SIMILAR = 100
"""How many of the most similar photos are compared cell by cell."""
RANKED = 30
"""How many photos are opened and glanced at, and ranked at most."""
EVERY = 30
"""The sharpest of this many frames of a video is taken."""


@dataclass(frozen=True)
class LibraryInfo:
    """What a library holds: numbers of photos, videos, and frames of them. bytes: of the library itself, without the
    photos. missing, changed: names of files."""

    path: Path
    root: Path
    embedder: str
    photos: int
    videos: int
    frames: int
    bytes: int
    missing: tuple[str, ...] = field(default=(), repr=False)
    changed: tuple[str, ...] = field(default=(), repr=False)


class ReferenceLibrary:
    """A library on disk: a folder with an index of photos that stay where they are.

    Args:
        path: of the library, as `build` or `def-hub library build` wrote it.
        root: folder of the photos, if they were moved.
        backbone: the model that made the library, if it is neither the embedded one nor DINOv2. It must be named here,
            because the library may come from somebody else.

    Raises:
        FileNotFoundError: if there is no library.
        ValueError: for a newer format, a damaged library, and one that names files outside its root.
    """

    def __init__(self, path: str | Path, root: str | Path | None = None, backbone: str | None = None) -> None:
        self.path = Path(path)
        self.index: Index = read_index(self.path)
        self.root = Path(os.path.normpath(self.path.absolute() / self.index.root)) if root is None else Path(root)
        self._backbone = backbone
        self._embedder: Embedder | None = None
        self._nearest: Nearest | None = None
        self._verified: set[tuple[Path, str, int, int]] = set()  # files whose content was compared, with size and time

    @classmethod
    def build(
        cls,
        folders: str | Path | Sequence[str | Path],
        path: str | Path,
        *,
        backbone: str | None = None,
        every: int = EVERY,
    ) -> tuple[ReferenceLibrary, Changes]:
        """Make a library of the photos and videos in folders and their subfolders.

        The same call continues an interrupted build. Photos that the library holds already are not read again.
        Processes that `torchrun` started share the work.

        Args:
            path: a new folder, by custom with the suffix `.def`; or a library, which then holds these folders.
            backbone: any vision model of `transformers`; by default the embedded extractor, which needs no network.
            every: the sharpest of this many frames of a video is taken.

        Raises:
            FileNotFoundError: for a folder that does not exist.
            ValueError: if `path` exists and is no library, or if there are no photos.
        """
        given = [folders] if isinstance(folders, str | Path) else list(folders)
        path, folders = Path(path), _checked_folders(given)
        if path.exists() and not _may_hold_library(path):
            raise ValueError(f"{path}: is there already, and is no library; choose another name")
        root = Path(os.path.commonpath([folder if folder.is_dir() else folder.parent for folder in folders]))
        embedder = make_embedder(backbone or POOLED, backbone)
        names = tuple(folder.relative_to(root).as_posix() for folder in folders)
        wanted = files_in(root, names)
        if not wanted:
            raise ValueError(f"no pictures in {', '.join(map(str, given))}")
        index = read_index(path) if (path / INDEX).exists() else Index(embedder.name, embedder.fingerprint, "")
        index = replace(index, root=_relative(root, path), folders=names, left_out=())
        path.mkdir(parents=True, exist_ok=True)
        _, changes = bring_up_to_date(path, index, wanted, root, embedder, every)
        return cls(path, backbone=backbone), changes

    def add(self, folders: str | Path | Sequence[str | Path], every: int = EVERY) -> Changes:
        """Take in more photos, videos, or folders of them. Raises FileNotFoundError for what does not exist, and
        ValueError for what is not in the library's root."""
        given = _checked_folders([folders] if isinstance(folders, str | Path) else list(folders))
        names = [self._name(folder) for folder in given]
        present = list(dict.fromkeys(entry.path for entry in self.index.entries))
        kept = tuple(p for p in self.index.left_out if not any(within(p, name) for name in names))
        index = replace(self.index, folders=tuple(dict.fromkeys((*self.index.folders, *names))), left_out=kept)
        return self._bring(index, list(dict.fromkeys([*present, *files_in(self.root, names)])), every)

    def remove(self, paths: str | Path | Sequence[str | Path]) -> Changes:
        """Take photos, videos, or folders of them out of the library; the files stay. `update` does not take them back.
        Raises ValueError for what the library does not hold, and for a library that must be updated first."""
        self._checked_embedder()
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        names = [self._name(Path(path)) for path in given]
        for name in names:
            if not any(within(entry.path, name) for entry in self.index.entries):
                raise ValueError(f"{name}: is not in the library {self.path}")
        stays = [n for n, e in enumerate(self.index.entries) if not any(within(e.path, name) for name in names)]
        removed = len(self.index.entries) - len(stays)
        index = replace(
            self.index,
            folders=tuple(folder for folder in self.index.folders if folder not in names),
            left_out=tuple(dict.fromkeys((*self.index.left_out, *names))),
            entries=tuple(self.index.entries[n] for n in stays),
            descriptors=self.index.descriptors.take(stays),
        )
        write_index(self.path, index)
        self._reopen()
        return Changes(gone=removed)

    def update(self, every: int = EVERY) -> Changes:
        """Bring the library up to date with its folders. New photos are taken in, changed ones are read again, and
        those that are gone are dropped. A photo that only moved is recognised by its content and not read again. If
        the embedder's weights are no longer those that made the library, all photos are read again. A `root` that
        the constructor was given is written to the library."""
        there = [folder for folder in self.index.folders if (self.root / folder).exists()]
        single = [p for p in dict.fromkeys(e.path for e in self.index.entries) if (self.root / p).exists()]
        wanted = dict.fromkeys([*files_in(self.root, there, self.index.left_out), *single])
        return self._bring(replace(self.index, root=_relative(self.root, self.path)), list(wanted), every)

    def info(self) -> LibraryInfo:
        """What the library holds, which of its files are missing, and which have another size or time than they had."""
        files = {entry.path: entry for entry in self.index.entries}
        missing, changed = [], []
        for name, entry in files.items():
            try:
                status = located(self.root, name).stat()
                if (status.st_size, status.st_mtime_ns) != (entry.size, entry.modified):
                    changed.append(name)
            except (OSError, ValueError):
                missing.append(name)
        frames = [entry for entry in self.index.entries if entry.frame is not None]
        videos = len({entry.path for entry in frames})
        size = sum(path.stat().st_size for path in self.path.iterdir() if path.is_file())
        held = (len(files) - videos, videos, len(frames), size)
        return LibraryInfo(
            self.path, self.root, self.index.embedder, *held, missing=tuple(missing), changed=tuple(changed)
        )

    # ------------------------------------------------------------------------------------------- search

    def search(self, image: ImageLike, count: int = RANKED, network: ReferenceNetwork | None = None) -> list[Found]:
        """The photos that are most likely to show what the image shows, best first. No file is opened.

        Global descriptors find the most similar photos; local descriptors order the first `SIMILAR` of them.

        Args:
            image: the LR image.
            network: cleans the image up; by default the embedded one.

        Raises:
            ModuleNotFoundError: without faiss.
            ValueError: for a library that must be updated first.
            ValueError, TypeError, FileNotFoundError: as `images.to_tensor`.
        """
        return self._similar(cleaned(image, network or embedded_network()), count)

    def choose(
        self,
        image: ImageLike,
        most: int = 3,
        network: ReferenceNetwork | None = None,
        degradation: str = "auto",
    ) -> Choice:
        """The photos that help an image: `search`, a glance at the first `RANKED`, and then the score of
        `rank_references` for the best of these, until `MISSES` in a row would not help. The best `most` of those that
        may help are chosen.

        Photos are looked for as they stand: the search would not find a photo that is turned or mirrored.

        Args:
            image: the LR image.
            network: cleans the image up and ranks; by default the embedded one.
            degradation: of the image, see `observed`.

        Raises as `search`, and ValueError if `most` is less than 1.
        """
        if most < 1:
            raise ValueError(f"max_references must be at least 1, got {most}")
        network = network or embedded_network()
        query = cleaned(image, network, degradation)
        similar, problems = self._usable(self._similar(query, RANKED))
        ranker = Ranker(query.small, network.feature_extractor, upright=True)
        similar, unread = by_turns(similar, ranker, self.root)
        ranked, failed = ranked_until_misses(similar, ranker, self.root)
        return choice_of(ranked, most, [*problems, *unread, *failed])

    def _usable(self, similar: Sequence[Found]) -> tuple[list[Found], list[str]]:
        """The photos that are there and have not changed, and one line for each other one."""
        usable, problems = [], []
        for found in similar:
            try:
                self._check(found)
                usable.append(found)
            except UNUSABLE as error:
                problems.append(problem(found.name, self.root, error))
        return usable, problems

    def _similar(self, image: Cleaned, count: int) -> list[Found]:
        embedder, index = self._checked_embedder(), self.index
        if self._nearest is None:
            self._nearest = Nearest(index.descriptors.regions)
        nearest = self._nearest(embedder.query(image.small, image.large), max(count, SIMILAR))
        found = [Found(index.entries[n], self.root / index.entries[n].path, similarity) for n, similarity in nearest]
        first, rest = found[:SIMILAR], found[SIMILAR:]
        if first:
            compared = index.descriptors.take([number for number, _ in nearest[:SIMILAR]])
            agreement = standing(shares(image.large, compared)).amax(1)  # the size at which the photo shows the place
            evidence = agreement + standing(torch.tensor([similarity for _, similarity in nearest[:SIMILAR]]))
            first = [replace(one, evidence=value) for one, value in zip(first, evidence.tolist(), strict=True)]
        return [*sorted(first, key=lambda one: -one.evidence), *rest][:count]

    def _checked_embedder(self) -> Embedder:
        """The embedder. Raises ValueError if its weights are not those that made the library: the wrong photos would
        be found, without a word."""
        embedder = self._own_embedder()
        if self.index.fingerprint != embedder.fingerprint:
            raise ValueError(
                f"{self.path}: was made with other weights of {embedder.name} than are here now; "
                f"`def-hub library update {self.path}` reads its photos again"
            )
        return embedder

    def _own_embedder(self) -> Embedder:
        if self._embedder is None:
            self._embedder = make_embedder(self.index.embedder, self._backbone)
        return self._embedder

    def _check(self, found: Found) -> None:
        """Raise ValueError or OSError if the file is missing or has changed."""
        path = located(self.root, found.entry.path)
        if not path.is_file():
            raise FileNotFoundError(f"{found.name}: is missing; `def-hub library update` looks for it")
        status = path.stat()
        seen = path, found.entry.digest, status.st_size, status.st_mtime_ns
        if seen in self._verified:
            return
        with path.open("rb") as opened:
            if file_digest(opened, "sha256").hexdigest() != found.entry.digest:
                raise ValueError(f"{found.name}: has changed; `def-hub library update` reads it again")
        self._verified.add(seen)

    # ------------------------------------------------------------------------------------------- helpers

    def _bring(self, index: Index, wanted: Sequence[str], every: int) -> Changes:
        _, changes = bring_up_to_date(self.path, index, wanted, self.root, self._own_embedder(), every)
        self._reopen()
        return changes

    def _reopen(self) -> None:
        self.index, self._nearest = read_index(self.path), None

    def _name(self, path: Path) -> str:
        """A path relative to the root. If it does not exist, it is taken to be relative to the root already."""
        full = Path(os.path.normpath(path.absolute() if path.exists() else self.root / path))
        root = Path(os.path.normpath(self.root.absolute()))
        if not full.is_relative_to(root):
            raise ValueError(f"{path}: is not in the library's root {self.root}; build a library of both")
        return full.relative_to(root).as_posix()


def _checked_folders(folders: Sequence[str | Path]) -> list[Path]:
    found = [Path(os.path.normpath(Path(folder).absolute())) for folder in folders]
    for folder in found:
        if not folder.exists():
            raise FileNotFoundError(f"{folder}: no such file or folder")
    return found


def _may_hold_library(path: Path) -> bool:
    """Whether a folder holds nothing but a library, or what an interrupted build leaves."""
    if not path.is_dir():
        return False
    return all(p.name in (INDEX, PARTS) or p.name.startswith((".", "vectors-")) for p in path.iterdir())


def _relative(root: Path, path: Path) -> str:
    """The root relative to the library, so that both may be moved together."""
    try:
        return Path(os.path.relpath(root.absolute(), path.absolute())).as_posix()
    except ValueError:  # on another drive
        return root.absolute().as_posix()
