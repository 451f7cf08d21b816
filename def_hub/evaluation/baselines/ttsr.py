"""TTSR: Yang et al., "Learning Texture Transformer Network for Image Super-Resolution", CVPR 2020. 6.73 million
parameters, of which 0.55 million are the texture extractor's, which is VGG19 to relu3_1.

The network is the package's own, see `reference.restoring.ttsr`; here it is called as TTSR's code calls it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from def_hub.convert.checkpoint import read_checkpoint
from def_hub.convert.ttsr import BASE, convert_ttsr
from def_hub.observation.downsample import Downsample
from def_hub.reference.matcher import Matcher
from def_hub.reference.matching import CELL, Views
from def_hub.reference.network import ReferenceNetwork


class TTSR(nn.Module):
    """The texture extractor stays as it is: the authors train it, too.

    Args:
        features: channels of all scales.
        blocks: residual blocks of the trunk, then of each scale in stage 1, 2 and 3.
        refsr: a network of any size instead, see `convert_ttsr`.
    """

    def __init__(
        self,
        features: int = 64,
        blocks: tuple[int, int, int, int] = (16, 16, 8, 4),
        refsr: ReferenceNetwork | None = None,
    ) -> None:
        super().__init__()
        widths = (features, features, features)
        self.refsr = ReferenceNetwork(features=widths, blocks=blocks, **BASE) if refsr is None else refsr
        self.operator = Downsample("bicubic", 4)

    @classmethod
    def from_published(cls, path: str) -> TTSR:
        """The authors' checkpoint. Errors as `convert_ttsr`."""
        return cls(refsr=convert_ttsr(read_checkpoint(path)))

    def forward(self, image: Tensor, references: Sequence[Tensor]) -> Tensor:
        """`[B,3,h,w]` and references `[B,3,Hr,Wr]`, in `[0,1]` → `[B,3,4h,4w]`.

        Raises ValueError without a reference, which the method cannot do without.
        """
        if not references:
            raise ValueError("TTSR needs a reference")
        large = self.operator.upsample(image)
        whole = [r[..., : r.shape[-2] // CELL * CELL, : r.shape[-1] // CELL * CELL] for r in references]
        softened = [self.operator.upsample(self.operator.forward(r)) for r in whole]
        features = self.refsr.memory(image.device)
        matcher = Matcher(features, matching_image="bicubic", refine=False)
        matches = matcher(Views(large, large), [Views(s, s, r) for s, r in zip(softened, whole, strict=True)])
        return self.refsr.restored(image, self.refsr.estimate(image, large), whole, matches, features).sr
