"""A configuration → the parts of a `ReferenceNetwork`: those of the paper, of def-mini, or of TTSR."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn as nn

from def_hub.reference.features import ExtractorName, FeatureExtractor, make_extractor
from def_hub.reference.restoring.aggregation import Aggregator, FoldedAggregator
from def_hub.reference.restoring.transfer import DeformableTransfer, HardTransfer
from def_hub.reference.restoring.ttsr import CellTransfer, TTSRAggregator


@dataclass(frozen=True)
class Parts:
    """The parts of a `ReferenceNetwork`.

    extractor: the frozen feature extractor.
    transfer: one module for each level of features that is transferred, coarse to fine.
    aggregator: blends the transferred features into the image.
    """

    extractor: FeatureExtractor
    transfer: nn.ModuleList
    aggregator: Aggregator | FoldedAggregator | TTSRAggregator


def make_parts(
    extractor: ExtractorName,
    features: tuple[int, int, int],
    blocks: tuple[int, int, int, int],
    *,
    folded: bool,
    deformable: bool,
    ttsr: bool,
    known: int = 0,
) -> Parts:
    """The parts that a configuration names; see `ReferenceNetwork` for the arguments.

    Raises:
        ValueError: for an unknown extractor, or with `ttsr` for `folded` or features that differ.
    """
    if ttsr and (folded or len(set(features)) != 1):
        raise ValueError(f"ttsr: expected three equal features and folded=False, got {features}, {folded=}")
    frozen = make_extractor(extractor).requires_grad_(False)
    sources = tuple(reversed(frozen.channels))  # coarse to fine
    widths = list(zip(sources, features[:2] if folded else features, strict=False))
    if ttsr:
        cells = nn.ModuleList(CellTransfer() for _ in widths)
        return Parts(frozen, cells, TTSRAggregator((sources[0], sources[1], sources[2]), features[0], blocks))
    if deformable:
        transfer = nn.ModuleList(DeformableTransfer(inputs, outputs, inputs) for inputs, outputs in widths)
    else:
        transfer = nn.ModuleList(HardTransfer(inputs, outputs) for inputs, outputs in widths)
    if folded:
        return Parts(frozen, transfer, FoldedAggregator((features[0], features[1], 3), features[0], blocks, known))
    return Parts(frozen, transfer, Aggregator(features, features, blocks, known))
