"""`def-hub inspect`: what degraded a picture, in words."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from def_hub import images
from def_hub.cli.console import complain, is_users, say, warn
from def_hub.observation.assessment import Assessment, assess
from def_hub.observation.jpeg import jpeg_of


def inspect(options: argparse.Namespace) -> int:
    """Print the assessment of each file, in words or as JSON. Files that cannot be read are named."""
    failed = 0
    for path in options.files:
        try:
            assessment = _assessed(path)
        except Exception as error:
            if not is_users(error):
                raise
            complain(error)
            failed += 1
            continue
        say(json.dumps(_record(path, assessment)) if options.json else f"{path}: {assessment.words}")
    if failed and len(options.files) > 1:
        warn(f"{failed} of {len(options.files)} files failed")
    return int(failed > 0)


def _assessed(path: Path) -> Assessment:
    return assess(images.to_tensor(path), jpeg_of(path))


def _record(path: Path, assessment: Assessment) -> dict[str, object]:
    return {
        "file": str(path),
        "degradation": str(assessment.degradation),
        "values": asdict(assessment.degradation),
        "unsure": list(assessment.unsure),
        "from_the_file": assessment.file is not None,
        "shrinkable": assessment.shrinkable,
        "words": assessment.words,
    }
