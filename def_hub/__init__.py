"""Reference-based ×4 super-resolution with diffusion-enhanced features. The public names, nothing else."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from def_hub.observation.downsample import make_operator
    from def_hub.output import DEFOutput
    from def_hub.pipeline import DEFPipeline
    from def_hub.reference.library import ReferenceLibrary
    from def_hub.reference.network import ReferenceNetwork
    from def_hub.reference.selection import RankedReference, rank_references

__version__ = "0.1.0"
__all__ = [
    "DEFOutput",
    "DEFPipeline",
    "RankedReference",
    "ReferenceLibrary",
    "ReferenceNetwork",
    "__version__",
    "make_operator",
    "rank_references",
]

# Importing torch and diffusers takes seconds; a name is looked up when it is first used.
_HOMES = {
    "DEFOutput": "def_hub.output",
    "DEFPipeline": "def_hub.pipeline",
    "RankedReference": "def_hub.reference.selection",
    "ReferenceLibrary": "def_hub.reference.library",
    "ReferenceNetwork": "def_hub.reference.network",
    "make_operator": "def_hub.observation.downsample",
    "rank_references": "def_hub.reference.selection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
