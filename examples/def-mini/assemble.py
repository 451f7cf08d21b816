"""Build def-mini, in half precision, from the parts that the run files trained: `python
examples/def-mini/assemble.py [FOLDER]`. Part 5, the weights of the preset "detail", is optional.
"""

import shutil
import sys
from pathlib import Path

import torch

from def_hub.assemble import assemble

runs, here = Path("runs"), Path(__file__).resolve().parent
folder = Path(sys.argv[1] if len(sys.argv) > 1 else here.parents[1] / "def_hub/weights/def-mini")
names = [
    n for n in ("extractor", "prior", "trunk", "reference", "detail") if n != "detail" or (runs / n / "export").is_dir()
]
pipe = assemble(
    "def-mini",
    unet=runs / "prior/export",
    refsr=runs / "reference/export",
    refsr_detail=runs / "detail/export/refsr" if "detail" in names else None,
    dtype=torch.float16,
)
pipe.save_pretrained(str(folder))
(folder / "made-by").mkdir(exist_ok=True)
for number, name in enumerate(names, start=1):
    shutil.copy(here / f"{number}-{name}.toml", folder / "made-by")
    for log in sorted((runs / name).glob("*.csv")):
        shutil.copy(log, folder / "made-by" / f"{number}-{name}-{log.name}")
print(f"{sum(f.stat().st_size for f in folder.rglob('*.safetensors')) / 1e6:.1f} MB of weights in {folder}")
