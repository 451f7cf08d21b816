"""A library of photos: build it once, then find the few that help an image among thousands.

`index` is its file, `building` fills it, `embedding` makes a photo comparable, `query` cleans the image up, `nearest`
searches, and `library` puts them together.
"""

from def_hub.reference.library.building import Changes
from def_hub.reference.library.library import Choice, Found, LibraryInfo, ReferenceLibrary

__all__ = ["Changes", "Choice", "Found", "LibraryInfo", "ReferenceLibrary"]
