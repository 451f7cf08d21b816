"""`perceptual`: the published value, what must be true of a distance, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from def_hub.evaluation.perceptual import LPIPS

from .helpers.pictures import generator, picture


@pytest.fixture
def untrained() -> LPIPS:
    """Random features, and heads that are positive as the published ones are."""
    torch.manual_seed(0)
    metric = LPIPS().eval()
    with torch.no_grad():
        for name, parameter in metric.named_parameters():
            if name.startswith("lin"):
                parameter.abs_()
    return metric


@torch.no_grad()
def test_the_published_value(shared_weights: Path) -> None:
    """The functional example of torchmetrics 1.9.0: two batches of noise from seed 42 in [-1, 1] are 0.1005 apart."""
    metric = LPIPS.from_file(shared_weights / "lpips_squeeze_v0.1.safetensors")
    torch.manual_seed(42)
    first, second = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    distance = metric((first + 1) / 2, (second + 1) / 2)
    assert distance.shape == (10,) and distance.mean().item() == pytest.approx(0.1005, abs=5e-5)


@torch.no_grad()
def test_it_is_a_distance(untrained: LPIPS) -> None:
    a = picture(40, 52)
    b = (a + 0.1 * torch.randn(a.shape, generator=generator())).clamp(0, 1)
    assert untrained(a, a).item() == 0
    assert 0 < untrained(a, b).item() == pytest.approx(untrained(b, a).item(), rel=1e-5)
    assert untrained(a, (a + b) / 2).item() < untrained(a, b).item()
    pair = untrained(torch.cat((a, b)), torch.cat((b, b)))
    assert pair.tolist() == pytest.approx([untrained(a, b).item(), 0], rel=1e-4)


@torch.no_grad()
def test_the_smallest_picture(untrained: LPIPS) -> None:
    assert torch.isfinite(untrained(picture(17, 17), picture(17, 17).flip(3))).all()
    with pytest.raises(ValueError, match="at least 17×17 pixels"):
        untrained(picture(16, 17), picture(16, 17))
    with pytest.raises(ValueError, match="of one shape"):
        untrained(picture(20, 20), picture(20, 21))


def test_weights_are_read_strictly(untrained: LPIPS, tmp_path: Path) -> None:
    state = untrained.state_dict()
    save_file(state, tmp_path / "whole.safetensors")
    a, b = picture(24, 24), picture(24, 24).flip(2)
    with torch.no_grad():
        assert torch.equal(LPIPS.from_file(tmp_path / "whole.safetensors")(a, b), untrained(a, b))
    save_file({name: value for name, value in state.items() if "lin3" not in name}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"1 missing \(such as lin3.model.1.weight\)"):
        LPIPS.from_file(tmp_path / "part.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        LPIPS.from_file(tmp_path / "absent.safetensors")
