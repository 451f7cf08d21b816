"""`baselines`: published sizes, published numbers where the weights are at hand, strict loading."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from def_hub.convert.checkpoint import load_strictly
from def_hub.evaluation import benchmark
from def_hub.evaluation.baselines import BASELINES
from def_hub.evaluation.baselines.hitsrf import HiTSRF
from def_hub.evaluation.baselines.rlfn import RLFN
from def_hub.evaluation.baselines.rrdb import RRDBNet, basicsr_name
from def_hub.evaluation.datasets import load_dataset
from def_hub.evaluation.methods import Network
from def_hub.evaluation.rows import summarise

from .helpers.pictures import picture

SIZES: dict[Callable[[], nn.Module], int] = {
    RLFN: 543_740,  # paper: 543 K
    HiTSRF: 866_420,  # paper: 866 K
    RRDBNet: 16_697_987,  # ESRGAN: 16.7 M
}


@pytest.mark.parametrize("network", SIZES)
def test_parameter_counts_are_the_published_ones(network: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network().parameters()) == SIZES[network]


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
    ],
)
@torch.inference_mode()
def test_any_size_is_enlarged_by_four(make: Callable[[], nn.Module], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    result = make().eval()(picture(*size))
    assert result.shape == (1, 3, 4 * size[0], 4 * size[1]) and torch.isfinite(result).all()


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
