"""`def-hub rank`: which of many candidate references to use."""

import argparse

from def_hub.cli.model import load


def rank(options: argparse.Namespace) -> int:
    """Print the candidates, best first: rank, score, verdict, file."""
    from def_hub.reference.selection import rank_references

    extractor = load(options).refsr.feature_extractor if options.model else None
    for place, found in enumerate(rank_references(options.image, options.candidates, extractor), start=1):
        print(f"{place:3}  {found.score:.3f}  {found.verdict:8}  {options.candidates[found.index]}")
    return 0
