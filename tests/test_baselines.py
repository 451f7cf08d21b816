"""`baselines`: published sizes, published numbers where the weights are at hand, strict loading."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from def_hub.convert.checkpoint import load_strictly
from def_hub.evaluation import benchmark
from def_hub.evaluation.baselines import BASELINES, c2_matching, masa, patches, srcnn
from def_hub.evaluation.baselines.c2_matching import C2Matching
from def_hub.evaluation.baselines.edsr import EDSR, edsr_baseline
from def_hub.evaluation.baselines.hitsrf import HiTSRF
from def_hub.evaluation.baselines.masa import MASA
from def_hub.evaluation.baselines.rlfn import RLFN
from def_hub.evaluation.baselines.rrdb import RRDBNet, basicsr_name
from def_hub.evaluation.baselines.srcnn import SRCNN
from def_hub.evaluation.baselines.srntt import SRNTT
from def_hub.evaluation.baselines.srresnet import SRResNet
from def_hub.evaluation.baselines.ttsr import TTSR
from def_hub.evaluation.datasets import load_dataset
from def_hub.evaluation.methods import Network
from def_hub.evaluation.metrics import luma
from def_hub.evaluation.rows import summarise
from def_hub.observation.downsample import Downsample

from .helpers import foreign
from .helpers.pictures import generator, picture

# What is published, in millions, and the tolerance of its rounding. Without fixed feature extractors, but TTSR, which
# counts the one that it trains.
SIZES: dict[Callable[[], nn.Module], tuple[float, float]] = {
    SRCNN: (0.057, 0.0005),
    edsr_baseline: (1.5, 0.05),
    EDSR: (43, 0.5),
    SRResNet: (1.5, 0.05),
    RRDBNet: (16.7, 0.05),
    RLFN: (0.543, 0.001),
    HiTSRF: (0.866, 0.001),
    SRNTT: (5.75, 0.005),
    MASA: (4.03, 0.005),
    lambda: C2Matching().net_g: (8.87, 0.005),
    TTSR: (6.73, 0.005),
}


@pytest.mark.parametrize("make", SIZES)
def test_parameter_counts_are_the_published_ones(make: Callable[[], nn.Module]) -> None:
    network = make()
    counted = network.parameters() if make is TTSR else (p for p in network.parameters() if p.requires_grad)
    published, tolerance = SIZES[make]
    assert sum(parameter.numel() for parameter in counted) / 1e6 == pytest.approx(published, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "file", "psnr", "ssim"),
    [
        ("rlfn", "rlfn_x4", 32.10, 0.895),
        ("hitsrf", "hitsrf_x4", 32.44, 0.899),
        ("rrdb", "realsr_df2k_rrdb_x4", 30.34, 0.854),
    ],
)
@torch.inference_mode()
def test_known_numbers_on_set5(
    shared_data: Path, shared_weights: Path, name: str, file: str, psnr: float, ssim: float
) -> None:
    """Every detail of a definition is right when the published weights give the published number."""
    network = BASELINES[name].load(shared_weights / f"{file}.safetensors")
    dataset = load_dataset(shared_data / "eval-dev" / "Set5")
    tasks, _ = benchmark.plan([Network(name, network)], [dataset], ["none"])
    (summary,) = summarise(benchmark.run(tasks))
    assert (round(summary.psnr, 2), round(summary.ssim, 3)) == (psnr, ssim)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (RLFN, (15, 22)),
        (lambda: HiTSRF(features=20, layers=1, heads=2), (3, 70)),  # one side far under a window, one over
        (lambda: RRDBNet(features=8, blocks=1, growth=4), (5, 7)),
        (SRCNN, (8, 9)),
        (lambda: EDSR(features=8, blocks=1), (3, 5)),
        (lambda: SRResNet(features=8, blocks=1), (3, 5)),
    ],
)
@torch.inference_mode()
def test_any_size_is_enlarged_by_four(make: Callable[[], nn.Module], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    result = make().eval()(picture(*size))
    assert result.shape == (1, 3, 4 * size[0], 4 * size[1]) and torch.isfinite(result).all()


REFERENCED: list[Callable[[], nn.Module]] = [
    lambda: SRNTT(features=8, blocks=1),
    lambda: MASA(features=8, encoder=(1, 1, 1), decoder=(1, 1, 1, 1, 1, 1)),
    lambda: C2Matching(features=8, blocks=1),
    lambda: C2Matching(features=8, blocks=1, descriptors=False),
    lambda: TTSR(features=8, blocks=(1, 1, 1, 1)),
]


@pytest.mark.parametrize("make", REFERENCED)
@torch.inference_mode()
def test_references_of_any_size_are_used(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = make().eval()
    image, sizes = picture(9, 14), ((40, 40), (61, 93), (33, 130), (12, 16))
    results = [network(image, [picture(*size).flip(1)]) for size in sizes]
    assert all(result.shape == (1, 3, 36, 56) and torch.isfinite(result).all() for result in results)
    assert all(not torch.equal(results[0], result) for result in results[1:])


@pytest.mark.parametrize("make", REFERENCED)
def test_a_batch_is_its_parts_and_can_be_trained(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = make()
    images = torch.cat((picture(10, 12), picture(10, 12).flip(2)))
    references = torch.cat((picture(40, 48).flip(1), picture(40, 48)))
    both = network(images, [references])
    for number in range(2):
        alone = network(images[number : number + 1], [references[number : number + 1]])
        assert torch.allclose(both[number], alone[0], atol=1e-5)
    both.square().mean().backward()
    learned = [p for p in network.parameters() if p.requires_grad]
    # SRNTT's own enlargement, which a reference replaces, is the one part that a reference leaves out
    unused = {id(p) for name, p in network.named_parameters() if ".content_extractor.tail." in name}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learned if id(p) not in unused)


@pytest.mark.parametrize("network", [MASA, C2Matching, TTSR])
def test_what_cannot_do_without_a_reference_says_so(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="needs a reference"):
        network()(picture(8, 8), [])


@torch.inference_mode()
def test_patches_are_found_where_they_are() -> None:
    key = torch.randn(1, 5, 12, 17, generator=generator())
    query = key[:, :, 3:9, 4:12]
    index, similarity = patches.match(query, key)
    assert index.shape == (1, 4, 6) and torch.allclose(similarity, torch.ones(()), atol=1e-5)
    rows, columns = torch.meshgrid(torch.arange(3, 7), torch.arange(4, 10), indexing="ij")
    assert torch.equal(index[0], rows * 15 + columns)
    fine = torch.randn(1, 2, 24, 34, generator=generator(1))
    assert torch.allclose(patches.transfer(fine, index, 2, border=0), fine[:, :, 6:18, 8:24], atol=1e-6)
    assert torch.allclose(patches.transfer(fine, index, 2, border=1), fine[:, :, 8:16, 10:22], atol=1e-6)


@torch.inference_mode()
def test_masa_carries_over_what_matches() -> None:
    """Features that are a part of the reference's own come from there, at every level."""
    key, fine, finest = (torch.randn(2, 4, 40 * s, 56 * s, generator=generator(s)) for s in (1, 2, 4))
    query = key[:, :, 5:29, 10:42]
    warped = masa._warp(query, key, (finest, fine, key))
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    expected = (finest[:, :, 20:116, 40:168], fine[:, :, 10:58, 20:84], query)
    # a block's border cells also take from patches that reach beyond the picture's own border
    for found, true, scale in zip(warped, expected, (4, 2, 1), strict=True):
        inside = (slice(None), slice(None), slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
        assert torch.allclose(found[inside], true[inside], atol=1e-4), scale
    assert warped[2][inner].shape == (2, 4, 22, 30)


@torch.inference_mode()
def test_c2_matching_reads_where_the_match_is() -> None:
    """With untrained offsets the deformable convolution is half a convolution at the matched place."""
    torch.manual_seed(0)
    layer = c2_matching._Deformable(16)
    texture, guide = torch.randn(2, 16, 9, 11), torch.randn(2, 16, 9, 11)
    still = layer(texture, guide, torch.zeros(2, 9, 2, 9, 11))
    assert torch.allclose(still, F.conv2d(texture, layer.weight / 2, layer.bias, padding=1), atol=1e-5)
    start = torch.tensor([2.0, -1.0]).view(1, 1, 2, 1, 1).expand(2, 9, 2, 9, 11)  # two right, one up
    moved = F.conv2d(F.pad(texture, (-1, 3, 2, 0)), layer.weight / 2, layer.bias)  # zeros beyond the border
    assert torch.allclose(layer(texture, guide, start), moved, atol=1e-5)
    # of a reference that is the picture itself, moved by one cell, every inner patch says so
    key = torch.randn(1, 5, 10, 12)
    index, _ = patches.match(key[:, :, 1:, :-1], key)
    flow = c2_matching._flow(index, 10)
    assert flow.shape == (1, 2, 9, 11) and (flow[0, 0, :-2, :-2] == 0).all() and (flow[0, 1, :-2, :-2] == 1).all()
    offsets = c2_matching._offsets(flow, 2)
    assert offsets.shape == (1, 9, 2, 18, 22) and (offsets[0, :, 1, 4:14, 4:18] == 2).all()


def test_rlfn_refuses_what_is_too_small() -> None:
    with pytest.raises(ValueError, match="at least 15×15"):
        RLFN()(picture(14, 20))


def test_weights_are_read_strictly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved, other = (RRDBNet(features=8, blocks=1, growth=4) for _ in range(2))
    state = saved.state_dict()
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "half.safetensors")
    assert not load_strictly(other, tmp_path / "half.safetensors").training
    assert all(torch.equal(value, state[name].half().float()) for name, value in other.state_dict().items())
    torch.save({"params": {name.replace("body.0", "body.1"): v for name, v in state.items()}}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"30 missing \(such as body.0.*30 left over \(such as body.1"):
        load_strictly(other, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="of another shape"):
        load_strictly(RRDBNet(features=8, blocks=1, growth=5), tmp_path / "half.safetensors")


