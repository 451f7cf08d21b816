"""What is kept of a run: its files, in a folder that vanishes with it, and what a click needs to be answered."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from def_hub import images, visualization
from def_hub.evaluation.metrics import Protocol, psnr, ssim
from def_hub.observation.downsample import make_operator
from def_hub.pipeline import DEFOutput
from def_hub.report import report
from def_hub.space.run import Call, Setup

PREVIEW = 1024  # longest side, in pixels, of a reference as it is shown
TEMPORARY = "def_hub-"


@dataclass
class Outcome:
    """One result. Pictures are PNG files of `folder`, by name; they appear as they are drawn.

    folder: deleted when nothing holds the outcome any more.
    setup, weights: what computed, and the fingerprint of the weights it had.
    inputs: what was given, see `Visit.inputs`. names: what the visitor calls the files, for the report.
    sources: shares of the whole picture, for the legend.
    sizes: (width, height) of each reference in pixels.
    python: the script that makes the same call.
    """

    folder: TemporaryDirectory
    call: Call
    setup: Setup
    weights: str
    seconds: float
    inputs: Any = None
    names: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    sources: list[visualization.Source] = field(default_factory=list)
    correspondence: Tensor | None = None
    confidence: Tensor | None = None
    sizes: list[tuple[int, int]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return Path(self.folder.name)

    @property
    def python(self) -> str:
        return self.call.as_python(self.setup)

    @property
    def legend(self) -> list[tuple[str, int, tuple[int, int, int]]]:
        """Name, per cent and colour of each source: the input, the prior, the references."""
        per_cent = visualization.per_cent([source.share for source in self.sources])
        return [(s.name, n, s.colour) for s, n in zip(self.sources, per_cent, strict=True)]

    def picture(self, name: str) -> Path | None:
        return self.files.get(name)

    def save(self, name: str, picture: Any) -> None:
        """Write a picture and know it by its name."""
        path = self.root / f"{name}.png"
        # the result is the very file that Pillow writes; for the others, to be quick counts
        images.save_image(picture, path, compression=6 if name == "result" else 1)
        self.files[name] = path


def begin(outcome: Outcome, output: DEFOutput) -> None:
    """What is wanted first: "result", "bicubic" and "enhanced"."""
    outcome.save("result", output.images[0])
    outcome.save("bicubic", make_operator().upsample(images.to_tensor(outcome.root / outcome.call.photo)))
    outcome.save("enhanced", output.enhanced[0])
    outcome.sources = visualization.sources(output.provenance[0])
    outcome.correspondence, outcome.confidence = output.correspondence[0].clone(), output.confidence[0].clone()


def explain(outcome: Outcome, output: DEFOutput, steps: Sequence[tuple[str, Tensor]]) -> None:
    """Draw the rest and write what can be taken away. output: what the outcome was begun from."""
    photo = images.to_tensor(outcome.root / outcome.call.photo)
    sharp = [images.to_tensor(outcome.root / name, "reference") for name in outcome.call.references]
    if output.transferred[0] is None:
        sharp = []  # a strength of zero: nothing was looked up
    outcome.sizes = [(reference.shape[3], reference.shape[2]) for reference in sharp]
    for name, picture in visualization.pictures(output, 0, sharp).items():
        if name not in outcome.files:
            outcome.save(name, picture)
    outcome.save("overlay", visualization.provenance_overlay(output.provenance[0], output.images[0]))
    if steps:
        outcome.save("steps", visualization.steps_strip(steps))
    for number, reference in enumerate(sharp, start=1):
        outcome.save(f"reference-{number}", visualization.thumbnail(reference, PREVIEW))
    settings = outcome.call.settings
    outcome.report = {
        "model": outcome.setup.name,
        "revision": outcome.setup.model.get("revision"),
        "weights": outcome.weights,
        "device": outcome.setup.device,
        "precision": outcome.setup.precision,
        "threads": outcome.setup.threads,
        "files": outcome.names,
        "seed": settings.seed,
        "parameters": outcome.call.options,
        "masks": {"image": outcome.call.mask, "references": list(outcome.call.reference_masks)},
        **report(photo, sharp, output, outcome.seconds),
    }
    _take_away(outcome, output.images[0])


def _take_away(outcome: Outcome, result: Tensor) -> None:
    """The files behind the buttons: 16 bits, the report, the script, and all of it as a ZIP."""
    root = outcome.root
    images.save_image(result, root / "result-16bit.png", bits=16, compression=1)
    (root / "report.json").write_text(json.dumps(outcome.report, indent=2) + "\n")
    (root / "reproduce.py").write_text(outcome.python)
    with zipfile.ZipFile(root / "everything.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix != ".zip":
                packed = zipfile.ZIP_DEFLATED if path.suffix in (".json", ".py") else zipfile.ZIP_STORED
                archive.write(path, path.relative_to(root), packed)
    for name, file in {
        "png16": "result-16bit.png",
        "report": "report.json",
        "script": "reproduce.py",
        "zip": "everything.zip",
    }.items():
        outcome.files[name] = root / file


@dataclass(frozen=True)
class Look:
    """Where a cell of the result was found. x, y, side: shares of the width (x, side) and height (y) of a picture.

    here: the cell in the result. reference: number from 1, None where nothing was looked up. there: its place.
    """

    here: tuple[float, float, float]
    reference: int | None
    there: tuple[float, float, float]
    confidence: float


def look_up(outcome: Outcome, x: float, y: float) -> Look:
    """The match of the cell at (x, y), as shares of the result's width and height in [0, 1].

    Raises `ValueError` for a point outside.
    """
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ValueError(f"expected a point with shares in [0, 1], got ({x}, {y})")
    assert outcome.correspondence is not None and outcome.confidence is not None
    h, w = outcome.confidence.shape
    column, row = min(int(x * w), w - 1), min(int(y * h), h - 1)
    number, there_x, there_y = outcome.correspondence[:, row, column].tolist()
    here = ((column + 0.5) / w, (row + 0.5) / h, 1 / w)
    if number < 0 or not outcome.sizes:
        return Look(here, None, (0, 0, 0), 0.0)
    width, height = outcome.sizes[int(number)]
    there = ((there_x + 0.5) / width, (there_y + 0.5) / height, 4 / width)
    return Look(here, int(number) + 1, there, float(outcome.confidence[row, column]))


def compare_with_truth(outcome: Outcome, truth: Path) -> str:
    """PSNR and SSIM of the result and of the bicubic enlargement, in words. truth: of the result's size."""
    original = images.to_tensor(truth, "original")
    numbers = []
    for name in ("bicubic", "result"):
        picture = images.to_tensor(outcome.root / f"{name}.png")
        numbers.append((psnr(picture, original).item(), ssim(picture, original).item()))
    (plain, plain_ssim), (ours, ours_ssim) = numbers
    return (
        f"Result **{ours:.2f} dB** PSNR, **{ours_ssim:.3f}** SSIM; bicubic {plain:.2f} dB, {plain_ssim:.3f} "
        f"({Protocol()})."
    )
