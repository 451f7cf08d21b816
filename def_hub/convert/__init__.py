"""Checkpoints of other projects → our components, one module for each kind of checkpoint. A converted component
computes the same function as the original, up to rounding.

Checkpoints are read by `torch.load(weights_only=True)` or from safetensors, so no code in them can run.
"""

from def_hub.convert.adm import convert_adm
from def_hub.convert.checkpoint import read_checkpoint
from def_hub.convert.ttsr import convert_ttsr
from def_hub.convert.vgg import convert_vgg19

__all__ = ["convert_adm", "convert_ttsr", "convert_vgg19", "read_checkpoint"]
