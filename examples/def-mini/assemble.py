"""Put together, in half precision, what the run files trained: `python examples/def-mini/assemble.py [FOLDER]`.

The extractor is the embedded one, which came with the weights that part 3 started from. The weights of the preset
"detail" are included only if part 5 was trained.
"""

import shutil
import sys
from pathlib import Path

import torch

from def_hub.assemble import assemble

RUNS = {
    "1-extractor": "extractor",
    "2-prior": "prior",
    "3-trunk": "trunk-h",
    "3-deeper": "trunk-deep",
    "3-cooldown": "trunk",
    "4-reference": "reference",
    "5-detail": "detail",
}
"""Run files and the folders in `runs` that they write."""

runs, here = Path("runs"), Path(__file__).resolve().parent
folder = Path(sys.argv[1] if len(sys.argv) > 1 else here.parents[1] / "def_hub/weights/def-mini")
detail = runs / "detail/export/refsr"
pipe = assemble(
    "def-mini",
    unet=runs / "prior/export",
    refsr=runs / "reference/export",
    refsr_detail=detail if detail.is_dir() else None,
    dtype=torch.float16,
)
pipe.save_pretrained(str(folder))  # small files: they are part of every clone
(folder / "made-by").mkdir(exist_ok=True)
for name, run in RUNS.items():
    if (runs / run).is_dir():
        shutil.copy(here / f"{name}.toml", folder / "made-by")
        for log in sorted((runs / run).glob("*.csv")):
            shutil.copy(log, folder / "made-by" / f"{name}-{log.name}")
print(f"{sum(f.stat().st_size for f in folder.rglob('*.safetensors')) / 1e6:.1f} MB of weights in {folder}")
