"""ReferenceLibrary: finds the few photos that help an image among thousands, in seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch

from def_hub import video
from def_hub.images import ImageLike
from def_hub.reference.library.building import PARTS, UNUSABLE, Changes, bring_up_to_date, files_in, problem, within
from def_hub.reference.library.cells import shares, standing
from def_hub.reference.library.embedding import POOLED, Embedder, make_embedder
from def_hub.reference.library.index import INDEX, Entry, Index, located, read_index, write_index
from def_hub.reference.library.nearest import Nearest
from def_hub.reference.library.query import Cleaned, cleaned
from def_hub.reference.network import ReferenceNetwork
from def_hub.reference.selection import LIKELY, RankedReference, embedded_network, rank_references

SIMILAR = 100
"""How many of the most similar photos are compared cell by cell."""
RANKED = 30
"""How many photos are opened and ranked at most."""
MISSES, FEWEST = 5, 2
"""After `MISSES` photos in a row that are not likely to help, no more are ranked: one less for each that is, but
`FEWEST` at least. A photo of something else takes the most time to rank."""
HELPFUL = 0.05
"""Score from which a photo may be chosen. It is less than `selection.UNLIKELY`, because the search has already found
the photo (`examples/library_recall.txt`)."""
EVERY = 30
"""The sharpest of this many frames of a video is taken."""


@dataclass(frozen=True)
class Found:
    """A photo of a library, and what speaks for it.

    path: of the file.
    similarity: of the global descriptors, -1 … 1.
    evidence: how far similarity and agreement of the cells stand out among the similar photos, added; see
        `cells.standing`. 0 for photos whose cells were not compared.
    ranked: by `rank_references`; None after `ReferenceLibrary.search`.
    why: why it was chosen, or was not; empty after `search`.
    """

    entry: Entry
    path: Path
    similarity: float
    evidence: float = 0.0
    ranked: RankedReference | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """Relative to the library's root; with "#" and a time stamp for a frame of a video."""
        return self.entry.name

    @property
    def score(self) -> float:
        """Share of the image that it can serve, 0 … 1; 0 after `search`."""
        return 0.0 if self.ranked is None else self.ranked.score

    def picture(self) -> ImageLike:
        """The photo's path, or the frame `[1, 3, H, W]`. Raises ValueError for a video that has changed."""
        frame = self.entry.frame
        return self.path if frame is None else video.frame_at(self.path, frame)


@dataclass(frozen=True)
class Choice:
    """What a library offers for an image.

    chosen: best first, perhaps none. others: ranked but not chosen, best first, each with the reason. problems: one
    line for each similar photo that is missing, has changed or can no longer be read.
    """

    chosen: tuple[Found, ...] = ()
    others: tuple[Found, ...] = ()
    problems: tuple[str, ...] = ()

    def pictures(self) -> list[ImageLike]:
        """The chosen photos, as references for `DEFPipeline`."""
        return [found.picture() for found in self.chosen]

    def record(self) -> dict[str, Any]:
        """Ready for JSON: name, score, similarity and reason of all that were ranked, and the problems."""
        kinds = {"chosen": self.chosen, "others": self.others}
        listed = {
            kind: [
                {"name": f.name, "score": round(f.score, 4), "similarity": round(f.similarity, 4), "why": f.why}
                for f in some
            ]
            for kind, some in kinds.items()
        }
        return {**listed, "problems": list(self.problems)}

    def lines(self, others: int = 3) -> list[str]:
        """For people: the chosen photos, the next ones with the reason why they were not chosen, and the problems."""
        listed = [*self.chosen, *self.others[:others]]
        return [f"{f.score:.3f}  {f.name}: {f.why}" for f in listed] + list(self.problems)


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
        """The photos that help an image: `search`, then `rank_references` on the first `RANKED`, or fewer, see
        `MISSES`. The best `most` of those that may help are chosen.

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
        ranked, problems, misses, likely = [], [], 0, 0
        for found in self._similar(query, RANKED):
            try:
                self._check(found)
                score = rank_references(query.small, [found.picture()], network.feature_extractor)[0]
            except UNUSABLE as error:
                problems.append(problem(found.name, self.root, error))
                continue
            ranked.append(replace(found, ranked=score))
            misses = 0 if score.score >= LIKELY else misses + 1
            likely += score.score >= LIKELY
            if misses >= max(FEWEST, MISSES - likely):
                break
        ranked.sort(key=lambda found: -found.score)
        helpful = [found for found in ranked if found.score >= HELPFUL]
        chosen = tuple(replace(found, why=_served(found)) for found in helpful[:most])
        others = tuple(replace(found, why=_why_not(found, chosen)) for found in ranked if found not in helpful[:most])
        return Choice(chosen, others, tuple(problems))

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


def _served(found: Found) -> str:
    verdict = "likely to help" if found.score >= LIKELY else "may help"
    return f"serves {100 * found.score:.0f} % of the image, {verdict}"


def _why_not(found: Found, chosen: Sequence[Found]) -> str:
    if found.score < HELPFUL:
        return f"shows too little of the image to help (under {HELPFUL:g})"
    return f"serves {100 * found.score:.0f} % of the image, less than the {len(chosen)} chosen"
