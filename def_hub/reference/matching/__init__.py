"""Where in the references to look, and how sure: `match_coarse_to_fine`, made of `match`, `refine` and `align`."""

from def_hub.reference.matching.alignment import align, supported
from def_hub.reference.matching.correspondence import CELL, Correspondence, Views, mean_around
from def_hub.reference.matching.pyramid import EVERY, levels, match_coarse_to_fine
from def_hub.reference.matching.refinement import refine
from def_hub.reference.matching.search import PAIRINGS, match

__all__ = [
    "CELL",
    "EVERY",
    "PAIRINGS",
    "Correspondence",
    "Views",
    "align",
    "match_coarse_to_fine",
    "levels",
    "match",
    "mean_around",
    "refine",
    "supported",
]
