"""Put together what the milestone's run files trained: `python examples/def-mini/milestone/assemble.py BEFORE FOLDER`.

BEFORE is the pipeline that they began from. `refsr` is the mean of parts 3 and 4, which began from one trunk (Wortsman
et al. 2022, "Model soups"). `refsr_detail` is that mean, changed as BEFORE's `refsr_detail` differs from its `refsr`
(Ilharco et al. 2023, "Editing models with task arithmetic"): sharpness was learned once, and moves on with the trunk.
"""

import shutil
import sys
from pathlib import Path

import torch
from torch import Tensor

from def_hub.assemble import assemble
from def_hub.reference.network import ReferenceNetwork
from def_hub.training.growing import load_grown

RUNS = Path("runs")
PARTS = {"2-prior": "prior", "3-cooldown": "cooldown-h", "4-reference": "reference-h"}

before, folder = sys.argv[1], Path(sys.argv[2])
network = ReferenceNetwork.from_pretrained(str(RUNS / "cooldown-h/export"), subfolder="refsr")


def weights(where: str | Path, name: str = "refsr") -> dict[str, Tensor]:
    """The weights of a network that may know fewer planes."""
    load_grown(network, ReferenceNetwork.from_pretrained(str(where), subfolder=name).state_dict())
    return {key: value.clone() for key, value in network.state_dict().items()}


def saved(state: dict[str, Tensor], name: str) -> str:
    network.load_state_dict(state)
    network.save_pretrained(str(RUNS / "milestone" / name))
    return str(RUNS / "milestone" / name)


trunk, reference = (weights(RUNS / PARTS[part] / "export") for part in ("3-cooldown", "4-reference"))
mean = {key: (trunk[key] + reference[key]) / 2 for key in trunk}
plain, sharp = weights(before), weights(before, "refsr_detail")
detail = {key: mean[key] + sharp[key] - plain[key] for key in mean}
pipe = assemble(
    "def-mini",
    unet=RUNS / "prior/export",
    refsr=saved(mean, "refsr"),
    refsr_detail=saved(detail, "refsr_detail"),
    dtype=torch.float16,
)
pipe.save_pretrained(str(folder))
for part, run in PARTS.items():
    for log in sorted((RUNS / run).glob("*.csv")):
        shutil.copy(log, folder / "made-by" / f"{part}-{log.name}")
