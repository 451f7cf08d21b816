"""Converted networks agree with independent implementations of the originals (`helpers/foreign.py`)."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from def_hub.convert import convert_adm, convert_ttsr, convert_vgg19, read_checkpoint
from def_hub.diffusion.denoiser import Denoiser
from def_hub.observation.downsample import Downsample
from def_hub.reference.matching import Views

from .helpers import foreign
from .helpers.pictures import picture
from .helpers.restoring import restore

TOLERANCE = 1e-4  # the outputs are about 1; float32 sums in another order differ by less


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())


@pytest.mark.parametrize(
    "adm",
    (
        foreign.ADM(),
        foreign.ADM(new_order=True),
        foreign.ADM(scale_shift=False),
        foreign.ADM(resblock_updown=False, layers=2),
        foreign.ADM(multipliers=(1, 1, 2, 3), attention=(False, False, True, False), layers=2),
        foreign.ADM(width=64, multipliers=(1, 2), attention=(True, True), head=64),
    ),
)
@torch.no_grad()
def test_adm(adm: foreign.ADM) -> None:
    state = adm.random_state()
    unet, scheduler = convert_adm(state, image_size=32, head_channels=adm.head, new_attention_order=adm.new_order)
    x, timestep = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([17, 900])
    expected = adm(state, x, timestep)
    assert expected.std() > 0.3  # otherwise agreement would prove nothing
    assert largest(unet(x, timestep).sample, expected) < TOLERANCE
    other = replace(adm, new_order=not adm.new_order)
    assert largest(other(state, x, timestep), expected) > 10 * TOLERANCE  # the order of heads matters

    # the prior's estimate: the variance is dropped
    denoiser = Denoiser(unet, scheduler.alphas_cumprod, scheduler.config.prediction_type)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)[17].float()
    noise = adm(state, x, torch.tensor([17, 17]))[:, :3]
    estimate = (x - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()
    assert largest(denoiser(x, 17, torch.zeros_like(x)), estimate) < TOLERANCE


def test_adm_cosine_schedule_is_that_of_the_published_code() -> None:
    _, scheduler = convert_adm(foreign.ADM().random_state(), head_channels=32, schedule="cosine")

    def bar(t: float) -> float:
        return float(torch.cos(torch.tensor((t + 0.008) / 1.008 * torch.pi / 2, dtype=torch.float64)) ** 2)

    beta = torch.tensor([min(1 - bar((i + 1) / 1000) / bar(i / 1000), 0.999) for i in range(1000)])
    assert largest(scheduler.betas, beta) < 1e-6


def test_adm_refuses_what_cannot_be_represented() -> None:
    adm = foreign.ADM()
    state = adm.random_state()
    wide = state | {"time_embed.0.weight": torch.zeros(128, 64)}
    some = {k: v for k, v in state.items() if not k.startswith("output_blocks.1.1.")}
    extra = state | {"middle_block.3.weight": torch.zeros(1)}
    cases: list[tuple[dict, dict[str, Any], str]] = [
        (state | {"label_emb.weight": torch.zeros(10, 128)}, {}, "class-conditional"),
        ({"encoder_pool.0.weight": torch.zeros(1)} | state, {}, "classifier"),
        (wide, {}, "time embedding of 64 channels with 32 at the first level"),
        (some, {"head_channels": 32}, "attention: expected it in all blocks of a level or in none"),
        (extra, {"head_channels": 32}, "1 tensors have no place in a UNet2DModel, such as middle_block.3.weight"),
        (state, {"head_channels": 48}, "48 does not divide the 64 channels"),
        (foreign.ADM(multipliers=(1, 2, 3)).random_state(), {"heads": 2}, "the same number of channels in every head"),
        (state, {"schedule": "sigmoid"}, "'linear' or 'cosine'"),
        ({"conv1.weight": torch.zeros(1)}, {}, "not a guided-diffusion U-Net"),
    ]
    for broken, options, message in cases:
        with pytest.raises(ValueError, match=message):
            convert_adm(broken, **options)


@pytest.mark.parametrize(
    ("adm", "size", "tensors", "names", "gigabytes"),
    (
        # 256×256, unconditional: the file has 2.211 GB
        (
            foreign.ADM(256, (1, 1, 2, 2, 4, 4), (False,) * 3 + (True,) * 3, layers=2, head=64),
            256,
            566,
            "77e18ded5689d791",
            2.2113,
        ),
        # the network of the 64×64 model, without its classes
        (
            foreign.ADM(192, (1, 2, 3, 4), (False, True, True, True), layers=3, head=64, new_order=True),
            64,
            540,
            "ae3a20bfb8ea5939",
            None,
        ),
    ),
)
def test_adm_of_the_published_sizes(
    monkeypatch: pytest.MonkeyPatch, adm: foreign.ADM, size: int, tensors: int, names: str, gigabytes: float | None
) -> None:
    """Names and shapes alone, without storage. They are those of the published code (unet.py), which was run once to
    write down the sha256 of the list."""
    monkeypatch.setattr(foreign.Weights, "random", lambda self, *shape, scale=1.0: torch.empty(shape))
    with torch.device("meta"):
        state = adm.random_state()
        unet, scheduler = convert_adm(state, image_size=size, new_attention_order=adm.new_order)
    text = "\n".join(f"{name} {list(value.shape)}" for name, value in sorted(state.items()))
    assert (len(state), hashlib.sha256(text.encode()).hexdigest()[:16]) == (tensors, names)
    stored = sum(p.numel() for p in unet.parameters()) * 4
    assert stored == sum(v.numel() for v in state.values()) * 4
    assert gigabytes is None or stored == pytest.approx(gigabytes * 1e9, rel=2e-4)
    assert unet.config.block_out_channels == tuple(adm.width * m for m in adm.multipliers)
    assert unet.config.sample_size == size and scheduler.config.beta_end == 0.02


@torch.no_grad()
def test_adm_with_a_fixed_number_of_heads() -> None:
    adm = foreign.ADM(head=16)  # 64 channels at every attention: four heads
    state = adm.random_state()
    x, timestep = torch.randn(1, 3, 16, 16), torch.tensor([5])
    unet, _ = convert_adm(state, heads=4)
    assert largest(unet(x, timestep).sample, adm(state, x, timestep)) < TOLERANCE


@torch.no_grad()
def test_vgg19() -> None:
    state = foreign.vgg19_state(shrink=16)
    image = torch.rand(1, 3, 24, 36, generator=torch.Generator().manual_seed(1))
    expected = foreign.vgg19(state, image)
    bare = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    for names in (state, bare):
        for actual, wanted in zip(convert_vgg19(names)(image), expected, strict=True):
            assert largest(actual, wanted) < TOLERANCE and wanted.max() > 1  # at the border, too


def test_networks_other_than_vgg19_are_refused() -> None:
    state = foreign.vgg19_state(shrink=16)
    vgg16 = {k.replace("features.16.", "features.17."): v for k, v in state.items()}
    for broken, message in (
        (state | {"features.1.running_mean": torch.zeros(64)}, "batch normalisation"),
        (vgg16, "VGG16"),
        ({"layer1.0.weight": torch.zeros(1)}, "expected a tensor 0.weight"),
        (state | {"features.5.weight": torch.zeros(96, 64, 3, 3)}, r"expected 5.weight of shape \[128, 64, 3, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_vgg19(broken)


@pytest.mark.parametrize(("size", "scale"), (((36, 52), 1.0), ((64, 24), 0.7)))
@torch.no_grad()
def test_ttsr(size: tuple[int, int], scale: float) -> None:
    """Search, transfer and integration together, with a reference of another size than the image."""
    state = foreign.ttsr_state()
    network = convert_ttsr(state, residual_scale=scale)
    operator = Downsample()
    truth, sharp = picture(40, 44), picture(*size)
    y, small = operator.forward(truth), operator.forward(sharp)
    views = Views(operator.upsample(y), operator.pinv(y))
    reference = Views(operator.upsample(small), operator.pinv(small), sharp)
    actual = restore(network, y, views, [reference], matching_image="bicubic", refine=False)
    expected = foreign.ttsr(state, y, views.bicubic, sharp, reference.bicubic, scale)
    assert expected.std() > 0.05
    assert largest(actual.sr, expected) < TOLERANCE
    assert largest(actual.without_reference, expected) > 10 * TOLERANCE  # so the reference has an influence
    silent = restore(network, y, views, [reference], matching_image="bicubic", refine=False, strength=0.0)
    assert largest(silent.sr, silent.without_reference) == 0


@torch.no_grad()
def test_ttsr_with_two_references_takes_cells_of_both() -> None:
    network = convert_ttsr(foreign.ttsr_state())
    operator = Downsample()
    truth = picture(32, 64)
    y = operator.forward(truth)
    halves = [truth[..., :32], truth[..., 32:]]
    views = Views(operator.upsample(y), operator.pinv(y))
    references = []
    for half in halves:
        small = operator.forward(half)
        references.append(Views(operator.upsample(small), operator.pinv(small), half))
    actual = restore(network, y, views, references, matching_image="bicubic", refine=False)
    assert set(actual.matches.reference.unique().tolist()) == {0, 1}
    one = restore(network, y, views, references[:1], matching_image="bicubic", refine=False)
    assert largest(actual.sr, one.sr) > 1e-3


@torch.no_grad()
def test_ttsr_gives_the_same_result_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger images are aggregated in tiles. The margin must cover the receptive field of TTSR's convolutions."""
    monkeypatch.setattr("def_hub.reference.network.TILE", 256)
    state = foreign.ttsr_state(blocks=(1, 0, 0, 0))
    network = convert_ttsr(state)
    operator = Downsample()
    truth, sharp = picture(64, 480), picture(64, 96)
    y, small = operator.forward(truth), operator.forward(sharp)
    views = Views(operator.upsample(y), operator.pinv(y))
    reference = Views(operator.upsample(small), operator.pinv(small), sharp)
    actual = restore(network, y, views, [reference], matching_image="bicubic", refine=False)
    assert largest(actual.sr, foreign.ttsr(state, y, views.bicubic, sharp, reference.bicubic)) < TOLERANCE


def test_ttsr_refuses_tensors_that_do_not_fit() -> None:
    state = foreign.ttsr_state()
    missing = {k: v for k, v in state.items() if k != "MainNet.ex123.conv32.bias"}
    for broken, message in (
        (missing, "expected a tensor MainNet.ex123.conv32.bias"),
        (state | {"MainNet.RB11.0.conv3.weight": torch.zeros(1)}, "1 tensors have no place in TTSR"),
        ({}, "MainNet.SFE.conv_head.weight"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_ttsr(broken)


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_foreign_files_cannot_run_code(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(2, 3), "b": torch.rand(4)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}, "epoch": 3}, tmp_path / "a.pt")
    save_file(tensors, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        read = read_checkpoint(tmp_path / name)
        assert set(read) == {"a", "b"} and torch.equal(read["a"], tensors["a"])
    torch.save({"a": tensors["a"], "trap": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "text.safetensors").write_text("no checkpoint")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("trap.pt", "text.pt", "text.safetensors", "list.pt"):
        with pytest.raises(ValueError, match=name):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError, match="absent.pt"):
        read_checkpoint(tmp_path / "absent.pt")
