"""VGG19 of torchvision or timm → `VGG19Features`, the extractor of def-base, which ends at relu3_1."""

from __future__ import annotations

import re

import torch

from def_hub.convert.checkpoint import StateDict, take
from def_hub.reference.features import VGG19Features, make_extractor

# number within `features` → our name
LAYERS = {0: "conv1_1", 2: "conv1_2", 5: "conv2_1", 7: "conv2_2", 10: "conv3_1"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


def convert_vgg19(state: StateDict) -> VGG19Features:
    """The extractor "vgg19_imagenet": it takes images in [0, 1] and pads with zeros as the original does.

    torchvision and timm both call the tensors `features.N.weight`. Names without the prefix `features.` are accepted,
    too. Layers after relu3_1 are dropped. ImageNet's normalisation (mean and deviation) becomes `conv0`.

    Raises:
        ValueError: for VGG19 with batch normalisation, for VGG16, and for any other network.
    """
    features = {name.removeprefix("features."): value for name, value in state.items()}
    if any(re.fullmatch(r"\d+\.running_mean", name) for name in features):
        raise ValueError("VGG19 with batch normalisation: def-base uses the plain VGG19 (vgg19, not vgg19_bn)")
    if "17.weight" in features and "16.weight" not in features:
        raise ValueError("VGG16, not VGG19: its third and fourth stages have three convolutions each")
    extractor = make_extractor("vgg19_imagenet")
    assert isinstance(extractor, VGG19Features)
    ours = extractor.state_dict()
    result = normalisation(MEAN, STD)
    for number, name in LAYERS.items():
        for kind in ("weight", "bias"):
            result[f"{name}.{kind}"] = take(features, f"{number}.{kind}", ours[f"{name}.{kind}"].shape)
    extractor.load_state_dict(result)
    return extractor.eval()


def normalisation(mean: tuple[float, ...], std: tuple[float, ...]) -> StateDict:
    """The tensors of a `conv0` that maps x to (x - mean) / std, channel by channel."""
    scale = 1 / torch.tensor(std)
    return {"conv0.weight": torch.diag(scale)[:, :, None, None], "conv0.bias": -torch.tensor(mean) * scale}
