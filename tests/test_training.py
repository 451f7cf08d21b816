"""Training: a batch is learned; resuming changes nothing; two processes equal one with twice the batch."""

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from def_hub.config import load_config
from def_hub.reference.network import ReferenceNetwork
from def_hub.training import run
from def_hub.training.given import OPERATOR
from def_hub.training.optimizer import Muon
from def_hub.training.prior import load_enhancer

from .helpers.pictures import picture
from .test_losses import tensors

ROOT = Path(__file__).resolve().parents[1]


COMMON = """
seed = 5
[data]
size = 32
holdout = ["garden"]
[[data.sources]]
kind = "pairs"
path = "pairs"
[[data.sources]]
kind = "photos"
path = "photos"
crops = 2
[log]
every = 1
validate = 3
"""

PRIOR = (
    COMMON
    + """
[prior]
channels = [8, 16]
layers = 1
attention = false
patch = 4
conditioned = true
groups = 4
prediction = "sample"
window = 32
final_share = 0.5
"""
)

REFERENCE = (
    COMMON
    + """
[reference]
prior = "prior/export"
extractor_weights = "extractor/export/extractor.safetensors"
extractor = "mini"
features = [8, 4, 3]
blocks = [1, 1, 1, 1]
folded = true
match_estimate = true
cache = "cache"
"""
)


def write(name: str, part: str, body: str, steps: int, batch: int = 4, output: str = "", **optim: object) -> str:
    text = f'part = "{part}"\noutput = "{output or name}"\n' + body + "\n[optim]\n"
    optim = {"steps": steps, "batch": batch, "warmup": 1, "lr": 2e-3, **optim}
    Path(f"{name}.toml").write_text(text + "".join(f"{key} = {value!r}\n" for key, value in optim.items()))
    return f"{name}.toml"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for f in sorted(folder.rglob("*.safetensors")) for k, v in load_file(f).items()}


def test_three_parts_from_data_to_a_network(workplace: Path) -> None:
    run(write("extractor", "extractor", COMMON, 2))
    run(write("prior", "prior", PRIOR, 2))
    folder = run(write("reference", "reference", REFERENCE, 3))
    network = ReferenceNetwork.from_pretrained(folder / "refsr")
    extractor = load_file("extractor/export/extractor.safetensors")
    for key, value in extractor.items():  # the extractor is frozen: it stays as part 1 trained it
        assert torch.equal(network.feature_extractor.state_dict()[key], value)
    header, row = Path("reference/validation.csv").read_text().splitlines()[:2]
    assert header == "step,psnr_true,psnr_none,psnr_unrelated,psnr_bicubic" and row.startswith("3,")
    assert len(list(Path("cache").glob("*.npy"))) == 2
    # another prior uses another cache
    run(write("prior2", "prior", PRIOR, 3))
    body = REFERENCE.replace("prior/export", "prior2/export")
    run(write("reference2", "reference", body, 1))
    assert len(list(Path("cache").glob("*.npy"))) == 4


def test_pairs_can_be_matched_once_for_all_steps(workplace: Path) -> None:
    run(write("extractor", "extractor", COMMON, 2))
    run(write("prior", "prior", PRIOR, 2))
    body = REFERENCE.replace("[log]", "softened = 0.5\n[log]") + "match_once = true\n"
    body = body.replace("size = 32", "size = 32\nunrelated = 0.3")
    run(write("once", "reference", body, 2))
    caches = sorted(Path("cache").glob("*.npy"))
    assert len(caches) == 6  # three for each of two sources: enhanced, matched, matched with unrelated references
    run(write("once-more", "reference", body, 2))
    assert sorted(Path("cache").glob("*.npy")) == caches  # the same network uses the same files
    run(write("other", "reference", body.replace("seed = 5", "seed = 6"), 1))
    assert len(list(Path("cache").glob("*.npy"))) == 10  # other weights use other files


