"""What one visitor gave and chose so far, and what follows from it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from def_hub import images, visualization
from def_hub.crop import Crop, Size, within
from def_hub.estimate import Estimate, estimate, free_memory, gigabytes, largest_that_fits, total_memory
from def_hub.observation.assessment import Assessment, assess
from def_hub.observation.jpeg import jpeg_of
from def_hub.reference.selection import RankedReference
from def_hub.service.call import Call, RunOptions
from def_hub.service.history import History
from def_hub.service.preview import Preview
from def_hub.service.result import Result
from def_hub.service.smaller import smaller
from def_hub.service.temporary import PREFIX
from def_hub.service.uploads import (
    MAX_CANDIDATES,
    MAX_PHOTO_PIXELS,
    MAX_REFERENCES,
    MAX_RESULT_PIXELS,
    SMALLER,
    Upload,
    check_original,
)

if TYPE_CHECKING:
    from def_hub.service.batch import Batch

Rank = Callable[[Path, Sequence[Path]], list[RankedReference]]
Stale = Literal["photograph", "references"]

THUMBNAIL, CANVAS, LARGE = 240, 640, 1280  # pixels, longest side: on a card, to draw on, to cut out of
MAX_DRAWING = 4_000_000  # characters of a drawing as base64


@dataclass(frozen=True)
class Candidate:
    """A reference that the visitor gave. index: among the uploads.

    ranked: None while there is no photograph to rank for. number: that of a chosen reference, from 1. masked: whether
    only a part of it is used.
    """

    index: int
    upload: Upload
    ranked: RankedReference | None
    number: int | None
    masked: bool


@dataclass
class Session:
    """State of one visitor.

    given: the photograph of which a part is chosen, or was. assessment: what degraded `photo`, as far as can be told.
    ranked: best first; empty while there is no photograph to rank for. chosen: indices of uploads, best first.
    drawings: PNG over the photograph (key None) and over uploads (key: index). original: the sharp original of the
    photograph, a PNG of `folder`, where the visitor has one, `original_scale` times as large. previewed: a part of a
    result, see `service.preview`. aim: the place, as shares of width and height, that a preview is wanted of. batch:
    several photos, see `service.batch`. history: earlier results. example: name of the shipped example that this is,
    until the visitor gives a photograph. look_at: the place, as shares, at which its result opens. cancelled: when
    Cancel was last pressed, in milliseconds of the visitor's browser. is_opening: whether a file that was given is just
    being opened. folder: thumbnails, previews and the original; deleted with the session.
    """

    photo: Upload | None = None
    given: Upload | None = None
    assessment: Assessment | None = None
    uploads: list[Upload] = field(default_factory=list)
    ranked: list[RankedReference] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    drawings: dict[int | None, bytes] = field(default_factory=dict)
    original: Path | None = None
    original_scale: int = 0
    result: Result | None = None
    previewed: Preview | None = None
    aim: tuple[float, float] | None = None
    batch: Batch | None = None
    history: History = field(default_factory=History)
    example: str | None = None
    look_at: tuple[float, float] | None = None
    cancelled: float = 0.0
    is_opening: bool = False
    folder: TemporaryDirectory | None = None

    @property
    def root(self) -> Path:
        if self.folder is None:
            self.folder = TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        return Path(self.folder.name)

    def copy(self) -> Session:
        """A copy for one visitor. What this visitor changes, others do not see."""
        mine = replace(self, uploads=[*self.uploads], ranked=[*self.ranked], chosen=[*self.chosen])
        mine.drawings, mine.cancelled, mine.is_opening, mine.folder = dict(self.drawings), 0.0, False, None
        mine.previewed, mine.batch, mine.history = None, None, History()
        return mine

    @property
    def inputs(self) -> tuple[Upload | None, list[Upload], list[bytes | None]]:
        """What decides a result beside the options: photograph, references, drawings."""
        uploads = [self.uploads[i] for i in self.chosen]
        return self.photo, uploads, [self.drawings.get(key) for key in (None, *self.chosen)]

    @property
    def names(self) -> dict[str, Any]:
        """The visitor's names of the files of a run, and how well each reference matched, from 0 to 1."""
        scores = {r.index: round(r.score, 4) for r in self.ranked}
        references = [{"name": self.uploads[i].path.name, "match": scores.get(i)} for i in self.chosen]
        made = {"input_made_from": self.photo.made} if self.photo and self.photo.made else {}
        return {"input": self.photo and self.photo.name, **made, "references": references}

    @property
    def stale(self) -> Stale | None:
        """What has changed since the result was computed; None where nothing has, or where there is no result."""
        if self.result is None or self.result.inputs == self.inputs:
            return None
        return "photograph" if self.result.inputs[0] != self.photo else "references"

    def is_cancelled(self, pressed: float) -> bool:
        """Whether a run is no longer wanted. pressed: when it was asked for, in milliseconds of the same browser."""
        return self.cancelled >= pressed

    # -------------------------------------------------------------------------------------- pictures

    @contextmanager
    def opening(self) -> Iterator[None]:
        self.is_opening = True
        try:
            yield
        finally:
            self.is_opening = False

    def set_photo(self, photo: Upload | None) -> None:
        """Another photograph, or none. The original of the last one and what was drawn over it go.

        A first photograph of the visitor's own takes the place of an example with all its references and its result.
        """
        if self.example is not None:
            self.set_uploads([])
            self.result = self.example = None
        self.photo, self.ranked, self.chosen, self.original = photo, [], [], None
        self.assessment = None
        self.previewed = self.aim = self.look_at = None
        self.drawings.pop(None, None)

    def largest(self, size: Size, options: RunOptions) -> Size:
        """The largest (height, width) of the shape of `size` that a run can enlarge here.

        Raises `ValueError` where the references leave no memory for a picture of any size.
        """
        settings = options.settings
        size = within(size, min(MAX_PHOTO_PIXELS, MAX_RESULT_PIXELS // settings.scale**2))
        known = (options.preset, settings.num_inference_steps, settings.scale)
        most = largest_that_fits(size, self._used(options), total_memory(), *known)
        if most is None:
            raise ValueError("The references leave no memory for a photo of any size: use fewer or smaller ones.")
        return most

    def advice(self, options: RunOptions) -> str:
        """What to do where a run of the photograph has used up memory: a size that fits.

        The system says what is free now. The run needed more than that, or more than was reckoned: half, at most, is
        taken as sure.
        """
        assert self.photo is not None
        settings, size = options.settings, self.photo.size
        known = (options.preset, settings.num_inference_steps, settings.scale)
        sure = min(free_memory() or math.inf, self.cost(options).bytes / 2)
        references = self._used(options)
        most = largest_that_fits(size, references, int(sure), *known)
        named = " with these references" if references else ""
        words = f"There is not enough memory for {size[1]}×{size[0]} pixels{named}."
        if most is None or most == size:
            return f"{words} {'Use fewer or smaller references' if references else 'Try it again later'}."
        smaller = "use smaller references" if references else "choose a smaller scale"
        return f"{words} {most[1]}×{most[0]} fits: shrink it (fit), cut out a part (crop), or {smaller}."

    def assess(self) -> None:
        """Measure what degraded the photograph."""
        if self.photo is not None and self.assessment is None:
            path = self.photo.path
            self.assessment = assess(images.read_photo(path).picture, jpeg_of(path))

    def give_part_of(self, upload: Upload | None) -> None:
        """Choose next which part of a photograph is taken: of this one, or (None) of the one that was given last."""
        if upload is None and self.photo is not None:
            upload = self.photo.source or self.photo
        self.given = upload

    def set_smaller(self, crop: Crop | None, size: Size | None) -> None:
        """Take a part of the given photograph, or a shrunk copy, as the photograph. Raises as `service.smaller`."""
        if self.given is None:
            raise ValueError("Upload the photograph again.")
        if self.photo is not None and self.given == (self.photo.source or self.photo):
            self.example = None  # the references of an example go on to serve a part of it
        self.set_photo(smaller(self.given, self.root, crop, size))

    def set_original(self, path: str | Path | None) -> None:
        """The original to compare results with. Raises `ValueError` where it cannot be that."""
        self.original = None
        if path is None:
            return
        if self.photo is None:
            raise ValueError("Upload the small photograph first, then its original.")
        checked = check_original(path, self.photo)
        picture = self.root / f"original-{checked.path.parent.name[:16]}.png"
        images.save_image(images.to_tensor(checked.path, "original"), picture, compression=1)
        self.original, self.original_scale = picture, checked.height // self.photo.height

    def set_uploads(self, uploads: list[Upload]) -> None:
        """Other candidates. What was drawn over a candidate that is gone goes with it."""
        drawn = {None if key is None else self.uploads[key].path: d for key, d in self.drawings.items()}
        self.uploads, self.ranked, self.chosen = uploads, [], list(range(len(uploads)))[:MAX_REFERENCES]
        keys = {None: None} | {upload.path: index for index, upload in enumerate(uploads)}
        self.drawings = {keys[path]: drawing for path, drawing in drawn.items() if path in keys}

    def add_uploads(self, uploads: list[Upload]) -> int:
        """More candidates, up to `MAX_CANDIDATES` in all; returns how many had no room."""
        known = {upload.path for upload in self.uploads}
        together = self.uploads + [upload for upload in uploads if upload.path not in known]
        self.set_uploads(together[:MAX_CANDIDATES])
        return max(0, len(together) - MAX_CANDIDATES)

    def remove_upload(self, position: int) -> None:
        """Take the candidate at a position of `candidates` away. The choice among the others stays."""
        if not 0 <= position < len(self.uploads):
            return  # the card that was clicked is gone
        index = self._order[position]
        ranked, chosen = self.ranked, self.chosen

        def moved(other: int) -> int:
            return other - (other > index)

        self.set_uploads([upload for i, upload in enumerate(self.uploads) if i != index])
        self.ranked = [replace(r, index=moved(r.index)) for r in ranked if r.index != index]
        self.chosen = [moved(i) for i in chosen if i != index]

    # -------------------------------------------------------------------------------------- choice

    def rank(self, rank: Rank) -> None:
        """Score the candidates. Choose those that are likely to help, or else the best one that may help."""
        if self.photo is None or not self.uploads:
            return
        self.ranked = rank(self.photo.path, [upload.path for upload in self.uploads])
        likely = [r.index for r in self.ranked if r.verdict == "likely"]
        possible = [r.index for r in self.ranked if r.verdict == "possible"]
        self.chosen = (likely or possible[:1])[:MAX_REFERENCES]

    def toggle(self, position: int) -> None:
        """Choose the candidate at a position of `candidates`, or leave it out.

        Raises `ValueError` where too many would be chosen.
        """
        if not 0 <= position < len(self.uploads):
            return  # the card that was clicked is gone
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

    def candidates(self) -> list[Candidate]:
        """All that were given, best first."""
        ranked = {r.index: r for r in self.ranked}
        numbers = {index: number for number, index in enumerate(self.chosen, start=1)}
        return [
            Candidate(i, self.uploads[i], ranked.get(i), numbers.get(i), i in numbers and i in self.drawings)
            for i in self._order
        ]

    # -------------------------------------------------------------------------------------- small copies

    def thumbnail(self, upload: Upload) -> Path:
        """A small picture of a candidate. Raises `ValueError` where it cannot be decoded."""
        return self._cached(upload, THUMBNAIL)

    def preview(self, index: int | None) -> Path:
        """The photograph (None) or an upload, upright, to draw on."""
        upload = self.photo if index is None else self.uploads[index]
        assert upload is not None
        return self._cached(upload, CANVAS)

    def shown(self) -> Path | None:
        """The photograph as every browser shows it: upright, in sRGB, over white where it is transparent."""
        return None if self.photo is None else self.preview(None)

    def large(self) -> Path:
        """The photograph as it was given, large enough to choose a part of it."""
        assert self.given is not None
        return self._cached(self.given, LARGE)

    def _cached(self, upload: Upload, side: int) -> Path:
        """A small upright PNG of an upload, in sRGB. A large photograph is decoded only once, and a JPEG no larger than
        it is needed."""
        path = self.root / f"{upload.path.parent.name[:16]}-{upload.path.stem[:40]}-{side}.png"
        if not path.exists():
            picture = images.read_photo(upload.path, "", shorter_side=side).over_white()
            images.save_image(visualization.thumbnail(picture, side), path)
        return path

    # -------------------------------------------------------------------------------------- drawings

    def draw(self, index: int | None, data_url: str | None) -> None:
        """Keep a drawing over the photograph or an upload. Raises `ValueError` for anything but a PNG data URL."""
        if data_url is None:
            self.drawings.pop(index, None)
            return
        head, _, body = data_url.partition(",")
        if head != "data:image/png;base64" or len(body) > MAX_DRAWING:
            raise ValueError("The drawing could not be read; wipe it and draw again.")
        self.drawings[index] = base64.b64decode(body, validate=True)

    def _mask(self, root: Path, name: str, index: int | None, upload: Upload) -> str | None:
        """A drawing as a file: over a reference the part to use, over the photograph the part to leave alone."""
        if index not in self.drawings:
            return None
        drawn = images.drawn_mask(self.drawings[index], upload.height, upload.width)
        if not drawn.any():
            return None
        images.save_image(1 - drawn if index is None else drawn, root / "inputs" / f"{name}.png")
        return f"inputs/{name}.png"

    # -------------------------------------------------------------------------------------- runs

    def cost(self, options: RunOptions, size: Size | None = None) -> Estimate:
        """Time and memory of a run, with a photograph of `size` instead of its own.

        Raises `ValueError` where the result would be too large.
        """
        if size is None:
            assert self.photo is not None
            size = self.photo.size
        settings = options.settings
        if (pixels := settings.scale**2 * size[0] * size[1]) > MAX_RESULT_PIXELS:
            raise ValueError(
                f"×{settings.scale} would be {pixels / 1e6:.0f} million pixels; at most {MAX_RESULT_PIXELS / 1e6:g} "
                "million are made here. Choose a smaller scale."
            )
        return estimate(size, self._used(options), options.preset, settings.num_inference_steps, settings.scale)

    def _used(self, options: RunOptions) -> list[Size]:
        """Sizes of the references that a run looks at."""
        return [self.uploads[i].size for i in self.chosen] if options.settings.reference_strength > 0 else []

    def call(self, options: RunOptions) -> tuple[TemporaryDirectory, Call]:
        """A folder with copies of the inputs, and the call on them.

        Raises:
            ValueError: where there is no photograph, where files are gone, or where memory would not suffice.
        """
        photo = self._check_ready(options)
        folder = TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        root = Path(folder.name)
        (root / "inputs").mkdir()

        def copied(upload: Upload, name: str) -> str:
            return upload.copy_to(root / "inputs" / name).relative_to(root).as_posix()

        chosen = [(f"{n}", index, self.uploads[index]) for n, index in enumerate(self.chosen, start=1)]
        call = Call(
            root,
            copied(photo, "photo"),
            tuple(copied(upload, f"reference-{n}") for n, _, upload in chosen),
            options,
            self._mask(root, "mask", None, photo),
            tuple(self._mask(root, f"reference-mask-{n}", index, upload) for n, index, upload in chosen),
        )
        return folder, call

    def _check_ready(self, options: RunOptions) -> Upload:
        if self.photo is None:
            raise ValueError("Upload a small photograph first.")
        for upload in (self.photo, *(self.uploads[i] for i in self.chosen)):
            if not upload.path.is_file():
                raise ValueError("The uploads are gone: they are deleted after an hour. Upload them again.")
        needed, there = self.cost(options).bytes, total_memory()
        if there is not None and needed > there:
            raise ValueError(
                f"This would need about {gigabytes(needed)} of memory; this machine has {gigabytes(there)}. "
                f"Use fewer or smaller references. {SMALLER}"
            )
        return self.photo
