"""Training on degraded pictures: networks that are told start as those that are not; teachers are asked once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from def_hub.config import DegradationConfig, ReferenceConfig, TeacherName, load_config
from def_hub.data import SampleStream, degraded_pair, drawn, observed, open_source
from def_hub.diffusion.denoiser import Denoiser
from def_hub.evaluation.baselines.hitsrf import HiTSRF
from def_hub.evaluation.baselines.rlfn import RLFN
from def_hub.evaluation.baselines.rrdb import RRDBNet
from def_hub.observation.degradation import PLANES, Degradation
from def_hub.observation.downsample import Downsample
from def_hub.reference.matching import Correspondence
from def_hub.reference.network import ReferenceNetwork
from def_hub.reference.restoring.aggregation import FoldedAggregator
from def_hub.training import run
from def_hub.training.given import degrade, given
from def_hub.training.growing import load_grown
from def_hub.training.reference import ReferenceTask
from def_hub.training.teacher import Taught, Teacher

from .conftest import make_unet
from .helpers.pictures import picture
from .test_diffusion import SCHEDULE
from .test_training import COMMON, PRIOR, REFERENCE, write

OPERATOR = Downsample()
TOLD = len(PLANES)


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """With weights that are nowhere zero."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return module


def test_a_larger_network_that_is_told_starts_as_the_smaller_one() -> None:
    torch.manual_seed(0)
    y, enhanced = torch.rand(1, 3, 10, 12), torch.rand(1, 3, 40, 48)
    small = shaken(ReferenceNetwork("mini", (8, 4, 3), (2, 1, 1, 1), folded=True))
    large = ReferenceNetwork("mini", (8, 4, 3), (5, 1, 1, 1), folded=True, known=TOLD)
    load_grown(large, small.state_dict())
    expected = small.estimate(y, enhanced).once
    planes = torch.rand(1, TOLD, 10, 12)
    for seen in (y, torch.cat((y, planes), dim=1)):  # what the planes say is not yet understood
        assert torch.allclose(large.estimate(seen, enhanced).once, expected, atol=1e-5)
    told = shaken(large)
    without, with_zeros, with_planes = (
        told.estimate(seen, enhanced).once
        for seen in (y, torch.cat((y, 0 * planes), dim=1), torch.cat((y, planes), dim=1))
    )
    assert torch.equal(without, with_zeros) and not torch.allclose(without, with_planes)


def test_weights_that_do_not_fit_are_refused() -> None:
    wide = FoldedAggregator((8, 4, 3), 8, (2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"init: head.weight is \[4, 51, 3, 3\]"):
        load_grown(wide, FoldedAggregator((8, 4, 3), 4, (2, 1, 1, 1)).state_dict())
    with pytest.raises(ValueError, match="no place for trunk.2.conv1.weight"):
        load_grown(wide, FoldedAggregator((8, 4, 3), 8, (3, 1, 1, 1)).state_dict())
    with pytest.raises(ValueError, match="the weights lack mask.bias"):
        load_grown(wide, {k: v for k, v in wide.state_dict().items() if k != "mask.bias"})


@pytest.mark.parametrize(("pixels", "patch"), ((3, 1), (48, 4)))
def test_a_prior_that_is_told_starts_as_one_that_is_not(pixels: int, patch: int) -> None:
    torch.manual_seed(0)
    untold, told = make_unet(2 * pixels, pixels), make_unet(2 * pixels + TOLD, pixels)
    load_grown(told, untold.state_dict())
    small, large = (Denoiser(unet, SCHEDULE) for unet in (untold, told))
    assert (large.patch, large.known, large.conditioned) == (patch, TOLD, True)
    x, condition, planes = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), torch.rand(1, TOLD, 32, 32)
    expected = small(x, 500, condition)
    for given_condition in (condition, torch.cat((condition, planes), dim=1)):
        assert torch.allclose(large(x, 500, given_condition), expected, atol=1e-5)


