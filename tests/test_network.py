"""Extractors, aggregation and the Ref-SR network. At confidence 0 the output does not depend on the reference."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from def_hub.observation.downsample import Downsample
from def_hub.reference.features import MiniFeatures, VGG19Features, in_bands, make_extractor
from def_hub.reference.matching import Views
from def_hub.reference.network import ReferenceNetwork
from def_hub.reference.restoring.aggregation import Aggregator, FoldedAggregator, Resample, Texture
from def_hub.reference.restoring.transfer import spread

from .helpers.pictures import picture
from .helpers.restoring import restore

OPERATOR = Downsample()


@pytest.mark.parametrize("name", ("mini", "vgg19"))
def test_pyramid_shapes(name: str) -> None:
    extractor = make_extractor(name)  # type: ignore[arg-type]
    maps = extractor(torch.rand(1, 3, 36, 52))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 36 // s, 52 // s) for c, s in zip(extractor.channels, (1, 2, 4), strict=True)
    ]


def test_the_first_level_of_mini_contains_the_pixels() -> None:
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(MiniFeatures()(image)[0][:, :3] + 0.5, image)


def test_vgg_is_the_published_network(shared_data: Path) -> None:
    """relu1_1 equals an explicit convolution with the teacher's weights."""
    extractor = VGG19Features.from_safetensors(shared_data.parent / "weights/vgg19_normalised_relu3_1.safetensors")
    image = torch.rand(1, 3, 16, 16)
    flat = F.conv2d(image, extractor.conv0.weight, extractor.conv0.bias)
    expected = F.conv2d(F.pad(flat, (1, 1, 1, 1), mode="reflect"), extractor.conv1_1.weight, extractor.conv1_1.bias)
    assert torch.allclose(extractor(image)[0], expected.relu(), atol=1e-5)


def test_unknown_extractor() -> None:
    with pytest.raises(ValueError, match="'vgg19_imagenet' or 'mini'"):
        make_extractor("resnet")  # type: ignore[arg-type]


