"""What is kept of a run: its files, in a folder that is deleted with it, and what a click on a picture asks for."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL.Image import Image
from torch import Tensor

from def_hub import images, visualization
from def_hub.evaluation.metrics import Protocol, psnr, ssim
from def_hub.observation.downsample import Downsample
from def_hub.output import DEFOutput
from def_hub.report import report
from def_hub.service.call import Call, Setup
from def_hub.service.evidence import confidence_colours, detail_shares, source_colours
from def_hub.service.uploads import check_reference

SHARED = 1000  # longest side, in pixels, of each half of the picture that is shared
PREVIEW = 1024  # longest side, in pixels, of a reference as it is shown
MAX_WEBP = 16383  # longest side, in pixels, that the format can hold


@dataclass
class Result:
    """One result. Its pictures are PNG files of `folder`, known by name; they appear as they are drawn.

    folder: deleted when nothing holds the result any more.
    setup, weights: what computed it, and the fingerprint of its weights.
    inputs: what was given, see `Session.inputs`. names: the visitor's names of the files, for the report.
    seconds: how long the call took.
    sources: who gave the added detail, and how much of it: the prior, then the references (`evidence.detail_shares`).
    sizes: (width, height) of each reference in pixels.
    """

    folder: TemporaryDirectory
    call: Call
    setup: Setup
    weights: str
    inputs: Any = None
    names: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
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
        """The script that makes the same call."""
        return self.call.as_python(self.setup)

    @property
    def legend(self) -> list[tuple[str, int, tuple[int, int, int]]]:
        """Name, per cent and colour of each source of added detail."""
        per_cent = visualization.per_cent([source.share for source in self.sources])
        return [(s.name, n, s.colour) for s, n in zip(self.sources, per_cent, strict=True)]

    @property
    def from_references(self) -> float:
        """The share of the added detail that came from the references, 0 … 1."""
        return sum(source.share for source in self.sources[1:])

    @property
    def title(self) -> str:
        """What downloads are called: after the visitor's file."""
        return f"{Path(self.names.get('input') or 'photo').stem[:80]}_x{self.call.options.settings.scale}"

    def picture(self, name: str) -> Path | None:
        return self.files.get(name)

    def save(self, name: str, picture: Any) -> None:
        """Write a picture as `name`.png."""
        path = self.root / f"{name}.png"
        # The result is the file that Pillow itself would write; the others only have to be quick.
        images.save_image(picture, path, compression=6 if name == "result" else 1)
        self.files[name] = path


def begin(result: Result, output: DEFOutput) -> None:
    """Write the pictures that a visitor looks at first: "result", "bicubic" and "enhanced"."""
    photo, alpha = images.read_photo(result.root / result.call.photo).picture, output.alpha[0]
    height, width = output.images[0].shape[-2:]
    bicubic = Downsample.between((height, width), (photo.shape[2], photo.shape[3])).upsample(photo)
    result.save("result", images.with_alpha(output.images[0], alpha))
    result.save("bicubic", images.with_alpha(bicubic[0], alpha))
    result.save("enhanced", images.with_alpha(output.enhanced[0], alpha))
    shares = detail_shares(output.images[0][None], bicubic, output.provenance[0])
    named = visualization.sources(output.provenance[0])[1:]
    result.sources = [replace(source, share=share) for source, share in zip(named, shares, strict=True)]
    result.correspondence, result.confidence = output.correspondence[0].clone(), output.confidence[0].clone()


def explain(result: Result, output: DEFOutput, steps: Sequence[tuple[str, Tensor]]) -> None:
    """Draw the other pictures, write the report and the downloads. output: that of `begin`."""
    photo = images.to_tensor(result.root / result.call.photo)
    used = [] if output.transferred[0] is None else result.call.references  # a strength of zero looks at none
    references = [check_reference(str(result.root / name)) for name in used]
    result.sizes = [(reference.width, reference.height) for reference in references]
    # Small copies, made one at a time: the references themselves may be of 48 megapixels each.
    copies = [_copy(reference.path) for reference in references]
    for name, picture in visualization.pictures(output, 0, copies, result.sizes).items():
        if name not in result.files:
            result.save(name, picture)
    result.save("overlay", visualization.provenance_overlay(output.provenance[0], output.images[0]))
    height, width = output.images[0].shape[-2:]
    result.save("source-colours", source_colours(output.provenance[0]))
    result.save("confidence-colours", confidence_colours(output.confidence[0], (height, width)))
    if steps:
        result.save("steps", visualization.steps_strip(steps))
    for number, copy in enumerate(copies, start=1):
        result.save(f"reference-{number}", copy)
    result.report = _report(result) | report(photo, result.sizes, output, result.seconds)
    _write_downloads(result, images.with_alpha(output.images[0], output.alpha[0]))


