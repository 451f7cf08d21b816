"""`def-hub upscale`: files in, enlarged files and their explanation out."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from def_hub import images, visualization
from def_hub.cli.errors import complain, is_users
from def_hub.cli.model import call_options, load
from def_hub.estimate import estimate, gigabytes, total_memory
from def_hub.report import report as describe

if TYPE_CHECKING:
    from def_hub.pipeline import DEFPipeline


def upscale(options: argparse.Namespace) -> int:
    """Enlarge one file or every picture of a folder."""
    jobs = _plan(options.image, options.output)
    for _, target in jobs:
        images.check_suffix(target)
        _check_writable(target)
    if options.save_intermediates is not None:
        _check_writable(options.save_intermediates / "report.json")
    protected = {path.resolve() for path in (*options.ref, *(source for source, _ in jobs))}
    for _, target in jobs:
        if target.resolve() in protected:
            raise ValueError(f"{target}: would overwrite an input; choose another --output")
    references = [images.to_tensor(path, "reference") for path in options.ref]
    if len(jobs) == 1 and not options.image.is_dir():
        images.to_tensor(options.image)  # a bad picture is told before the model is loaded

    pipe = load(options)
    failed = 0
    for number, (source, target) in enumerate(jobs, start=1):
        # a bar on a terminal, none in a log file
        pipe.set_progress_bar_config(desc=source.name, disable=None, leave=False)
        folder = options.save_intermediates
        if folder is not None and options.image.is_dir():
            folder = folder / target.stem
        try:
            summary = _upscale_one(pipe, source, references, target, folder, options)
        except Exception as error:
            if not options.image.is_dir() or not is_users(error):
                raise
            complain(error)
            failed += 1
            continue
        counter = f"[{number}/{len(jobs)}] " if len(jobs) > 1 else ""
        print(f"{counter}{summary}", flush=True)
    if failed:
        print(f"def-hub: {failed} of {len(jobs)} pictures failed", file=sys.stderr)
    return 1 if failed else 0


def _check_memory(image: Tensor, references: list[Tensor], options: argparse.Namespace) -> None:
    """Refuse in time what would not fit."""
    sizes = [(x.shape[2], x.shape[3]) for x in (image, *references)]
    needed = estimate(sizes[0], sizes[1:], options.preset, options.steps).bytes
    limit = total_memory() if options.max_memory is None else int(options.max_memory * 1e9)
    if limit is not None and needed > limit:
        raise ValueError(
            f"this would need about {gigabytes(needed)} of memory, {gigabytes(limit)} are allowed: "
            "use fewer or smaller references, or a part of the picture"
        )


def _plan(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Which file becomes which: a folder goes to a folder; a file to a file, or into a folder as a PNG."""
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if source.is_file():
        into = output.is_dir() or not output.suffix
        return [(source, output / f"{source.stem}.png" if into else output)]
    pictures = images.list_pictures(source)
    if not pictures:
        raise ValueError(f"{source}: no pictures in this folder")
    if output.is_file() or (output.suffix and not output.is_dir()):
        raise ValueError(f"{output}: a folder is enlarged into a folder, got a file name")
    stems = [path.stem for path in pictures]
    return [(path, output / f"{path.stem if stems.count(path.stem) == 1 else path.name}.png") for path in pictures]


def _upscale_one(
    pipe: "DEFPipeline",
    source: Path,
    references: list[Tensor],
    target: Path,
    intermediates: Path | None,
    options: argparse.Namespace,
) -> str:
    """Enlarge one file, write it and what explains it; returns the summary line."""
    image = images.to_tensor(source)
    _check_memory(image, references, options)
    generator = torch.Generator().manual_seed(options.seed)
    started = time.perf_counter()
    output = pipe(image, references or None, generator=generator, output_type="pt", **call_options(options))
    seconds = time.perf_counter() - started
    target.parent.mkdir(parents=True, exist_ok=True)
    images.save_image(output.images[0], target)
    report = {
        "input": str(source),
        "output": str(target),
        "references": [str(path) for path in options.ref],
        "model": options.model or "embedded default",
        "seed": options.seed,
        "parameters": call_options(options),
        **describe(image, references, output, seconds),
    }
    if intermediates is not None:
        intermediates.mkdir(parents=True, exist_ok=True)
        for name, picture in visualization.pictures(output, 0, references).items():
            images.save_image(picture, intermediates / f"{name}.png")
        temporary = intermediates / ".report.json"
        temporary.write_text(json.dumps(report, indent=2) + "\n")
        os.replace(temporary, intermediates / "report.json")
    size, scores = report["sizes"], report["scores"]
    return (
        f"{source} -> {target}: {size['input']} -> {size['output']} in {seconds:.1f} s, "
        f"{100 * scores['reference_share']:.0f} % of the pixels served by the reference, "
        f"consistency error {scores['consistency_error']:.2f}/255"
    )


def _check_writable(target: Path) -> None:
    """Raise `OSError` now rather than after minutes of computing. Creates nothing."""
    if target.is_dir():
        raise IsADirectoryError(f"{target}: is a folder, expected a file name")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{target}: cannot be written, {folder} is not a folder that allows it")