def test_the_original_names_of_esrgan_are_understood(tmp_path: Path) -> None:
    network = RRDBNet(features=8, blocks=2, growth=4)
    original = {
        name.replace("body.", "RRDB_trunk.", 1).replace(".rdb", ".RDB") if name.startswith("body.") else name: value
        for name, value in network.state_dict().items()
    }
    original["trunk_conv.weight"] = original.pop("conv_body.weight")
    original["trunk_conv.bias"] = original.pop("conv_body.bias")
    for kind in ("weight", "bias"):
        original[f"HRconv.{kind}"] = original.pop(f"conv_hr.{kind}")
        for number in (1, 2):
            original[f"upconv{number}.{kind}"] = original.pop(f"conv_up{number}.{kind}")
    torch.save(original, tmp_path / "RRDB_ESRGAN_x4.pth")
    loaded = load_strictly(RRDBNet(features=8, blocks=2, growth=4), tmp_path / "RRDB_ESRGAN_x4.pth", basicsr_name)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_parts_may_come_in_a_file_each(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = SRNTT()
    torch.save({"state_dict": saved.srntt.state_dict()}, tmp_path / "srntt.pth")
    save_file(saved.vgg.state_dict(), tmp_path / "vgg.safetensors")
    save_file(saved.state_dict(), tmp_path / "whole.safetensors")
    files = [str(tmp_path / name) for name in ("srntt.pth", "vgg.safetensors", "whole.safetensors")]
    for loaded in (BASELINES["srntt"].load(*files[:2]), BASELINES["srntt"].load(files[2])):
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in saved.state_dict().items())
    with pytest.raises(ValueError, match="SRNTT: expected one file, or one each for srntt, vgg, got 3 files"):
        BASELINES["srntt"].load(*files)


