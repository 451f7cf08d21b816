"""A part of a shipped photograph, enlarged with references that a test makes."""

from torch import Tensor

from def_hub import DEFPipeline
from def_hub.images import to_tensor
from def_hub.observation.downsample import Downsample
from def_hub.output import DEFOutput
from tests.conftest import EXAMPLES

from .pictures import generator


def street() -> Tensor:
    """The original, `[1, 3, 128, 160]` in [0, 1]."""
    return to_tensor(EXAMPLES / "street_hr.webp")[..., 96:224, 128:288]


def enlarged(pipe: DEFPipeline, original: Tensor, *references: Tensor) -> DEFOutput:
    """What the preset "fast" makes of the shrunk original in float32, as tensors."""
    y = Downsample().forward(original).clamp(0, 1)
    options = {"preset": "fast", "precision": "float32", "generator": generator(), "output_type": "pt"}
    return pipe(y, list(references), **options)
