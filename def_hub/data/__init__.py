"""Training data: sources of pairs, and the stream of samples drawn from them."""

from def_hub.data.degrading import degraded_pair, drawn, observed
from def_hub.data.sources import Pair, PairFolder, PhotoFolder, SceneFolder, Source, open_source, open_validation
from def_hub.data.stream import SPARE, Prepared, SampleStream, turned_match, unrelated

__all__ = [
    "SPARE",
    "Pair",
    "PairFolder",
    "PhotoFolder",
    "Prepared",
    "SampleStream",
    "SceneFolder",
    "Source",
    "degraded_pair",
    "drawn",
    "observed",
    "open_source",
    "open_validation",
    "turned_match",
    "unrelated",
]
