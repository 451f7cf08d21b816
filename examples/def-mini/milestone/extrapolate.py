"""Go beyond a network for "detail": `python …/extrapolate.py PIPELINE DETAIL FACTOR FOLDER`.

FOLDER gets `refsr` of PIPELINE plus FACTOR times what DETAIL (a folder with the network's weights) differs from it by
(task arithmetic, Ilharco et al. 2023). Training for appearance in few steps moves weights in the right direction, but
not as far as would help: by LPIPS, 1.15 to 1.6 times as far is nearer to the truth.
"""

import sys
from pathlib import Path

from def_hub.assemble import mix
from def_hub.reference.network import ReferenceNetwork

pipeline, detail, factor, folder = sys.argv[1:]
plain = ReferenceNetwork.from_pretrained(pipeline, subfolder="refsr").float()
network = ReferenceNetwork.from_pretrained(detail).float()
mix(network, plain, float(factor))
network.save_pretrained(Path(folder) / "refsr")
