"""What is compared: anything that enlarges a picture, with or without references, behind one small interface.

To measure a method of your own, give an object with these members to `benchmark.run`, or put its results into a
folder and score that (`def-hub evaluate --score RESULTS --truth HR`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from def_hub.evaluation.rows import UNAVAILABLE
from def_hub.observation.degradation import Degraded
from def_hub.observation.downsample import Downsample


@dataclass(frozen=True)
class Restored:
    """What a method made of a picture.

    Attributes:
        image: `[1,3,4h,4w]` in `[0,1]`, float32 on the CPU.
        served: share of the detail that came from references, 0 to 1.
        transferred: the texture that was carried over, as `image`; None where the method shows none.
    """

    image: Tensor
    served: float = UNAVAILABLE
    transferred: Tensor | None = None


class Restore(Protocol):
    """A method.

    Attributes:
        name: in tables and file names.
        uses_references: a method that does not is measured once, without any.
        needs_references: it cannot be measured without.
    """

    @property
    def name(self) -> str: ...

    @property
    def uses_references(self) -> bool: ...

    @property
    def needs_references(self) -> bool: ...

    def __call__(self, image: Degraded, references: list[Tensor]) -> Restored:
        """LR picture and references `[1,3,Hr,Wr]`, in `[0,1]`, float32 on the CPU → four times larger.

        `image.picture` are the pixels `[1,3,h,w]`; a method that can make use of the file finds it in `image.file`.
        """
        ...


class Bicubic:
    """The method that every table starts with: Pillow's bicubic enlargement."""

    name = "bicubic"
    uses_references = False
    needs_references = False

    def __call__(self, image: Degraded, references: list[Tensor]) -> Restored:
        return Restored(Downsample("bicubic", 4).upsample(image.picture))


@dataclass(frozen=True)
class Network:
    """A published network, see `baselines`: `network(image)`, or `network(image, references)`."""

    name: str
    network: nn.Module
    uses_references: bool = False
    needs_references: bool = False
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, image: Degraded, references: list[Tensor]) -> Restored:
        arguments: list[Any] = [image.picture.to(self.device)]
        if self.uses_references:
            arguments.append([reference.to(self.device) for reference in references])
        return Restored(self.network(*arguments).float().clamp(0, 1).cpu())


@dataclass(frozen=True)
class Pipeline:
    """A `DEFPipeline` with the settings of its call. Every picture starts from the same `seed`.

    A JPEG comes as the file that it is, so that `degradation="auto"` reads its tables as it does for users.
    """

    name: str
    pipe: Callable[..., Any]
    settings: dict[str, Any]
    seed: int = 0
    uses_references: bool = True
    needs_references: bool = False

    def __call__(self, image: Degraded, references: list[Tensor]) -> Restored:
        generator = torch.Generator().manual_seed(self.seed)
        output = self.pipe(image.opened(), references or None, generator=generator, output_type="pt", **self.settings)
        result = output.images[0][None].float().cpu()
        if not references:
            return Restored(result)
        # shares of the input and of the prior come first, then one for each reference
        served = float(output.provenance[0].float()[2:].sum(0).mean())
        transferred = output.transferred[0]
        return Restored(result, served, None if transferred is None else transferred[None].float().cpu())
