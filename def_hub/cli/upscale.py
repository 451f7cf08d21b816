"""`def-hub upscale`: files in, enlarged files and their explanation out."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from def_hub import images, settings, visualization
from def_hub.cli.console import complain, is_users, say, warn
from def_hub.cli.jobs import Job, check, left_out, plan
from def_hub.cli.model import load
from def_hub.cli.options import call_options
from def_hub.estimate import estimate, gigabytes, total_memory
from def_hub.images import Photo
from def_hub.observation.downsample import Downsample
from def_hub.reference.library import Choice, ReferenceLibrary
from def_hub.report import conditions
from def_hub.report import report as describe
from def_hub.scales import target_size

if TYPE_CHECKING:
    from def_hub.pipeline import DEFOutput, DEFPipeline


def upscale(options: argparse.Namespace) -> int:
    """Enlarge one file or every picture of a folder. Everything that can be checked is checked first."""
    jobs = plan(options.image, options.output, options.save_intermediates, options.recursive)
    check(jobs, options.ref, options.bits)
    if options.image.is_dir():
        _name(left_out(options.image, options.output, options.save_intermediates, options.recursive))
    if options.skip_existing:
        jobs = _without_done(jobs)
        if not jobs:
            return 0
    references = [images.to_tensor(path, "reference") for path in options.ref]
    # a bad picture is told before the model is loaded
    first = None if options.image.is_dir() else images.read_photo(options.image)
    library = None if options.library is None else ReferenceLibrary(options.library)
    run = _Run(load(options), references, options, library)
    failed = 0
    for number, job in enumerate(jobs, start=1):
        try:
            summary = run.one(job, first or images.read_photo(job.source))
        except Exception as error:
            if not options.image.is_dir() or not is_users(error):
                raise
            complain(error)
            failed += 1
            continue
        say(f"[{number}/{len(jobs)}] {summary}" if len(jobs) > 1 else summary)
    if failed:
        warn(f"{failed} of {len(jobs)} pictures failed")
    return 1 if failed else 0


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
        _check_memory(photo.picture, references, options)
        # a bar on a terminal, none in a log file
        self.pipe.set_progress_bar_config(desc=job.source.name, disable=None, leave=False)
        call = call_options(options)
        if options.width or options.height:
            call["size"] = (options.width, options.height)
        # a file that may be degraded is read by the pipeline itself: its JPEG tables say more than its pixels
        image = photo.picture if call["degradation"] == "clean" or photo.alpha is not None else job.source
        generator = torch.Generator().manual_seed(options.seed)
        started = time.perf_counter()
        output = self.pipe(image, references or None, generator=generator, output_type="pt", **call)
        seconds = time.perf_counter() - started
        names = [*map(str, options.ref), *(found.name for found in choice.chosen)]
        report = self._report(job, names, call) | describe(photo.picture, references, output, seconds)
        if self.library is not None:
            report["library"] = {"path": str(options.library), **choice.record()}
        if job.explanation is not None:
            self._explain(job.explanation, output, references, report)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        enlarged = _with_alpha(output.images[0], photo, job.target)
        images.save_image(enlarged, job.target, options.bits, metadata=photo.metadata)
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

    def _report(self, job: Job, references: list[str], call: dict[str, Any]) -> dict[str, Any]:
        return {
            "input": str(job.source),
            "output": str(job.target),
            "references": references,
            "model": self.options.model or "embedded default",
            "seed": self.options.seed,
            "bits": self.options.bits,
            "parameters": call,
            "conditions": conditions(self.pipe, call["preset"], call["precision"]),
        }

    def _explain(self, folder: Path, output: DEFOutput, references: list[Tensor], report: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in visualization.pictures(output, 0, references).items():
            images.save_image(picture, folder / f"{name}.png")
        temporary = folder / f".def-{os.getpid()}.json"
        try:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
            os.replace(temporary, folder / "report.json")
        finally:
            temporary.unlink(missing_ok=True)


def _summary(job: Job, report: dict[str, Any], seconds: float) -> str:
    size, scores = report["sizes"], report["scores"]
    return (
        f"{job.source} -> {job.target}: {size['input']} -> {size['output']} in {seconds:.1f} s, "
        f"{100 * scores['reference_share']:.0f} % of the detail comes from the references, "
        f"consistency error {scores['consistency_error']:.2f}/255"
    )


def _with_alpha(result: Tensor, photo: Photo, target: Path) -> Tensor:
    """The result `[3, H, W]`, and the photograph's transparency, enlarged, as a fourth channel, or white where it
    shows."""
    if photo.alpha is None:
        return result
    large, small = ((x.shape[-2], x.shape[-1]) for x in (result, photo.alpha))
    alpha = Downsample.between(large, small).upsample(photo.alpha.repeat(1, 3, 1, 1))[0, :1].clamp(0, 1)
    result = result.cpu()
    if target.suffix.lower() in images.WITH_ALPHA:
        return torch.cat((result, alpha))
    return result * alpha + (1 - alpha)


def _check_memory(image: Tensor, references: list[Tensor], options: argparse.Namespace) -> None:
    """Refuse in time what would not fit."""
    sizes = [(x.shape[2], x.shape[3]) for x in (image, *references)]
    asked = settings.resolve(options.preset, scale=options.scale).scale
    scale: float = asked
    if options.width or options.height:
        target = target_size(sizes[0], asked, (options.width, options.height))
        scale = max(target[0] / sizes[0][0], target[1] / sizes[0][1])
    needed = estimate(sizes[0], sizes[1:], options.preset, options.steps, scale).bytes
    limit = total_memory() if options.max_memory is None else int(options.max_memory * 1e9)
    if limit is not None and needed > limit:
        raise ValueError(
            f"this would need about {gigabytes(needed)} of memory, {gigabytes(limit)} are allowed: "
            "use fewer or smaller references, or a part of the picture"
        )


def _without_done(jobs: list[Job]) -> list[Job]:
    rest = [job for job in jobs if not job.target.exists()]
    if len(rest) < len(jobs):
        say(f"{len(jobs) - len(rest)} of {len(jobs)} results are there already, skipped")
    return rest


def _name(files: list[Path], most: int = 20) -> None:
    """Say which files of a folder are no pictures."""
    if files:
        more = f" and {len(files) - most} more" if len(files) > most else ""
        warn(f"left out, not pictures: {', '.join(map(str, files[:most]))}{more}")