def test_degraded_samples(workplace: Path) -> None:
    config = load_config(write("run", "prior", PRIOR, 1))
    sources = [open_source(s, 32, config.data.holdout) for s in config.data.sources]
    mix = DegradationConfig()
    stream, again = (SampleStream(sources, config.data, 3, paired=False, degradation=mix) for _ in range(2))
    samples = [stream[i] for i in range(40)]
    assert all(torch.equal(sample[k], again[i][k]) for i, sample in enumerate(samples[:8]) for k in sample)
    assumed = [sample for sample in samples if sample["exact"] == 0]
    assert not any(sample["known"].any() for sample in assumed)
    clean = [
        sample
        for sample in assumed
        if (sample["y"] - OPERATOR.forward(sample["image"][None])[0].clamp(0, 1)).abs().max() <= 1.01 / 255
    ]
    assert 5 <= len(clean) <= 22  # a third
    assert 0 <= len(assumed) - len(clean) <= 8  # shrunk by another filter, which was not found
    assert sum(bool(sample["known"].any()) for sample in samples) > 15
    assert samples[0]["known"].shape == (TOLD, 8, 8)


def test_a_run_file_names_its_degradations(workplace: Path) -> None:
    body = PRIOR + '[degradation]\nnames = ["noise6+jpeg60", "nearest"]\nclean = 0.25\nspread = 0.2\n'
    config = load_config(write("run", "prior", body, 1)).degradation
    assert config is not None
    rng = np.random.default_rng(1)
    made = [drawn(config, rng) for _ in range(200)]
    assert 30 < sum(degradation == Degradation() for degradation in made) < 70
    phones = [degradation for degradation in made if degradation.noise]
    assert 55 < len(phones) < 95 and {d.kernel for d in made} == {"bicubic", "nearest"}
    assert all(2 < d.noise < 13 and d.quality is not None and 20 < d.quality < 80 for d in phones)
    assert len({d.noise for d in phones}) == len(phones)
    with pytest.raises(ValueError, match="degradation: expected clean, jpegQ"):
        drawn(replace(config, names=("foggy",), clean=0.0), rng)


def test_only_images_that_were_merely_shrunk_are_projected() -> None:
    image = picture(32, 32)[0]
    samples = [{"image": image, **observed(image, Degradation.parse(name))} for name in ("clean", "box", "noise15")]
    of = given({key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}, TOLD)
    estimate = torch.rand(3, 3, 32, 32, requires_grad=True)
    projected = of.project(estimate, of.y)
    for i, operator in enumerate((OPERATOR, Downsample("box"))):
        assert torch.allclose(operator.forward(projected[i : i + 1]), of.y[i : i + 1], atol=1e-5)
    assert torch.equal(projected[2], estimate[2])
    (gradient,) = torch.autograd.grad(projected[2].sum() + projected[1].square().sum(), estimate)
    assert gradient[2].eq(1).all() and gradient[1].any() and not gradient[0].any()


@pytest.fixture
def teacher(workplace: Path) -> Path:
    """Random weights of the teacher's network."""
    torch.manual_seed(0)
    save_file(HiTSRF().state_dict(), "teacher.safetensors")
    return Path("teacher.safetensors")


