"""Calls of every kind: pipelines made in different ways, priors of every layout and precision, arguments of every type.

A call computes the same picture each time, or is refused with a clear error.
"""

import copy
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from def_hub import DEFPipeline
from def_hub.settings import PRESETS, SETTINGS, Settings, resolve

from .helpers.pictures import generator, picture, small

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.03}
REFERENCES = [picture(40, 48), picture(36, 60)]


def make_prior(**changes: Any) -> UNet2DModel:
    """A small unconditional prior like those on the Hub. The weights are always the same."""
    torch.manual_seed(3)
    options = {
        "sample_size": 32,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
    }
    return UNet2DModel(**{**options, **changes}).eval()


def by_hand(tiny_pipe: DEFPipeline, unet: UNet2DModel, prediction: str = "epsilon") -> DEFPipeline:
    scheduler = DDPMScheduler(prediction_type=prediction)
    pipe = DEFPipeline(unet=unet, scheduler=scheduler, refsr=tiny_pipe.refsr)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def result(pipe: DEFPipeline, size: tuple[int, int] = (20, 24), **options: Any) -> torch.Tensor:
    """A call with two references and an image larger than the prior's window, so that windows share statistics."""
    return pipe(small(*size), REFERENCES, generator=generator(), output_type="pt", **options).images[0]


@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
@pytest.mark.parametrize(
    ("prediction", "changes"),
    (
        ("epsilon", {}),
        ("v_prediction", {}),
        ("epsilon", {"out_channels": 6}),  # with a learned variance
        ("sample", {"sample_size": (32, 32), "in_channels": 6}),  # conditioned on A†y
        ("epsilon", {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}),
    ),
)
def test_a_prior_computes_the_same_in_every_layout_and_precision(
    tiny_pipe: DEFPipeline, prediction: str, changes: dict[str, Any], precision: str
) -> None:
    plain = result(by_hand(tiny_pipe, make_prior(**changes), prediction), precision="float32")
    assert plain.isfinite().all()
    for prepare in (
        lambda unet: unet,
        lambda unet: unet.to(memory_format=torch.channels_last),
        lambda unet: unet.to(torch.bfloat16),
        lambda unet: unet.to(torch.float16),
    ):
        unet = prepare(make_prior(**changes))
        actual = result(by_hand(tiny_pipe, unet, prediction), precision=precision)
        kind = "float32" if unet.dtype == torch.float32 else "bfloat16"
        assert (actual - plain).abs().mean() < max(TOLERANCE[precision], TOLERANCE[kind])


def test_a_prior_with_class_labels_or_weights_of_another_type_is_refused(tiny_pipe: DEFPipeline) -> None:
    with pytest.raises(ValueError, match="class labels"):
        result(by_hand(tiny_pipe, make_prior(num_class_embeds=10)))
    with pytest.raises(ValueError, match="float32, float16 or bfloat16, got torch.float64"):
        result(by_hand(tiny_pipe, make_prior().double()))


@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
def test_copied_saved_and_compiled_pipelines_give_the_same_bytes(
    tiny_pipe: DEFPipeline, tmp_path: Any, precision: str
) -> None:
    expected = result(tiny_pipe, precision=precision)
    tiny_pipe.save_pretrained(tmp_path)
    pipes = [copy.deepcopy(tiny_pipe), DEFPipeline.from_pretrained(tmp_path)]
    pipes.append(DEFPipeline.from_pretrained(tmp_path, refsr=torch.compile(tiny_pipe.refsr, backend="eager")))
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        assert (result(pipe, precision=precision) - expected).abs().max() < TOLERANCE[precision]
    assert torch.equal(result(pipes[0], precision=precision), expected)


@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
def test_threads_that_share_a_pipeline_do_not_disturb_each_other(tiny_pipe: DEFPipeline, precision: str) -> None:
    sizes = [(20, 24), (9, 12), (24, 20)]
    separate = [result(tiny_pipe, size, precision=precision) for size in sizes]
    actual: dict[int, torch.Tensor] = {}

    def call(number: int) -> None:
        actual[number] = result(tiny_pipe, sizes[number], precision=precision)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(separate):
        assert torch.equal(actual[number], expected)


@pytest.mark.parametrize("one", (1, np.int64(1), np.uint8(1), torch.tensor(1), torch.tensor([1]), 1.0))
def test_whole_numbers_of_any_type_are_accepted(tiny_pipe: DEFPipeline, one: Any) -> None:
    expected = result(tiny_pipe, (8, 8))
    assert torch.equal(result(tiny_pipe, (8, 8), num_inference_steps=one), expected)
    assert resolve(num_inference_steps=one).num_inference_steps == 1


def test_a_list_of_generators_has_one_for_each_image(tiny_pipe: DEFPipeline) -> None:
    images = [small(8, 8), small(9, 12)]
    both = tiny_pipe(images, generator=[generator(1), generator(2)], output_type="pt").images
    for image, seed, actual in zip(images, (1, 2), both, strict=True):
        assert torch.equal(tiny_pipe(image, generator=[generator(seed)], output_type="pt").images[0], actual)
    with pytest.raises(ValueError, match="generator: expected one for each of 2 images, got 1"):
        tiny_pipe(images, generator=[generator()])