@torch.inference_mode()
def test_ttsr_gives_what_its_authors_code_gives(tmp_path: Path) -> None:
    """A checkpoint of theirs, of any size, read from its file, against an independent writing of their code."""
    state = foreign.ttsr_state(width=4)
    torch.save(state, tmp_path / "TTSR-rec.pt")
    network = BASELINES["ttsr"].load(str(tmp_path / "TTSR-rec.pt"))
    image, reference, operator = picture(9, 14), picture(42, 57).flip(1), Downsample("bicubic", 4)
    whole = reference[..., :40, :56]
    softened = operator.upsample(operator.forward(whole))
    expected = foreign.ttsr(state, image, operator.upsample(image), whole, softened)
    assert expected.std() > 0.05 and torch.allclose(network(image, [reference]), expected, atol=1e-4)


def test_luma_alone_is_sharpened() -> None:
    """SRCNN leaves the colour to bicubic enlargement: Cb and Cr stay."""
    torch.manual_seed(0)
    image = picture(12, 14, torch.float64)
    network = SRCNN().double()
    result, large = network(image), Downsample("bicubic", 4).upsample(image)
    for weights in srcnn.CHROMA:
        chroma = [(x * torch.tensor(weights).double().view(3, 1, 1)).sum(1) for x in (result, large)]
        assert torch.allclose(*chroma, atol=1e-3)
    assert (luma(result) - luma(large)).abs().max() > 1
