"""Where in the references to look, and how sure: `match`, then `refine`, then `align`."""

from def_hub.reference.matching.alignment import align
from def_hub.reference.matching.correspondence import CELL, Correspondence, Views
from def_hub.reference.matching.refinement import refine
from def_hub.reference.matching.search import PAIRINGS, match

__all__ = ["CELL", "PAIRINGS", "Correspondence", "Views", "align", "match", "refine"]
