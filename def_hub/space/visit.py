"""What one visitor has given and chosen so far, and what follows from it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from def_hub import images, visualization
from def_hub.estimate import Estimate, estimate, gigabytes, total_memory
from def_hub.reference.selection import RankedReference
from def_hub.space.outcome import TEMPORARY, Outcome
from def_hub.space.run import Call, Settings
from def_hub.space.uploads import MAX_REFERENCES, SHOWN, SMALLER, Upload, check_truth
from def_hub.space.viewer import card

Rank = Callable[[Path, Sequence[Path]], list[RankedReference]]

THUMBNAIL, CANVAS = 240, 640  # pixels, longest side: in the gallery, and to draw on
QUIET = (150, 150, 150)
PHOTOGRAPH = "photograph"
VERDICTS = {"likely": "likely to help", "possible": "may help", "unlikely": "unlikely to help"}


@dataclass
class Visit:
    """State of one visitor.

    ranked: best first; empty while there is nothing to rank for. chosen: indices of uploads, best first.
    drawings: PNG over the photograph (key None) and over uploads (key: index): which part.
    truth: the sharp original of the photograph, as a PNG of `folder`, where the visitor has one.
    cancelled: when Cancel was last pressed, by the clock of the visitor's browser.
    folder: thumbnails, previews and the original; deleted with the visit.
    """

    photo: Upload | None = None
    uploads: list[Upload] = field(default_factory=list)
    ranked: list[RankedReference] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    drawings: dict[int | None, bytes] = field(default_factory=dict)
    truth: Path | None = None
    outcome: Outcome | None = None
    cancelled: float = 0.0
    folder: TemporaryDirectory | None = None

    @property
    def root(self) -> Path:
        if self.folder is None:
            self.folder = TemporaryDirectory(prefix=TEMPORARY, ignore_cleanup_errors=True)
        return Path(self.folder.name)

    def own(self) -> Visit:
        """A copy for one visitor: what he does to it, the others do not see."""
        mine = replace(self, uploads=[*self.uploads], ranked=[*self.ranked], chosen=[*self.chosen])
        mine.drawings, mine.cancelled, mine.folder = dict(self.drawings), 0.0, None
        return mine

    @property
    def inputs(self) -> tuple[Upload | None, list[Upload], list[bytes | None]]:
        """What a run would be given, but for settings: the photograph, the references, and what was drawn."""
        uploads = [self.uploads[i] for i in self.chosen]
        return self.photo, uploads, [self.drawings.get(key) for key in (None, *self.chosen)]

    @property
    def names(self) -> dict[str, Any]:
        """What the visitor calls the files of a run, and how well each reference matched, 0 … 1."""
        scores = {r.index: round(r.score, 4) for r in self.ranked}
        references = [{"name": self.uploads[i].path.name, "match": scores.get(i)} for i in self.chosen]
        return {"input": self.photo and self.photo.path.name, "references": references}

    @property
    def outdated(self) -> str:
        """What of the outcome is not what is given now, in a word or two; empty where it is."""
        if self.outcome is None or self.outcome.inputs == self.inputs:
            return ""
        return PHOTOGRAPH if self.outcome.inputs[0] != self.photo else "choice of references"

    def called_off(self, pressed: float) -> bool:
        """Whether a run is no longer wanted. pressed: when it was asked for, by the same clock."""
        return self.cancelled >= pressed

    def set_photo(self, photo: Upload | None) -> None:
        """Another photograph; the original of the last one, and what was drawn over it, go."""
        self.photo, self.ranked, self.chosen, self.truth = photo, [], [], None
        self.drawings.pop(None, None)

    def set_truth(self, path: str | Path | None) -> None:
        """The original to compare results with. Raises `ValueError` where it cannot be that."""
        self.truth = None
        if path is None:
            return
        if self.photo is None:
            raise ValueError("Upload the small photograph first, then its original.")
        truth = check_truth(path, self.photo)
        picture = self.root / "original.png"
        images.save_image(images.to_tensor(truth.path, "original"), picture, compression=1)
        self.truth = picture

    def set_uploads(self, uploads: list[Upload]) -> None:
        """Other candidates; what was drawn over those that are candidates no more goes."""
        drawn = {None if key is None else self.uploads[key].path: d for key, d in self.drawings.items()}
        self.uploads, self.ranked, self.chosen = uploads, [], list(range(len(uploads)))[:MAX_REFERENCES]
        keys = {None: None} | {upload.path: index for index, upload in enumerate(uploads)}
        self.drawings = {keys[path]: drawing for path, drawing in drawn.items() if path in keys}

    def rank(self, rank: Rank) -> None:
        """Score the candidates and choose those that are likely to help, or else the best, if it may."""
        if self.photo is None or not self.uploads:
            return
        self.ranked = rank(self.photo.path, [upload.path for upload in self.uploads])
        likely = [r.index for r in self.ranked if r.verdict == "likely"]
        possible = [r.index for r in self.ranked if r.verdict == "possible"]
        self.chosen = (likely or possible[:1])[:MAX_REFERENCES]

    def toggle(self, position: int) -> None:
        """Choose or leave out the candidate at a position of the gallery. Raises `ValueError` for one too many."""
        if not 0 <= position < len(self.uploads):
            return  # the gallery that was clicked is gone
        index = self._order[position]
        if index in self.chosen:
            self.chosen.remove(index)
        elif len(self.chosen) == MAX_REFERENCES:
            raise ValueError(f"At most {MAX_REFERENCES} references in one run; leave one out first.")
        else:
            self.chosen = [i for i in self._order if i in self.chosen or i == index]

    @property
    def _order(self) -> list[int]:
        return [r.index for r in self.ranked] or list(range(len(self.uploads)))

    def gallery(self) -> list[dict[str, Any]]:
        """Cards of the candidates, best first; the frame of a chosen one has its colour in the drawings."""
        scores = {r.index: r for r in self.ranked}
        cards = []
        for rank, index in enumerate(self._order, start=1):
            number = self.chosen.index(index) if index in self.chosen else None
            name = self.uploads[index].path.name
            lines = [name]
            if index in scores:
                lines += [f"#{rank} · {100 * scores[index].score:.0f} % match", VERDICTS[scores[index].verdict]]
            lines.append("not used" if number is None else f"✓ reference {number + 1}")
            if number is not None and index in self.drawings:
                lines.append("only the part drawn")
            colour = QUIET if number is None else visualization.reference_colour(number)
            picture = self.thumbnail(self.uploads[index])
            cards.append(card(picture, lines, alt=name, pressed=number is not None, colour=colour))
        return cards

    def thumbnail(self, upload: Upload) -> Path:
        """A candidate for the gallery. Raises `ValueError` where it cannot be decoded."""
        return self._cached(upload, THUMBNAIL)

    def preview(self, index: int | None) -> Path:
        """The photograph (None) or an upload, upright, to draw on."""
        upload = self.photo if index is None else self.uploads[index]
        assert upload is not None
        return self._cached(upload, CANVAS)

    def shown(self) -> Path | None:
        """The photograph as a PNG where browsers cannot show the file itself."""
        if self.photo is None or self.photo.format in SHOWN:
            return None
        return self.preview(None)

    def draw(self, index: int | None, data_url: str | None) -> None:
        """Keep a drawing over the photograph or an upload. Raises `ValueError` for anything but a PNG data URL."""
        if data_url is None:
            self.drawings.pop(index, None)
            return
        head, _, body = data_url.partition(",")
        if head != "data:image/png;base64" or len(body) > 4_000_000:
            raise ValueError("The drawing could not be read; wipe it and draw again.")
        self.drawings[index] = base64.b64decode(body, validate=True)

    def cost(self, settings: Settings) -> Estimate:
        """Time and memory of a run with these settings."""
        assert self.photo is not None
        return estimate(self.photo.size, self._used(settings), settings.preset, settings.num_inference_steps)

    def _used(self, settings: Settings) -> list[tuple[int, int]]:
        return [self.uploads[i].size for i in self.chosen] if settings.reference_strength > 0 else []

    def call(self, settings: Settings) -> tuple[TemporaryDirectory, Call]:
        """A folder with the inputs and the call on them. Raises `ValueError` where it cannot be made here."""
        if self.photo is None:
            raise ValueError("Upload a small photograph first.")
        for upload in (self.photo, *(self.uploads[i] for i in self.chosen)):
            if not upload.path.is_file():
                raise ValueError("The uploads are gone: they are deleted after an hour. Upload them again.")
        needed, there = self.cost(settings).bytes, total_memory()
        if there is not None and needed > there:
            raise ValueError(
                f"This would need about {gigabytes(needed)} of memory; this machine has {gigabytes(there)}. "
                f"Use fewer or smaller references. {SMALLER}"
            )
        folder = TemporaryDirectory(prefix=TEMPORARY, ignore_cleanup_errors=True)
        root = Path(folder.name)
        (root / "inputs").mkdir()

        def inside(path: Path) -> str:
            return path.relative_to(root).as_posix()

        uploads = [self.uploads[i] for i in self.chosen]
        call = Call(
            root,
            inside(self.photo.copy_to(root / "inputs" / "photo")),
            tuple(inside(u.copy_to(root / "inputs" / f"reference-{n}")) for n, u in enumerate(uploads, start=1)),
            settings,
            self._mask(root, "mask", None, self.photo),
            tuple(
                self._mask(root, f"reference-mask-{n}", index, self.uploads[index])
                for n, index in enumerate(self.chosen, start=1)
            ),
        )
        return folder, call

    def _mask(self, root: Path, name: str, index: int | None, upload: Upload) -> str | None:
        """What was drawn as a file: over a reference the part to use, over the photograph the part to leave alone."""
        if index not in self.drawings:
            return None
        drawn = images.drawn_mask(self.drawings[index], upload.height, upload.width)
        if not drawn.any():
            return None
        images.save_image(1 - drawn if index is None else drawn, root / "inputs" / f"{name}.png")
        return f"inputs/{name}.png"

    def _cached(self, upload: Upload, side: int) -> Path:
        """A small upright PNG of an upload: a large photograph is opened once."""
        path = self.root / f"{upload.path.parent.name[:16]}-{upload.path.stem[:40]}-{side}.png"
        if not path.exists():
            images.save_image(visualization.thumbnail(images.to_tensor(upload.path), side), path)
        return path
