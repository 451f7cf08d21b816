"""`def-hub upscale`: files in, enlarged files and their explanation out."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from def_hub import images, visualization
from def_hub.cli.console import complain, is_users, say, shown, warn
from def_hub.cli.fit import Fitted, fitted
from def_hub.cli.jobs import Job, check, left_out, plan
from def_hub.cli.model import load
from def_hub.cli.options import call_options
from def_hub.crop import Crop
from def_hub.images import Photo
from def_hub.observation.jpeg import is_jpeg
from def_hub.reference.library import Choice, ReferenceLibrary
from def_hub.report import conditions
from def_hub.report import report as describe
from def_hub.scales import enlarged_alpha
from def_hub.sharing import Processes
from def_hub.writing import sweep, write_text

if TYPE_CHECKING:
    from def_hub.output import DEFOutput
    from def_hub.pipeline import DEFPipeline


def upscale(options: argparse.Namespace) -> int:
    """Enlarge one file or every picture of a folder. Everything that can be checked is checked first.

    Processes that `torchrun` started share the pictures of a folder; the first of them has the status of all.
    """
    processes = Processes()
    jobs = plan(options.image, options.output, options.save_intermediates, options.recursive)
    check(jobs, options.ref, options.bits)
    if options.crop:
        Crop.parse(options.crop)
    if options.image.is_dir() and processes.first:
        _name(left_out(options.image, options.output, options.save_intermediates, options.recursive))
    own = processes.share(list(enumerate(jobs, start=1)))
    # shared before it is asked what is there: results appear meanwhile, and every process must have the same list
    left = [(number, job) for number, job in own if not (options.skip_existing and job.target.exists())]
    if processes.first:
        for folder in {path.parent for job in jobs for path in job.writes()}:
            sweep(folder)  # what a killed process left behind
    there = sum(processes.gather([len(own) - len(left)]))  # nobody writes before all have listed the folder
    if there and processes.first:
        say(f"{there} of {len(jobs)} results are there already, skipped")
    failed = sum(processes.gather([_enlarge(left, len(jobs), options) if left else 0]))
    processes.end()
    if failed and processes.first:
        warn(f"{failed} of {len(jobs)} pictures failed")
    return 1 if failed and processes.first else 0


def _enlarge(jobs: Sequence[tuple[int, Job]], count: int, options: argparse.Namespace) -> int:
    """Do the jobs, each with its number among `count`, and say so; returns how many failed."""
    references = [images.to_tensor(path, "reference") for path in options.ref]
    # a bad picture is told before the model is loaded
    first = None if options.image.is_dir() else _opened(options.image, options)
    library = None if options.library is None else ReferenceLibrary(options.library)
    run = _Run(load(options), references, options, library)
    failed = 0
    for number, job in jobs:
        try:
            summary = run.one(job, first or _opened(job.source, options))
        except Exception as error:
            if not options.image.is_dir() or not is_users(error):
                raise
            complain(error)
            failed += 1
            continue
        say(f"[{number}/{count}] {summary}" if count > 1 else summary)
    return failed


def _opened(path: Path, options: argparse.Namespace) -> Photo:
    """A picture, of which the result can be written as the options say. Raises `ValueError` where it cannot."""
    photo = images.read_photo(path)
    if options.color_space == "input":
        photo.space.check(f"image {path}", options.bits)
    return photo


@dataclass(frozen=True)
class _Run:
    """What all pictures of a command have in common. references: each `[1, 3, Hr, Wr]`, those of `--ref`."""

    pipe: DEFPipeline
    references: list[Tensor]
    options: argparse.Namespace
    library: ReferenceLibrary | None = None

    def one(self, job: Job, photo: Photo) -> str:
        """Enlarge one picture, write what explains it and, last, the result; returns the summary line."""
        options = self.options
        choice = self._chosen(job)
        references = [*self.references, *(images.to_tensor(p, "reference") for p in choice.pictures())]
        fit = fitted(photo, references, options, str(job.source))
        photo = fit.photo
        # a bar on a terminal, none in a log file
        self.pipe.set_progress_bar_config(desc=job.source.name, disable=None, leave=False)
        call = call_options(options)
        if options.width or options.height:
            call["size"] = (options.width, options.height)
        # a file that may be degraded is read by the pipeline itself: its JPEG tables say more than its pixels
        whole = photo.alpha is None and not fit.made and is_jpeg(job.source)
        image = job.source if whole and call["degradation"] != "clean" else photo.picture
        generator = torch.Generator().manual_seed(options.seed)
        started = time.perf_counter()
        output = self.pipe(image, references or None, generator=generator, output_type="pt", **call)
        seconds = time.perf_counter() - started
        names = [*map(str, options.ref), *(found.name for found in choice.chosen)]
        report = self._report(job, fit, names, call)
        report |= describe(photo.picture, [(r.shape[3], r.shape[2]) for r in references], output, seconds)
        if self.library is not None:
            report["library"] = {"path": str(options.library), **choice.record()}
        if job.explanation is not None:
            self._explain(job.explanation, output, references, report)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        result = output.images[0]
        enlarged = images.with_alpha(result, enlarged_alpha(photo.alpha, (result.shape[1], result.shape[2])))
        space = photo.space if options.color_space == "input" else None
        images.save_image(enlarged, job.target, options.bits, metadata=photo.metadata, space=space)
        return _summary(job, report, seconds)

    def _chosen(self, job: Job) -> Choice:
        """What the library offers for a picture, which is also said."""
        if self.library is None:
            return Choice()
        choice = self.library.choose(
            job.source, self.options.max_references, self.pipe.refsr, call_options(self.options)["degradation"]
        )
        for line in choice.lines():
            say(f"  {line}")
        return choice

    def _report(self, job: Job, fit: Fitted, references: list[str], call: dict[str, Any]) -> dict[str, Any]:
        return {
            "input": str(job.source),
            **({"input_made_from": fit.made} if fit.made else {}),
            "output": str(job.target),
            "references": references,
            "model": self.options.model or "embedded default",
            "seed": self.options.seed,
            "bits": self.options.bits,
            "color_space": self.options.color_space,
            "parameters": call,
            "conditions": conditions(self.pipe, call["preset"], call["precision"]),
        }

    def _explain(self, folder: Path, output: DEFOutput, references: list[Tensor], report: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in visualization.pictures(output, 0, references).items():
            images.save_image(picture, folder / f"{name}.png")
        write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")


def _summary(job: Job, report: dict[str, Any], seconds: float) -> str:
    size, scores = report["sizes"], report["scores"]
    return (
        f"{shown(job.source)} -> {shown(job.target)}: {size['input']} -> {size['output']} in {seconds:.1f} s, "
        f"{100 * scores['reference_share']:.0f} % of the detail comes from the references, "
        f"consistency error {scores['consistency_error']:.2f}/255"
    )


def _name(files: list[Path], most: int = 20) -> None:
    """Say which files of a folder are no pictures."""
    if files:
        more = f" and {len(files) - most} more" if len(files) > most else ""
        warn(f"left out, not pictures: {', '.join(map(shown, files[:most]))}{more}")