def _copy(path: Path) -> Image:
    """A reference as it is shown."""
    return visualization.thumbnail(images.read_photo(path, "reference", shorter_side=PREVIEW).over_white(), PREVIEW)


def _report(result: Result) -> dict[str, Any]:
    """What decides the bytes of a result, and what its files are called."""
    call, setup = result.call, result.setup
    return {
        "model": setup.name,
        "revision": setup.model.get("revision"),
        "weights": result.weights,
        "device": setup.device,
        "precision": setup.precision,
        "threads": setup.threads,
        "files": result.names,
        "seed": call.options.seed,
        "parameters": call.parameters,
        "masks": {"image": call.mask, "references": list(call.reference_masks)},
        "detail": {source.name: round(source.share, 4) for source in result.sources},
    }


def _write_downloads(result: Result, picture: Tensor) -> None:
    """The result in several formats, the report, the script, and all of it as a ZIP."""
    root, folder, title = result.root, result.root / "downloads", result.title
    (root / "report.json").write_text(json.dumps(result.report, indent=2) + "\n")
    (root / "reproduce.py").write_text(result.python)
    images.save_image(picture, root / "result-16bit.png", bits=16, compression=1)
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{title}.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and folder not in path.parents:
                packed = zipfile.ZIP_DEFLATED if path.suffix in (".json", ".py") else zipfile.ZIP_STORED
                archive.write(path, path.relative_to(root), packed)
    files = {"png": f"{title}.png", "png16": f"{title}_16bit.png", "report": f"{title}_report.json"}
    for name, source in (("png", "result.png"), ("png16", "result-16bit.png"), ("report", "report.json")):
        shutil.copyfile(root / source, folder / files[name])
    for suffix in ("jpg", "webp") if max(picture.shape[-2:]) <= MAX_WEBP else ("jpg",):
        files[suffix] = f"{title}.{suffix}"
        images.save_image(picture, folder / files[suffix])
    files["share"] = f"{title}_before_after.png"
    images.save_image(before_after(result), folder / files["share"])
    result.files |= {name: folder / file for name, file in files.items()} | {"zip": folder / f"{title}.zip"}
    result.files["script"] = root / "reproduce.py"


def before_after(result: Result) -> Image:
    """Plain enlargement and result side by side, with captions: one picture to show to others."""
    sides = [visualization.thumbnail(result.root / f"{name}.png", SHARED) for name in ("bicubic", "result")]
    caption = f"×{result.call.options.settings.scale} by def_hub"
    if result.sizes:
        caption += f", {100 * result.from_references:.0f} % of the new detail from references"
    return visualization.before_after(sides[0], sides[1], ("plain enlargement", caption))


@dataclass(frozen=True)
class Match:
    """The match of one cell of the result. A place is (x, y, side), as shares of the picture's width, height, width.

    here: the cell in the result. reference: number from 1, None where there is no match. there: its place in it.
    """

    here: tuple[float, float, float]
    reference: int | None
    there: tuple[float, float, float]
    confidence: float


def match_at(result: Result, x: float, y: float) -> Match:
    """The match of the cell at (x, y), as shares of the result's width and height in [0, 1].

    Raises `ValueError` for a point outside.
    """
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ValueError(f"expected a point with shares in [0, 1], got ({x}, {y})")
    assert result.correspondence is not None and result.confidence is not None
    h, w = result.confidence.shape
    column, row = min(int(x * w), w - 1), min(int(y * h), h - 1)
    number, there_x, there_y = result.correspondence[:, row, column].tolist()
    here = ((column + 0.5) / w, (row + 0.5) / h, 1 / w)
    if number < 0 or not result.sizes:
        return Match(here, None, (0, 0, 0), 0.0)
    width, height = result.sizes[int(number)]
    there = ((there_x + 0.5) / width, (there_y + 0.5) / height, 4 / width)
    return Match(here, int(number) + 1, there, float(result.confidence[row, column]))


def compare_with_original(result: Result, original: Path) -> str:
    """PSNR and SSIM of the result and of the bicubic enlargement, in words. original: of the result's size."""
    sharp = images.to_tensor(original, "original")
    numbers = []
    for name in ("bicubic", "result"):
        picture = images.to_tensor(result.root / f"{name}.png")
        numbers.append((psnr(picture, sharp).item(), ssim(picture, sharp).item()))
    (plain, plain_ssim), (ours, ours_ssim) = numbers
    return (
        f"Result **{ours:.2f} dB** PSNR, **{ours_ssim:.3f}** SSIM; bicubic {plain:.2f} dB, {plain_ssim:.3f} "
        f"({Protocol()})."
    )
