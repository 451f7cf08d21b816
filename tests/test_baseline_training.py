"""Baselines trained here: one task for all, on the same pairs; their files are rows of `def-hub evaluate`."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from def_hub.config import load_config
from def_hub.evaluation.baselines import BASELINES, trained_here
from def_hub.reference.features import VGG19Features
from def_hub.training import run as train
from def_hub.training.baseline import VGG

from .conftest import EXAMPLES, Run
from .helpers.evaluation import multiview

RUN = """
part = "baseline"
output = "runs/{network}"
seed = 5
[data]
size = 32
unrelated = 0.0
missing = 0.0
holdout = ["garden"]
[[data.sources]]
kind = "pairs"
path = "pairs"
[optim]
steps = 2
batch = 2
lr = 1e-3
warmup = 1
average = 0.0
[log]
every = 1
validate = 2
[baseline]
network = "{network}"
vgg = "vgg.safetensors"
sizes = {sizes}
"""
SIZES = {
    "srcnn": "{}",
    "edsr-baseline": "{ features = 8, blocks = 1 }",
    "ttsr": "{ features = 8, blocks = [1, 1, 1, 1] }",
    "masa": "{ features = 8, encoder = [1, 1, 1], decoder = [1, 1, 1, 1, 1, 1] }",
    "c2-matching": "{ features = 8, blocks = 1, descriptors = false }",
}


@pytest.fixture
def studio(workplace: Path) -> Path:
    """The working directory of the test, with pairs and VGG19 of random weights."""
    torch.manual_seed(0)
    save_file(VGG19Features(padding_mode="zeros").state_dict(), workplace / "vgg.safetensors")
    return workplace


def write(folder: Path, network: str) -> Path:
    path = folder / f"{network}.toml"
    path.write_text(RUN.format(network=network, sizes=SIZES[network]))
    return path


@pytest.mark.parametrize("network", SIZES)
def test_each_is_trained_and_measured(run: Run, studio: Path, network: str) -> None:
    """Two steps change what is learned and nothing else; the exported file is a row, marked as trained here."""
    exported = train(load_config(write(studio, network))) / f"{network}.safetensors"
    sizes = trained_here(exported)
    assert sizes == load_config(studio / f"{network}.toml").baseline.sizes
    torch.manual_seed(5)
    fresh = BASELINES[network].make(**sizes)
    weights = load_file(exported)
    changed = {name for name, value in fresh.state_dict().items() if not torch.equal(value, weights[name])}
    learned = {name for name, value in fresh.named_parameters() if value.requires_grad}
    where = VGG.get(network, "nowhere") + "."
    assert changed & learned and all(name in learned or name.startswith(where) for name in changed)
    for name, value in load_file(studio / "vgg.safetensors").items():
        assert where == "nowhere." or torch.equal(weights[where + name], value)
    log = (studio / "runs" / network / "validation.csv").read_text().splitlines()
    assert log[0].split(",")[1:3] == ["psnr", "psnr_bicubic"]
    multiview(studio / "views", (46, 55))
    words = ["evaluate", "views", "--method", "bicubic", "--method", f"{network}={exported}", "--references", "first"]
    status, out, err = run(*words, "--device", "cpu", "--output", studio / "out")
    mode = "first" if BASELINES[network].uses_references else "none"
    assert status == 0 and f"| views | 4 | {network} (small, trained here) | {mode} |" in out, err
    assert list(json.loads((studio / "out" / "settings.json").read_text())["methods"]) == [
        "bicubic",
        f"{network} (small, trained here)",
    ]


def test_wrong_sizes_and_missing_weights_are_said(studio: Path) -> None:
    text = write(studio, "c2-matching").read_text()
    (studio / "wrong.toml").write_text(text.replace("blocks = 1", "layers = 1"))
    with pytest.raises(ValueError, match=r"baseline.sizes: .*layers"):
        train(load_config(studio / "wrong.toml"))
    (studio / "wrong.toml").write_text(text.replace('vgg = "vgg.safetensors"\n', ""))
    with pytest.raises(ValueError, match="baseline.vgg: c2-matching needs the weights of VGG19"):
        train(load_config(studio / "wrong.toml"))


def test_the_shipped_run_files_are_equal_but_for_the_network() -> None:
    """Equal data, steps, batch and rate: that is what the label says."""
    configs = [load_config(path) for path in sorted((EXAMPLES / "baselines").glob("*.toml"))]
    assert {c.baseline.network for c in configs} == set(SIZES)
    assert len({(c.data, c.optim, c.seed, c.degradation) for c in configs}) == 1
    for config in configs:
        network = BASELINES[config.baseline.network].make(**config.baseline.sizes)
        assert any(p.requires_grad for p in network.parameters())


def test_the_logs_are_of_the_shipped_run_files() -> None:
    """What was trained saw all steps of its file."""
    logs = sorted((EXAMPLES / "baselines").glob("*-train.csv"))
    assert logs
    for log in logs:
        config = load_config(log.with_name(log.name.replace("-train.csv", ".toml")))
        with log.open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
        assert int(last["step"]) == config.optim.steps
