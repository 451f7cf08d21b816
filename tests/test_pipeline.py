"""The whole pipeline: with tiny random components, and the embedded default on a real example."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from def_hub import DEFOutput, DEFPipeline, images
from def_hub.observation.downsample import Downsample
from def_hub.provenance import provenance_shares

from .helpers.pictures import generator, picture, small

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


pytestmark = pytest.mark.usefixtures("each_precision")


@pytest.mark.parametrize("size", ((8, 8), (13, 29), (32, 9)))
def test_any_size_is_enlarged_four_times(tiny_pipe: DEFPipeline, size: tuple[int, int]) -> None:
    references = [picture(43, 70), picture(9, 8)]
    output = tiny_pipe(small(*size), references, generator=generator(), output_type="pt")
    height, width = 4 * size[0], 4 * size[1]
    assert output.images[0].shape == output.enhanced[0].shape == output.transferred[0].shape == (3, height, width)
    assert output.confidence[0].shape == size and output.correspondence[0].shape == (3, *size)
    assert output.provenance[0].shape == (4, height, width)
    assert torch.allclose(output.provenance[0].sum(0), torch.ones(height, width), atol=1e-5)
    index, x, y = output.correspondence[0]
    for k, (h, w) in enumerate(((40, 68), (8, 8))):  # cropped to multiples of four
        here = index == k
        assert (x[here] <= w).all() and (y[here] <= h).all()


def test_the_result_downsamples_to_the_input(tiny_pipe: DEFPipeline) -> None:
    """Measured with Pillow: on the 8-bit result, and on each channel in floating point."""
    truth = Image.fromarray((picture(96, 128)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    lr = truth.resize((32, 24), Image.Resampling.BICUBIC)
    output = tiny_pipe(lr, picture(64, 64), generator=generator())
    again = output.images[0].resize(lr.size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(again, dtype=int) - np.asarray(lr, dtype=int)).max() <= 2
    for plane, known in zip(output.images[0].split(), lr.split(), strict=True):
        again = plane.convert("F").resize(lr.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(again) - np.asarray(known)).max() <= min(2, output.consistency_error[0] + 1e-3)
    free = tiny_pipe(lr, picture(64, 64), generator=generator(), consistency=False)
    assert free.consistency_error[0] > 2


def test_the_same_seed_gives_the_same_bytes(tiny_pipe: DEFPipeline) -> None:
    a, b, c = (tiny_pipe(small(12, 10), picture(40, 40), generator=generator(s), preset="detail") for s in (3, 3, 4))
    assert a.images[0].tobytes() == b.images[0].tobytes() != c.images[0].tobytes()


def test_save_and_load_gives_identical_output(tiny_pipe: DEFPipeline, tmp_path: Path) -> None:
    tiny_pipe.save_pretrained(tmp_path)
    again = DEFPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    a, b = (p(small(12, 10), picture(40, 40), generator=generator()).images[0] for p in (tiny_pipe, again))
    assert a.tobytes() == b.tobytes()
    assert not list(tmp_path.rglob("*.bin"))


def test_reference_strength_zero_is_no_reference(tiny_pipe: DEFPipeline) -> None:
    without = tiny_pipe(small(12, 10), generator=generator())
    silent = tiny_pipe(small(12, 10), picture(40, 40), generator=generator(), reference_strength=0.0)
    assert without.images[0].tobytes() == silent.images[0].tobytes()
    assert without.transferred == [None] and (without.correspondence[0] == -1).all()


def test_masks_decide_where_references_are_used_and_which_parts_of_them(tiny_pipe: DEFPipeline) -> None:
    image, sharp = small(24, 32), picture(96, 128)
    run = partial(tiny_pipe, image, sharp, output_type="pt")
    mask = torch.zeros(1, 24, 32)
    mask[..., 16:] = 1
    half = run(generator=generator(), mask=mask)
    assert not half.confidence[0][:, :16].any() and half.confidence[0][:, 16:].mean() > 0.3
    part = torch.zeros(1, 96, 128)
    part[..., :48, :] = 1
    upper = run(generator=generator(), reference_mask=part)
    y = upper.correspondence[0][2]
    assert upper.confidence[0].max() > 0.3
    assert (upper.confidence[0][y >= 48] == 0).all()
    without_reference, none = (
        tiny_pipe(image, generator=generator()),
        tiny_pipe(image, sharp, reference_mask=[torch.zeros(1, 96, 128)], generator=generator()),
    )
    assert without_reference.images[0].tobytes() == none.images[0].tobytes()


def test_masks_of_batches_follow_their_references(tiny_pipe: DEFPipeline) -> None:
    image, sharp, black = small(12, 12), picture(48, 48), torch.zeros(1, 48, 48)
    every = {"refine": False}  # so that random pictures have confident matches
    references, masks = [[sharp[0]], [sharp[0], sharp[0]]], [[black], [black, None]]
    both = tiny_pipe([image[0], image[0]], references, reference_mask=masks, **every)
    assert not both.confidence[0].any() and both.confidence[1].any()
    assert (both.correspondence[1][0][both.confidence[1] > 0] == 1).all()
    late = tiny_pipe([image[0], image[0]], sharp, mask=[None, torch.zeros(1, 12, 12)], **every)
    assert late.confidence[0].any() and not late.confidence[1].any()


def test_a_reference_does_not_change_the_noise_of_the_image(tiny_pipe: DEFPipeline) -> None:
    a = tiny_pipe(small(12, 10), generator=generator(), output_type="pt").enhanced[0]
    b = tiny_pipe(small(12, 10), picture(40, 40), generator=generator(), output_type="pt").enhanced[0]
    assert torch.equal(a, b)


def test_batches_with_references_of_their_own(tiny_pipe: DEFPipeline) -> None:
    output = tiny_pipe([small(8, 8), small(9, 12)], [[picture(32, 32)], []], generator=generator())
    assert [i.size for i in output.images] == [(32, 32), (48, 36)]
    assert [p.shape[0] for p in output.provenance] == [3, 2]
    shared = tiny_pipe([small(8, 8), small(9, 12)], picture(32, 32), generator=generator())
    assert [p.shape[0] for p in shared.provenance] == [3, 3]


def test_output_types_agree(tiny_pipe: DEFPipeline) -> None:
    pil, array, tensor = (
        tiny_pipe(small(8, 8), generator=generator(), output_type=t).images[0]  # type: ignore[arg-type]
        for t in ("pil", "np", "pt")
    )
    assert np.array_equal(array, tensor.permute(1, 2, 0).numpy())
    assert np.array_equal(np.asarray(pil), (array * 255).round().astype(np.uint8))


@pytest.mark.parametrize("scale", [2, 4, 6])
def test_transparency_is_enlarged(tiny_pipe: DEFPipeline, tmp_path: Path, scale: int) -> None:
    """Pillow images have it; below it, colours go on: white or black would leave a rim. Opaque pictures stay so."""
    glass = np.zeros((16, 24, 4), np.uint8)
    glass[:, :12] = (200, 60, 40, 255)
    Image.fromarray(glass).save(tmp_path / "glass.png")
    opaque = images.read_photo(tmp_path / "glass.png").picture
    assert (opaque - opaque[..., :1]).abs().max() < 1e-5

    def call(*photos: Any, output_type: Any) -> DEFOutput:
        numbers = [torch.Generator() for _ in photos]
        return tiny_pipe(photos, preset="fast", scale=scale, generator=numbers, output_type=output_type)

    pil, pt = (call(tmp_path / "glass.png", opaque, output_type=kind) for kind in ("pil", "pt"))
    assert [image.mode for image in pil.images] == ["RGBA", "RGB"] and pt.alpha[1] is None
    assert pil.images[0].size == (24 * scale, 16 * scale)
    assert pt.images[0].shape == (3, 16 * scale, 24 * scale) and pt.alpha[0].shape == (1, 16 * scale, 24 * scale)
    assert pt.alpha[0][..., : 10 * scale].min() > 0.99 and pt.alpha[0][..., 14 * scale :].max() < 0.01
    assert np.array_equal(np.asarray(pil.images[0])[..., 3], pt.alpha[0][0].mul(255).round().numpy())
    assert np.array_equal(np.asarray(pil.images[0])[..., :3], np.asarray(pil.images[1]))


def test_arguments_override_the_preset(tiny_pipe: DEFPipeline) -> None:
    from def_hub.settings import PRESETS

    def timesteps(**options: Any) -> list[int]:
        seen: list[int] = []
        tiny_pipe(small(8, 8), callback_on_step_end=lambda p, s, t, k: seen.append(t), **options)
        return seen

    assert len(timesteps(preset="detail")) == PRESETS["detail"].num_inference_steps
    assert len(timesteps(preset="detail", num_inference_steps=2)) == 2


def test_stages_are_reported_and_an_exception_in_a_callback_ends_the_call(tiny_pipe: DEFPipeline) -> None:
    reported: list[str] = []
    tiny_pipe([small(8, 8)] * 2, [[picture(16, 16)], []], callback_on_stage=lambda pipe, stage: reported.append(stage))
    assert reported == ["enhance", "match", "transfer", "restore", "enhance", "transfer", "restore"]

    def enough(pipe: DEFPipeline, stage: str) -> None:
        if stage == "transfer":
            raise InterruptedError("no longer wanted")

    tiny_pipe.refsr.transfer[0].register_forward_hook(lambda *_: reported.append("transferred"))
    with pytest.raises(InterruptedError):
        tiny_pipe(small(8, 8), picture(16, 16), callback_on_stage=enough)
    assert "transferred" not in reported


def test_tuple_and_callback(tiny_pipe: DEFPipeline) -> None:
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    def callback(pipe: DEFPipeline, step: int, timestep: int, kwargs: dict[str, torch.Tensor]) -> dict:
        assert pipe is tiny_pipe
        seen.append((step, timestep, tuple(kwargs["x0"].shape)))
        return {"x0": torch.full_like(kwargs["x0"], 0.5)}

    output: Any = tiny_pipe(
        small(8, 8), num_inference_steps=3, callback_on_step_end=callback, return_dict=False, output_type="pt"
    )
    assert isinstance(output, tuple)
    assert seen == [(0, 999, (1, 3, 32, 32)), (1, 666, (1, 3, 32, 32)), (2, 333, (1, 3, 32, 32))]
    assert torch.allclose(output[1][0], torch.tensor(0.5))  # the estimate that the callback returned


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"preset": "best"}, "preset must be one of fast, balanced, detail, got 'best'"),
        ({"num_inference_steps": -1}, "num_inference_steps"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number"),
        ({"eta": -0.1}, "eta"),
        ({"reference_strength": 1.1}, "reference_strength must lie in"),
        ({"matching_image": "sharp"}, "matching_image"),
        ({"output_type": "latent"}, "output_type"),
        ({"window_mode": "crop"}, "window_mode"),
        ({"image": torch.rand(3, 7, 20)}, "image"),
        ({"image": torch.rand(3, 20, 20) * 255}, "image"),
        ({"reference": torch.rand(3, 5, 5)}, "reference"),
        ({"reference": [[], []]}, "one list for each of 1 images"),
        ({"mask": torch.ones(1, 8, 9)}, "mask: expected the size 8x8 of its picture, got 9x8"),
        ({"mask": [None, None]}, "mask: expected one for each of 1 images, got 2"),
        ({"reference_mask": torch.ones(1, 8, 8)}, "reference_mask: expected a reference for it, got none"),
        (
            {"reference": [torch.rand(3, 8, 8)] * 2, "reference_mask": torch.ones(1, 8, 8)},
            "each of 2 references, got 1",
        ),
        (
            {"reference": [torch.rand(3, 8, 8)] * 2, "reference_mask": [None, torch.ones(1, 8, 12)]},
            "reference_mask 2: expected the size 8x8",
        ),
    ),
)
def test_wrong_inputs_are_refused_before_any_work(
    tiny_pipe: DEFPipeline, change: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the network was called")

    monkeypatch.setattr(tiny_pipe.unet, "forward", work)
    with pytest.raises((ValueError, TypeError), match=message):
        tiny_pipe(**{"image": small(8, 8), "reference": None, **change})


def test_a_scheduler_without_a_noise_schedule_is_refused(tiny_pipe: DEFPipeline) -> None:
    tiny_pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="alphas_cumprod"):
        tiny_pipe(small(8, 8))


def test_half_precision_and_variant(tiny_pipe: DEFPipeline, tmp_path: Path) -> None:
    tiny_pipe.to(dtype=torch.float16)
    tiny_pipe.save_pretrained(tmp_path, variant="fp16")
    wide = DEFPipeline.from_pretrained(tmp_path, variant="fp16", dtype=torch.float32)
    narrow = DEFPipeline.from_pretrained(tmp_path, variant="fp16", dtype=torch.bfloat16)
    assert wide.unet.dtype == torch.float32 and narrow.refsr.dtype == torch.bfloat16
    a, b = (p(small(16, 16), picture(64, 64), generator=generator(), output_type="pt") for p in (wide, narrow))
    assert (a.enhanced[0] - b.enhanced[0]).abs().mean() < 0.02
    assert b.consistency_error[0] <= 2  # the operators compute in float32


def test_provenance_of_a_reference_that_changes_nothing() -> None:
    y, operator = small(8, 8), Downsample()
    without_reference = operator.pinv(y)
    shares = provenance_shares(operator, y, without_reference, without_reference, None, 1)
    assert torch.equal(shares[2], torch.zeros(32, 32)) and shares[0].min() > 0.99


# ------------------------------------------------------------------ the embedded default


@pytest.fixture
def street(pipe: DEFPipeline) -> DEFOutput:
    return pipe(EXAMPLES / "street_lr.png", EXAMPLES / "street_ref1.jpg", generator=generator())


@pytest.mark.slow
def test_the_embedded_default_restores(street: DEFOutput, pipe: DEFPipeline) -> None:
    """Better than bicubic by a margin, better with references than without, and consistent with the input."""
    truth = np.asarray(Image.open(EXAMPLES / "street_hr.webp").convert("RGB"), dtype=float)
    lr = Image.open(EXAMPLES / "street_lr.png").convert("RGB")

    def psnr(image: Image.Image) -> float:
        return -10 * np.log10(((np.asarray(image, dtype=float) - truth) ** 2).mean() / 255**2)

    bicubic = psnr(lr.resize(street.images[0].size, Image.Resampling.BICUBIC))
    without_reference = psnr(pipe(lr, generator=generator()).images[0])
    assert psnr(street.images[0]) > without_reference > bicubic + 0.5
    again = np.asarray(street.images[0].resize(lr.size, Image.Resampling.BICUBIC), dtype=int)
    assert np.abs(again - np.asarray(lr, dtype=int)).max() <= 2 and street.consistency_error[0] <= 2
    assert street.provenance[0][2].mean() > 0.05


def test_the_embedded_default_is_small_and_safe() -> None:
    from def_hub.pipeline import EMBEDDED

    if not EMBEDDED.exists():
        pytest.skip(f"no weights in {EMBEDDED}")
    files = list(EMBEDDED.rglob("*"))
    assert not [f for f in files if f.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]
    assert sum(f.stat().st_size for f in files if f.suffix == ".safetensors") <= 32e6


@pytest.mark.parametrize("placing", [{"device_map": "cpu"}, {"device_map": "balanced"}, {"low_cpu_mem_usage": False}])
def test_every_way_to_load_gives_the_same_result(pipe: DEFPipeline, placing: dict[str, Any]) -> None:
    """Options of Accelerate. The default loads with little memory."""
    lr = Image.open(EXAMPLES / "street_lr.png").crop((0, 0, 24, 20))
    placed = DEFPipeline.from_pretrained(**placing)
    wanted, found = (p(lr, lr, generator=generator()).images[0].tobytes() for p in (pipe, placed))
    assert wanted == found


def test_the_precision_is_the_requested_one(tiny_pipe: DEFPipeline) -> None:
    seen: list[torch.dtype] = []
    for network in (tiny_pipe.unet.conv_in, tiny_pipe.refsr.aggregator.trunk[0].conv1):
        network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run = partial(tiny_pipe, small(12, 10), picture(40, 40), output_type="pt")
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        seen.clear()
        out = run(generator=generator(), precision=precision)
        assert set(seen) == {dtype}
        assert out.images[0].dtype == out.correspondence[0].dtype == torch.float32
        assert out.consistency_error[0] < 2
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16"):
        run(precision="float16")
