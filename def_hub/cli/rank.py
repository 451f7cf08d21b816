"""`def-hub rank`: which of many candidate references to use."""

import argparse
from pathlib import Path

from def_hub import images
from def_hub.cli.console import complain, is_users, say, warn
from def_hub.cli.model import load


def rank(options: argparse.Namespace) -> int:
    """Print the candidates, best first: rank, score, verdict, file. Those that cannot be read are named."""
    from def_hub.reference.selection import rank_references

    image = images.to_tensor(options.image)
    candidates = _candidates(options.candidates)
    readable = [path for path in candidates if _is_readable(path)]
    if not readable:
        raise ValueError(f"none of {len(candidates)} candidates can be read")
    extractor = load(options).refsr.feature_extractor if options.model else None
    for place, found in enumerate(rank_references(image, readable, extractor), start=1):
        say(f"{place:3}  {found.score:.3f}  {found.verdict:8}  {readable[found.index]}")
    if len(readable) < len(candidates):
        warn(f"{len(candidates) - len(readable)} of {len(candidates)} candidates failed")
    return int(len(readable) < len(candidates))


def _candidates(given: list[Path]) -> list[Path]:
    """The files, and the pictures of the folders, each once."""
    found: list[Path] = []
    for path in given:
        found += images.list_pictures(path) if path.is_dir() else [path]
    if not found:
        raise ValueError(f"no pictures in {', '.join(map(str, given))}")
    return list(dict.fromkeys(found))


def _is_readable(path: Path) -> bool:
    try:
        images.read_photo(path, "candidate", shorter_side=64)
    except Exception as error:
        if not is_users(error):
            raise
        complain(error)
        return False
    return True
