"""A library of photos: build it once, then find the few that help an image among thousands.

To build: `building` reads folders, `embedding` (or `backbone`) makes global descriptors, `cells` local ones, and
`index` writes them. To find: `query` cleans the image up, `nearest` finds similar photos, `cells` compares them cell by
cell, and `choice` ranks the best ones.
"""

from def_hub.reference.library.building import Changes
from def_hub.reference.library.choice import Choice, Found
from def_hub.reference.library.library import LibraryInfo, ReferenceLibrary

__all__ = ["Changes", "Choice", "Found", "LibraryInfo", "ReferenceLibrary"]