@pytest.mark.parametrize(("source", "target"), ((4, 1), (4, 2), (2, 1), (1, 4), (1, 2), (2, 4)))
def test_resample_changes_the_stride(source: int, target: int) -> None:
    x = torch.rand(1, 8, 48 // source, 32 // source)
    assert Resample(8, 6, source, target)(x).shape == (1, 6, 48 // target, 32 // target)


def make_aggregator(kind: type) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind is FoldedAggregator:
        aggregator = FoldedAggregator((8, 4, 3), 8, (1, 1, 1, 1))
    else:
        aggregator = Aggregator((8, 4, 3), (8, 8, 8), (1, 1, 1, 1))
    for parameter in aggregator.parameters():  # freshly initialised, its output is zero
        torch.nn.init.normal_(parameter, std=0.1)
    return aggregator


@pytest.mark.parametrize("kind", (Aggregator, FoldedAggregator))
def test_zero_confidence_means_no_influence(kind: type) -> None:
    aggregator = make_aggregator(kind)
    y, enhanced = torch.rand(1, 3, 9, 7), torch.rand(1, 3, 36, 28)

    def run(confidence: float, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        sizes = ((8, 9, 7), (4, 18, 14), (3, 36, 28))
        features = [torch.rand(1, *s, generator=generator) for s in sizes]
        return aggregator(y, enhanced, Texture(features, [torch.full((1, 1, *s[1:]), confidence) for s in sizes]))

    assert torch.equal(run(0.0, 1), run(0.0, 2))
    assert torch.equal(run(0.0, 1), aggregator(y, enhanced, None))
    assert (run(1.0, 1) - run(1.0, 2)).abs().max() > 1e-3  # otherwise the test above could not fail


def make_network(folded: bool) -> ReferenceNetwork:
    torch.manual_seed(0)
    network = ReferenceNetwork("mini", (8, 8, 8), (1, 1, 1, 1), folded=folded, match_estimate=folded)
    for parameter in network.aggregator.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


def views(image: torch.Tensor, sharp: bool = False) -> Views:
    y = OPERATOR.forward(image)
    return Views(OPERATOR.upsample(y), OPERATOR.pinv(y).clamp(0, 1), image if sharp else None)


@pytest.mark.parametrize("folded", (False, True))
@torch.no_grad()
def test_strength_zero_is_no_reference(folded: bool) -> None:
    network, image = make_network(folded), picture(48, 64)
    y = OPERATOR.forward(image)
    references = [views(picture(40, 72), sharp=True), views(picture(64, 32), sharp=True)]
    plain = restore(network, y, views(image))
    silent = restore(network, y, views(image), references, strength=0.0)
    loud = restore(network, y, views(image), references)
    assert torch.equal(silent.sr, plain.sr) and plain.matches is None
    assert torch.equal(loud.without_reference, plain.sr)
    assert (loud.sr - plain.sr).abs().max() > 1e-4
    assert loud.matches is not None and loud.matches.reference.max() <= 1


@pytest.mark.parametrize("folded", (False, True))
@torch.no_grad()
def test_where_no_reference_is_trusted_the_result_is_the_mean_over_orientations(folded: bool) -> None:
    network, image = make_network(folded), picture(48, 64)
    y, reference = OPERATOR.forward(image), [views(picture(40, 72), sharp=True)]
    seen = views(image)
    each = []
    for k in range(4):
        turned = Views(*(x.rot90(k, (-2, -1)) for x in (seen.bicubic, seen.enhanced)))
        each.append(restore(network, y.rot90(k, (-2, -1)), turned).sr.rot90(-k, (-2, -1)))
    assert (each[0] - each[1]).abs().max() > 1e-3
    assert torch.allclose(restore(network, y, seen, turns=4).sr, sum(each) / 4, atol=1e-5)
    assert torch.allclose(restore(network, y, seen, turns=2).sr, (each[0] + each[2]) / 2, atol=1e-5)
    once, turned = restore(network, y, seen, reference), restore(network, y, seen, reference, turns=4)
    silent = restore(network, y, seen, reference, strength=0.0, turns=4)
    assert torch.allclose(silent.sr, turned.without_reference, atol=1e-5)
    trust = spread(once.matches.confidence, 1)
    assert torch.allclose(
        turned.sr, once.sr + (1 - trust) * (turned.without_reference - once.without_reference), atol=1e-5
    )


@pytest.mark.parametrize("folded", (False, True))
@torch.no_grad()
def test_tiles_give_the_same_result_as_one_piece(folded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = make_network(folded), picture(160, 224)
    y, references = OPERATOR.forward(image), [views(picture(160, 144), sharp=True)]
    whole = restore(network, y, views(image), references)
    monkeypatch.setattr("def_hub.reference.network.TILE", 64)
    tiles = restore(network, y, views(image), references)
    assert (whole.without_reference - tiles.without_reference).abs().max() < 1e-5
    assert (whole.sr - tiles.sr).abs().max() < 1e-5


@pytest.mark.parametrize("folded", (False, True))
def test_everything_but_the_extractor_learns(folded: bool) -> None:
    network, image = make_network(folded), picture(32, 32)
    restore(network, OPERATOR.forward(image), views(image), [views(image, sharp=True)]).sr.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.startswith("feature_extractor"), name


@pytest.mark.parametrize("folded", (False, True))
def test_save_and_load(folded: bool, tmp_path: Path) -> None:
    network = make_network(folded)
    network.save_pretrained(tmp_path)
    again = ReferenceNetwork.from_pretrained(tmp_path)
    assert again.config.folded == folded and tuple(again.config.features) == (8, 8, 8)
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_def_base_has_the_sizes_of_the_paper() -> None:
    """VGG19 up to relu3_1, 64 channels, 16+16+8+4 blocks. It runs, and the result is four times as large."""
    with torch.device("meta"):
        network = ReferenceNetwork()
    assert network.feature_extractor.channels == (64, 128, 256)
    assert [len(stage) for stage in network.aggregator.stages] == [1, 2, 3]
    assert len(network.aggregator.trunk) == 16
    assert [len(stage[0]) for stage in network.aggregator.stages] == [16, 8, 4]
    y = torch.rand(1, 3, 8, 8, device="meta")
    enhanced = torch.rand(1, 3, 32, 32, device="meta")
    assert restore(network, y, Views(enhanced, enhanced)).sr.shape == (1, 3, 32, 32)


def test_bands_give_the_same_features_as_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("def_hub.reference.features.BAND", 64)
    torch.manual_seed(0)
    image = torch.rand(1, 3, 212, 36)
    for extractor in (make_extractor("mini"), make_extractor("vgg19")):
        sizes: list[int] = []
        extractor.register_forward_pre_hook(lambda _, x, sizes=sizes: sizes.append(x[0].shape[2]))
        with torch.no_grad():
            whole, bands = extractor(image)[-2:], in_bands(extractor, image, 2)
        assert len(bands) == 2 and max(sizes[1:]) == 64 + 2 * 32
        for a, b in zip(whole, bands, strict=True):
            torch.testing.assert_close(b, a)
