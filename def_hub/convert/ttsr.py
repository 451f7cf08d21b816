"""The official TTSR checkpoints → the "base" configuration of `ReferenceNetwork`."""

from __future__ import annotations

from typing import Any

from def_hub.convert.checkpoint import StateDict, take
from def_hub.convert.vgg import LAYERS
from def_hub.reference.network import ReferenceNetwork

SLICES = {0: "slice1", 2: "slice2", 5: "slice2", 7: "slice3", 10: "slice3"}
BASE: dict[str, Any] = {"extractor": "vgg19_imagenet", "ttsr": True}
"""Arguments of `ReferenceNetwork` for TTSR, except the sizes."""


def convert_ttsr(state: StateDict, *, residual_scale: float = 1.0) -> ReferenceNetwork:
    """The learned texture extractor and the main network of a TTSR checkpoint, as a `ReferenceNetwork`.

    The pipeline reproduces TTSR's results with TTSR's way of matching: `pipe(..., matching_image="bicubic",
    refine=False)`. `LTE_copy`, which only TTSR's training needs, is dropped.

    Args:
        state: see `read_checkpoint`.
        residual_scale: TTSR's option `res_scale`, which a checkpoint does not record; 1 for the published ones.

    Raises:
        ValueError: if a tensor is missing, has another shape, or does not belong to TTSR.
    """
    width = take(state, "MainNet.SFE.conv_head.weight").shape[0]
    counts = [_count(state, f"MainNet.{name}") for name in ("SFE.RBs", "RB11", "RB21", "RB31")]
    network = ReferenceNetwork(
        features=(width, width, width),
        blocks=(counts[0], counts[1], counts[2], counts[3]),
        **BASE,
    )
    names = _names(counts)
    result: StateDict = {}
    for ours, value in network.state_dict().items():
        module, kind = ours.rsplit(".", 1)
        result[ours] = take(state, f"{names[module]}.{kind}", value.shape)
        if ".RB" in names[module] and module.endswith("conv2"):
            result[ours] = result[ours] * residual_scale
    used = {f"{theirs}.{kind}" for theirs in names.values() for kind in ("weight", "bias")}
    left = sorted(name for name in set(state) - used if not name.startswith("LTE_copy."))
    if left:
        raise ValueError(f"checkpoint: {len(left)} tensors have no place in TTSR as published, such as {left[0]}")
    network.load_state_dict(result)
    return network.eval()


def _count(state: StateDict, prefix: str) -> int:
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(f"{prefix}.")})


def _names(counts: list[int]) -> dict[str, str]:
    """Our names of modules → TTSR's. TTSR counts scales from 1, coarse to fine: `conv21` leads from the second scale to
    the first."""
    names = {"feature_extractor.conv0": "LTE.sub_mean"}
    names |= {f"feature_extractor.{ours}": f"LTE.{SLICES[n]}.{n}" for n, ours in LAYERS.items()}

    def tower(ours: str, blocks: str, tail: str, count: int) -> None:
        for number in range(count):
            for conv in ("conv1", "conv2"):
                names[f"{ours}.{number}.{conv}"] = f"{blocks}.{number}.{conv}"
        names[f"{ours}.{count}"] = tail

    names["aggregator.head"] = "MainNet.SFE.conv_head"
    tower("aggregator.trunk", "MainNet.SFE.RBs", "MainNet.SFE.conv_tail", counts[0])
    for stage in range(3):
        number = stage + 1
        names[f"aggregator.inject.{stage}"] = f"MainNet.conv{number}{number}_head"
        for scale in range(stage + 1):
            theirs = f"{number}{scale + 1}"
            tower(
                f"aggregator.stages.{stage}.{scale}",
                f"MainNet.RB{theirs}",
                f"MainNet.conv{theirs}_tail",
                counts[number],
            )
    names |= {"aggregator.grow.0": "MainNet.conv12", "aggregator.grow.1": "MainNet.conv23"}
    for scales, theirs in ((2, "ex12"), (3, "ex123")):
        for target in range(scales):
            gather = f"aggregator.exchange.{scales - 1}.{target}"
            names[f"{gather}.merge"] = f"MainNet.{theirs}.conv_merge{target + 1}"
            for path, source in enumerate(s for s in range(scales) if s != target):
                steps = max(source - target, 1)
                for step in range(steps):
                    suffix = f"_{step + 1}" if steps > 1 else ""
                    names[f"{gather}.paths.{path}.convs.{step}"] = (
                        f"MainNet.{theirs}.conv{source + 1}{target + 1}{suffix}"
                    )
    merge = "MainNet.merge_tail"
    names |= {"aggregator.merge.merge": f"{merge}.conv_merge"}
    names |= {f"aggregator.merge.paths.{s}.convs.0": f"{merge}.conv{s + 1}3" for s in range(2)}
    names |= {f"aggregator.tail.{i}": f"{merge}.conv_tail{i + 1}" for i in range(2)}
    return names
