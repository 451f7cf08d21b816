"""The pipeline that the options name, and the arguments of its call."""

import argparse
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from def_hub import __version__

if TYPE_CHECKING:
    from def_hub.pipeline import DEFPipeline


def load(options: argparse.Namespace) -> "DEFPipeline":
    """The pipeline that `--model` and `--device` name."""
    import torch

    from def_hub.pipeline import DEFPipeline

    name = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from error
    pipe = DEFPipeline.from_pretrained(options.model) if options.model else DEFPipeline.from_pretrained()
    return pipe.to(device)


def call_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the pipeline's call that were given; the preset decides the others."""
    given = {
        "preset": options.preset,
        "num_inference_steps": options.steps,
        "eta": options.eta,
        "reference_strength": options.strength,
        "matching_image": options.matching_image,
        "consistency": None if options.consistency else False,
    }
    return {name: value for name, value in given.items() if value is not None}


def versions() -> dict[str, str]:
    packages = ("torch", "diffusers", "transformers", "numpy", "pillow")
    return {"def_hub": __version__, "python": platform.python_version()} | {p: version(p) for p in packages}
