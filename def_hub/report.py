"""What is written beside a result: enough to repeat it and to judge it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from def_hub import __version__
from def_hub.precision import compute_in
from def_hub.settings import Precision

if TYPE_CHECKING:
    from def_hub.output import DEFOutput
    from def_hub.pipeline import DEFPipeline

PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow")


def report(image: Tensor, references: Sequence[tuple[int, int]], output: DEFOutput, seconds: float) -> dict[str, Any]:
    """Sizes, scores, time and versions of the first result of an output, ready for JSON.

    Args:
        image: `[1, 3, h, w]`. references: (width, height) of each. output: with `output_type="pt"`.
        seconds: what the call took.
    """
    shares = output.provenance[0].float().mean(dim=(1, 2)).tolist()
    return {
        "sizes": {
            "input": _size(image),
            "output": _size(output.images[0]),
            "references": [f"{width}x{height}" for width, height in references],
        },
        "scores": {
            "mean_confidence": float(output.confidence[0].float().mean()),
            "input_share": shares[0],
            "prior_share": shares[1],
            "reference_share": sum(shares[2:]),
            "shares_of_references": shares[2:],
            "consistency_error": float(output.consistency_error[0]),  # in units of 1/255
        },
        "observation": {
            "degradation": str(output.observation[0].degradation),
            "words": output.observation[0].words,
            "agreement": output.agreement[0].words,
        },
        "seconds": seconds,
        "versions": versions(),
    }


def conditions(pipe: DEFPipeline, preset: str, precision: Precision) -> dict[str, Any]:
    """What decides the bytes of a result beside the settings, the weights and the seed.

    precision: what the networks really compute in, "float32", "bfloat16" or "float16", where `precision`, that of the
    settings, says "auto". threads: of torch on the processor. operator, window: of the pipeline.
    """
    weights = pipe.parts(preset)["refsr"].dtype
    with compute_in(precision, pipe.device, weights):
        half = torch.is_autocast_enabled(pipe.device.type)
        used = torch.get_autocast_dtype(pipe.device.type) if half else torch.float32
    return {
        "precision": str(used).removeprefix("torch."),
        "device": pipe.device.type,
        "threads": torch.get_num_threads(),
        "operator": pipe.config.operator,
        "window": pipe.config.window,
    }


def versions() -> dict[str, str]:
    """Of this package, of Python and of what computes."""
    return {"def_hub": __version__, "python": platform.python_version()} | {p: version(p) for p in PACKAGES}


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]}x{picture.shape[-2]}"