def test_a_teacher_is_asked_once(workplace: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(write("run", "prior", PRIOR, 1))
    pairs, photos = (open_source(s, 32, config.data.holdout) for s in config.data.sources)
    first = Taught(photos, 32, Teacher(teacher), Path("cache"))
    expected = first[1]
    assert torch.equal(expected, first[1]) and not torch.equal(expected, first[0])
    second = Taught(photos, 32, Teacher(teacher), Path("cache"))

    def refuse(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(second, "teacher", refuse)
    assert torch.equal(second[1], expected)
    second.source = pairs  # other pictures: what is on disk is not theirs
    with pytest.raises(AssertionError, match="asked again"):
        second[1]


@pytest.mark.parametrize(("name", "network"), [("hitsrf", HiTSRF), ("rlfn", RLFN), ("rrdb", RRDBNet)])
def test_teachers_see_the_clean_small_picture(
    workplace: Path, name: TeacherName, network: type[torch.nn.Module]
) -> None:
    torch.manual_seed(1)
    made = network().eval()
    save_file(made.state_dict(), "other.safetensors")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = made(degrade(image)).clamp(0, 1)
    assert torch.equal(Teacher(Path("other.safetensors"), name)(image), expected)


def test_a_trunk_learns_from_degraded_pictures_and_a_teacher(workplace: Path, teacher: Path) -> None:
    alone = ("size = 32", "size = 32\nmissing = 1.0\nunrelated = 0.0")
    run(write("extractor", "extractor", COMMON, 1))
    run(write("prior", "prior", PRIOR.replace(*alone) + f"known = {TOLD}\n[degradation]\n", 2))
    assert "psnr_jpeg40" in Path("prior/validation.csv").read_text()
    body = REFERENCE.replace(*alone) + f'known = {TOLD}\nteacher = "{teacher}"\n[degradation]\n'
    folder = run(write("trunk", "reference", body, 40, lr=5e-3))
    losses = [float(line.split(",")[1]) for line in Path("trunk/train.csv").read_text().splitlines()[1:]]
    assert sum(losses[-10:]) < sum(losses[:10])
    network = ReferenceNetwork.from_pretrained(folder / "refsr")
    assert network.config.known == TOLD and network.aggregator.head.weight[:, -TOLD:].any()
    assert "psnr_phone" in Path("trunk/validation.csv").read_text()
    outputs = sorted(Path("cache").glob("taught-*.npy"))
    assert len(outputs) == 4  # of two sources, with their checksums


@pytest.mark.slow
def test_references_are_degraded_as_the_image_is(workplace: Path, teacher: Path) -> None:
    """Enhanced and matched once, as whole pairs; a teacher fills in what no reference shows."""
    run(write("extractor", "extractor", COMMON, 1))
    run(write("prior", "prior", PRIOR + f"known = {TOLD}\n", 1))
    body = REFERENCE.replace("size = 32", "size = 32\nunrelated = 0.3\nmissing = 0.2")
    body += f'known = {TOLD}\nmatch_once = true\nteacher = "{teacher}"\n[degradation]\n'
    config = load_config(write("pairs", "reference", body, 3))
    run(config)
    caches = sorted(Path("cache").glob("*.npy"))
    assert len(caches) == 2 * 3 + 2 * 2  # of two sources: enhanced, matched, mismatched; taught and checksums
    run(write("again", "reference", body, 2))
    assert sorted(Path("cache").glob("*.npy")) == caches
    sources = [open_source(s, 32, config.data.holdout) for s in config.data.sources]
    assert config.degradation is not None
    stream = SampleStream(sources, config.data, 1, degradation=config.degradation)
    for index in range(len(sources[0])):
        first, second = (degraded_pair(sources[0], index, config.degradation) for _ in range(2))
        assert torch.equal(first["y"], second["y"]) and torch.equal(first["y_reference"], second["y_reference"])
        for name, whole in (("y", sources[0][index].image), ("y_reference", sources[0][index].reference)):
            shrunk = 255 * OPERATOR.forward(whole[None].float() / 255)[0]
            assert (first[name].float() - shrunk).mean((1, 2)).abs().max() < 12  # colours stay what they are
    noisy = [sample for sample in (stream[i] for i in range(30)) if sample["known"][0].mean() > 0.3]
    assert noisy  # what is done to the image is done to its reference
    for sample in noisy:
        shrunk = OPERATOR.forward(sample["reference"][None])[0]
        assert (sample["y_reference"] - shrunk).std() > 0.015


def test_the_target_is_the_teacher_s_where_no_reference_shows_more(workplace: Path) -> None:
    task = ReferenceTask(ReferenceConfig(extractor="mini", features=(8, 4, 3), blocks=(1, 1, 1, 1), teaching=0.5), [])
    batch = {"image": torch.zeros(1, 3, 32, 32), "taught": torch.ones(1, 3, 32, 32)}
    assert torch.allclose(task._target(batch, None), torch.tensor(0.5))
    matches = found_nowhere(8, 8)
    sure = replace(matches, confidence=torch.ones(1, 1, 8, 8))
    assert torch.allclose(task._target(batch, matches), torch.tensor(0.5))
    assert torch.allclose(task._target(batch, sure), torch.tensor(0.0), atol=1e-6)


def found_nowhere(height: int, width: int) -> Correspondence:
    """Matches that are not trusted at all."""
    frame = torch.eye(2).view(1, 2, 2, 1, 1).expand(1, 2, 2, height, width)
    nothing = torch.zeros(1, 1, height, width)
    return Correspondence(nothing[:, 0].long(), nothing.expand(1, 2, height, width), nothing, frame)
