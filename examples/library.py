"""From a folder of photographs to a result: python examples/library.py [SMALL PHOTO, FOLDERS OR PHOTOS …]"""

import sys
from pathlib import Path

from def_hub import DEFPipeline, ReferenceLibrary

here = Path(__file__).parent
small, *photos = sys.argv[1:] or [here / "street_lr.png", *sorted(here.glob("*_ref*.jpg"))]
library, changes = ReferenceLibrary.build(photos, "outputs/photos.def")  # a second time, only what is new is read
result = DEFPipeline.from_pretrained()(small, library, max_references=3)
result.images[0].save("outputs/library.png")
print(f"outputs/library.png, from a library of {len(library.index.entries)} photos ({changes}):")
print(*result.choices[0].lines(), sep="\n")