def test_the_baseline_of_the_paper_needs_no_prior(workplace: Path) -> None:
    """The first row of the ablation: bicubic images are matched and restored, features are transferred unchanged."""
    run(write("extractor", "extractor", COMMON, 2))
    body = REFERENCE.replace("prior/export", "bicubic").replace("match_estimate = true", "match_estimate = false")
    body += 'matching_image = "bicubic"\nrefined = false\ndeformable = false\n'
    folder = run(write("base", "reference", body, 3))
    assert not Path("cache").exists()
    network = ReferenceNetwork.from_pretrained(folder / "refsr")
    assert not network.config.deformable and not any("offsets" in name for name in network.state_dict())
    before = torch.zeros(8, 64, 3, 3)
    torch.nn.init.dirac_(before)
    assert not torch.equal(network.transfer[0].weight, before)  # it learns


def test_an_unconditional_prior_can_be_trained_and_restores(workplace: Path) -> None:
    """The paper's kind of prior: it sees only the noisy image, and only the projection connects it to the input."""
    body = PRIOR.replace("conditioned = true", "conditioned = false").replace('"sample"', '"epsilon"')
    folder = run(write("free", "prior", body.replace("patch = 4", "patch = 1"), 3))
    enhancer = load_enhancer(str(folder))
    y = picture(16, 16)
    enhanced = enhancer(y, num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert enhanced.shape == (1, 3, 64, 64)
    assert (OPERATOR.forward(enhanced) - y).abs().max() < 1e-4


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_resume_is_bit_identical(workplace: Path, optimizer: str) -> None:
    run(write("whole", "prior", PRIOR, 6, optimizer=optimizer))
    config = write("halves", "prior", PRIOR, 6, optimizer=optimizer)
    from def_hub.training import trainer

    class Killed(Exception):
        pass

    original = trainer.Trainer._validate

    def killed(self: trainer.Trainer, board: object = None) -> None:  # halfway, after a checkpoint
        self.save()
        raise Killed

    trainer.Trainer._validate = killed  # type: ignore[method-assign]
    try:
        with pytest.raises(Killed):
            run(config)
    finally:
        trainer.Trainer._validate = original  # type: ignore[method-assign]
    (workplace / "halves/checkpoint.part").write_bytes(b"half written")  # as if killed while writing
    run(config)
    one, two = weights(workplace / "whole"), weights(workplace / "halves")
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_gradient_accumulation_equals_the_whole_batch(workplace: Path) -> None:
    """Up to the order of summation in float32."""
    body = REFERENCE.split("[reference]")[0] + TRUNK
    whole = weights(run(write("whole", "reference", body, 3, lr=1e-4)))
    parts = weights(run(write("parts", "reference", body, 3, lr=1e-4, accumulate=2)))
    assert all(torch.allclose(whole[k], parts[k], atol=2e-6) for k in whole)
    with pytest.raises(ValueError, match="a batch of 4 cannot be shared by 1 processes in 3 parts each"):
        run(write("odd", "reference", body, 3, accumulate=3))


def test_half_precision_keeps_float32_weights(workplace: Path) -> None:
    body = REFERENCE.split("[reference]")[0] + TRUNK
    full = weights(run(write("full", "reference", body, 3, lr=1e-4)))
    half = weights(run(write("half", "reference", body, 3, lr=1e-4, precision="bf16")))
    assert all(v.dtype == torch.float32 for v in half.values())
    assert not all(torch.equal(full[k], half[k]) for k in full)
    assert all(torch.allclose(full[k], half[k], atol=1e-3) for k in full)


def test_the_other_losses_start_after_the_reconstruction_loss(workplace: Path) -> None:
    save_file(tensors(), "vgg.safetensors")
    body = REFERENCE.split("[reference]")[0] + TRUNK
    others = 'perceptual = 1e-2\nperceptual_weights = "vgg.safetensors"\nadversarial = 1e-2\nreconstruction_steps = 2\n'
    plain = weights(run(write("plain", "reference", body, 2)))
    alone = weights(run(write("alone", "reference", body + others, 2)))
    assert all(torch.equal(plain[k], alone[k]) for k in plain)
    joined = weights(run(write("joined", "reference", body + others, 4)))
    longer = weights(run(write("longer", "reference", body, 4)))
    assert joined.keys() == plain.keys()  # the critic is not exported
    assert not all(torch.equal(joined[k], longer[k]) for k in joined)
    losses = [float(line.split(",")[1]) for line in Path("joined/train.csv").read_text().splitlines()[1:]]
    assert min(losses[2:]) > max(losses[:2])  # the critic's penalty is far from its optimum
    decides = [Path(run, "validation.csv").read_text().split(",")[1] for run in ("joined", "longer")]
    assert decides == ["nearness_none", "psnr_none"]  # the first score decides the best weights: the training objective


def test_frozen_parameters_stay_unchanged(workplace: Path) -> None:
    body = REFERENCE.split("[reference]")[0] + TRUNK
    start = run(write("start", "reference", body, 2))
    frozen = 'init = "start/export"\nfreeze = ["network.aggregator.trunk", "network.aggregator.head"]\n'
    tuned = weights(run(write("tuned", "reference", frozen + body, 2)))
    before = weights(start)
    changed = {k for k in before if not torch.equal(before[k], tuned[k])}
    assert changed and not any(k.startswith(("aggregator.trunk", "aggregator.head")) for k in changed)
    with pytest.raises(ValueError, match="no parameter begins with 'trunk'; some that exist: network"):
        run(write("wrong", "reference", 'freeze = ["trunk"]\n' + body, 2))


def test_a_loss_that_is_not_finite_names_the_samples(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from def_hub.training.reference import ReferenceTask

    forward, calls = ReferenceTask.forward, iter(range(9))
    monkeypatch.setattr(ReferenceTask, "forward", lambda *a: forward(*a) * (torch.nan if next(calls) == 2 else 1))
    with pytest.raises(FloatingPointError, match=r"nan at step 2, on (pairs|photos)/\d.png"):
        run(write("nan", "reference", REFERENCE.split("[reference]")[0] + TRUNK, 5))


def test_the_best_weights_are_kept_and_shown(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from def_hub.training.reference import ReferenceTask

    scores = iter((1.0, 3.0, 2.0, 2.5))
    monkeypatch.setattr(ReferenceTask, "validate", lambda self: {"psnr_none": next(scores)})
    body = REFERENCE.split("[reference]")[0].replace("validate = 3", "validate = 1") + TRUNK
    run(write("best", "reference", body, 2, average=0.0))
    run(write("more", "reference", 'init = "best/export"\n' + body, 1, average=0.0))
    best, last = weights(Path("best/best")), weights(Path("best/export"))
    assert best.keys() == last.keys() and all(torch.equal(best[k], last[k]) for k in best)
    run(write("best", "reference", body, 3, average=0.0))  # the resumed run knows that 2.5 is not better than 3
    best, last = weights(Path("best/best")), weights(Path("best/export"))
    assert not all(torch.equal(best[k], last[k]) for k in best)
    pytest.importorskip("tensorboard", reason="the extra 'train' is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("best/tensorboard").Reload()
    assert {"train/loss", "validation/psnr_none"} <= set(events.Tags()["scalars"])
    image = Image.open(io.BytesIO(events.Images("validation")[-1].encoded_image_string))
    assert image.size == (4 * 32, 2 * 32)  # bicubic, result, truth, reference of the two held-out pairs


def test_an_unexpected_number_of_processes_is_an_error(workplace: Path) -> None:
    config = write("one", "prior", PRIOR, 1)
    with pytest.raises(ValueError, match="--processes asked for 2 processes, but 1 is running"):
        run(config, processes=2)


def test_two_processes_equal_one(workplace: Path) -> None:
    """Up to the order of summation in float32."""
    run(write("one", "reference", REFERENCE.split("[reference]")[0] + TRUNK, 3, lr=1e-4))
    config = write("two", "reference", REFERENCE.split("[reference]")[0] + TRUNK, 3, lr=1e-4)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]  # torchrun
    command += [str(Path(sys.executable).with_name("def-hub")), "train", config, "--processes", "2"]  # as in the README
    subprocess.run(command, check=True, env=environment, cwd=workplace, timeout=300)
    one, two = weights(workplace / "one/export"), weights(workplace / "two/export")
    assert all(torch.allclose(one[k], two[k], atol=2e-6) for k in one)


def test_muon_moves_all_directions_of_a_matrix_equally_and_leaves_vectors_to_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    conv, plain = (torch.nn.Conv2d(6, 4, 3) for _ in range(2))
    plain.load_state_dict(conv.state_dict())
    before = conv.weight.detach().clone()
    optimizers = Muon(conv.parameters(), lr=1e-2), torch.optim.Adam(plain.parameters(), lr=1e-2)
    gradients = torch.randn(4, 6, 3, 3, generator=generator) * torch.tensor([0.03, 0.1, 0.3, 1.0]).view(4, 1, 1, 1)
    for layer, optimizer in zip((conv, plain), optimizers, strict=True):
        layer.weight.grad, layer.bias.grad = gradients.clone(), torch.ones(4)  # type: ignore[union-attr]
        optimizer.step()
    assert torch.equal(conv.bias, plain.bias)  # type: ignore[arg-type]
    moved = torch.linalg.svdvals((conv.weight - before).detach().flatten(1)) / (1e-2 * 0.2 * 54**0.5)
    assert 0.5 < moved.min() and moved.max() < 1.3  # although the gradients of the rows differ by a factor of thirty


TRUNK = """
[reference]
extractor = "mini"
features = [8, 4, 3]
blocks = [1, 1, 1, 1]
folded = true
"""


def test_one_batch_can_be_learned(workplace: Path) -> None:
    """The network without references on one picture: the loss falls by more than a third."""
    body = COMMON.replace('holdout = ["garden"]', "") + TRUNK
    for path in sorted((workplace / "pairs").rglob("*.png")):
        if path.stem != "0":
            path.unlink()
    body = body.split('[[data.sources]]\nkind = "photos"')[0] + "[log]\nevery = 1\n" + TRUNK
    run(write("overfit", "reference", body, 60, lr=5e-3))
    losses = [float(line.split(",")[1]) for line in Path("overfit/train.csv").read_text().splitlines()[1:]]
    assert np.mean(losses[-5:]) < 0.67 * losses[0]


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (("seed = 5", "sed = 5"), "unknown key sed"),
        (("crops = 2", 'crops = "2"'), r"data.sources\[1\].crops: expected int"),
        (('kind = "photos"', 'kind = "films"'), "expected one of"),
        (("channels = [8, 16]", "channels = 8"), "prior.channels"),
        (("size = 32", ""), None),
    ),
)
def test_run_files_are_checked(workplace: Path, change: tuple[str, str], message: str | None) -> None:
    path = write("run", "prior", PRIOR.replace(*change), 1)
    if message is None:
        assert load_config(path).data.size == 160
        return
    with pytest.raises(ValueError, match=message):
        load_config(path)


def test_every_shipped_run_file_is_valid() -> None:
    files = sorted((ROOT / "examples").rglob("*.toml"))
    assert files
    for path in files:
        assert dataclasses.is_dataclass(load_config(path))


def test_the_default_settings_are_those_of_the_paper() -> None:
    config = load_config(ROOT / "examples/def-base/reference.toml")
    assert (config.optim.batch, config.optim.lr, config.optim.betas, config.data.size) == (9, 1e-4, (0.9, 0.999), 160)
    assert (config.reference.perceptual, config.reference.adversarial) == (1e-2, 1e-4)
    assert 2 * 11_871 <= config.reference.reconstruction_steps * 9 < 2 * 11_871 + 9


def test_a_run_starts_from_a_folder_or_refuses_clearly(workplace: Path) -> None:
    body = 'init = "no/such/place"\n' + PRIOR
    with pytest.raises(ValueError, match="'no/such/place' is neither a folder nor a repository"):
        run(write("lost", "prior", body, 1))