def test_without_a_generator_results_follow_the_callers_seed(tiny_pipe: DEFPipeline) -> None:
    def seeded() -> torch.Tensor:
        torch.manual_seed(7)
        return tiny_pipe(small(8, 8), output_type="pt", eta=0.5, num_inference_steps=3).images[0]

    first = seeded()
    torch.manual_seed(7)
    torch.randint(2**63 - 1, (), dtype=torch.int64)  # a call draws one number
    state = torch.get_rng_state()
    assert torch.equal(seeded(), first)
    assert torch.equal(torch.get_rng_state(), state)
    again = tiny_pipe(small(8, 8), output_type="pt", eta=0.5, num_inference_steps=3).images[0]
    assert not torch.equal(again, first)  # the caller's random state has advanced


def test_one_of_several_images_may_have_no_references(tiny_pipe: DEFPipeline) -> None:
    output = tiny_pipe([small(8, 8), small(8, 8)], [[REFERENCES[0]], None], generator=generator())
    assert [p.shape[0] for p in output.provenance] == [3, 2]


def test_torchs_default_dtype_does_not_matter(tiny_pipe: DEFPipeline) -> None:
    expected = result(tiny_pipe)
    torch.set_default_dtype(torch.float64)
    try:
        actual = result(tiny_pipe)
    finally:
        torch.set_default_dtype(torch.float32)
    assert actual.dtype == torch.float32 and (actual - expected).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    (
        ({"generator": 42}, TypeError, "generator: expected a torch.Generator or a list of them, got int"),
        ({"generator": [42]}, TypeError, "generator: expected a torch.Generator"),
        ({"preset": ["fast"]}, TypeError, "preset: expected one of fast, balanced, detail"),
        ({"eta": "0.5"}, TypeError, "eta: expected a number, got '0.5'"),
        ({"num_inference_steps": True}, TypeError, "num_inference_steps: expected a whole number, got True"),
        ({"consistency": 1}, TypeError, "consistency: expected True or False, got 1"),
        ({"callback_on_step_end": 3}, TypeError, "callback_on_step_end: expected a function, got int"),
        ({"callback_on_stage": "x"}, TypeError, "callback_on_stage: expected a function, got str"),
        ({"callback_on_step_end": lambda *_: [1]}, TypeError, "expected a dictionary or None back, got list"),
        ({"reference": [[picture(32, 32)], None]}, ValueError, "one list for each of 1 images, got 2"),
        ({"num_inference_step": 2}, TypeError, "no setting 'num_inference_step'; did you mean 'num_inference_steps'"),
        ({"strength": 0.5}, TypeError, "no setting 'strength'; did you mean '(reference|prior)_strength'"),
        ({"start": 0.0}, ValueError, r"start must lie in \(0, 1\], got 0.0"),
        ({"turns": 3}, ValueError, "turns must be one of 1, 2, 4, got 3"),
        ({"step": 0}, ValueError, "step must lie in"),
        ({"prior_strength": 2}, ValueError, "prior_strength must lie in"),
        ({"eta": float("nan")}, ValueError, "eta must lie in"),
    ),
)
def test_invalid_arguments_are_refused_before_any_work(
    tiny_pipe: DEFPipeline, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny_pipe(**{"image": small(8, 8), "reference": None, **change})


@pytest.fixture
def loud_pipe(tiny_pipe: DEFPipeline) -> DEFPipeline:
    """A pipeline whose networks change the image visibly. Freshly initialised networks return their input."""
    for parameter in tiny_pipe.refsr.aggregator.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=generator())
    return tiny_pipe


@pytest.mark.parametrize("setting", [s.name for s in SETTINGS])
def test_every_setting_of_a_preset_can_be_overridden(loud_pipe: DEFPipeline, setting: str) -> None:
    """An override in the call has the same effect as a preset with that value."""
    other = {
        "scale": 2,
        "degradation": "noise5",
        "num_inference_steps": 2,
        "eta": 0.5,
        "start": 0.5,
        "prior_strength": 0.7,
        "matching_image": "enhanced",
        "step": 4,
        "turns": 1,
        "refsr": "refsr_detail",
        "reference_strength": 0.5,
        "refine": False,
        "consistency": False,
        "window_mode": "replace",
        "precision": "bfloat16",
    }[setting]
    assert getattr(PRESETS["balanced"], setting) != other
    assert getattr(resolve("balanced", **{setting: other}), setting) == other
    run = partial(loud_pipe, small(24, 32), picture(96, 128), output_type="pt")  # the reference matches the image
    always: dict[str, Any] = {"num_inference_steps": 2} if setting == "eta" else {}
    actual = run(generator=generator(), **always).images[0]
    if setting == "refsr":
        loud_pipe.register_modules(refsr_detail=copy.deepcopy(loud_pipe.refsr))
        torch.nn.init.normal_(loud_pipe.refsr_detail.aggregator.tail[-1].weight, std=0.2)
    changed = run(generator=generator(), **always, **{setting: other}).images[0]
    assert changed.shape != actual.shape or not torch.equal(changed, actual)


def test_a_preset_is_a_single_entry_in_settings(loud_pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", Settings(step=4, summary="for a test"))
    assert torch.equal(result(loud_pipe, preset="quick"), result(loud_pipe, step=4, turns=1))
    assert Settings(**PRESETS["quick"].as_dict()).as_dict() == PRESETS["quick"].as_dict()
