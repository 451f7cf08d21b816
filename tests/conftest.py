"""Fixtures that several test files share."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see app.py: tests also run on busy machines
import torch

from .helpers.hub_server import HubServer

if TYPE_CHECKING:
    from diffusers import UNet2DModel
    from PIL import Image

    from def_hub import DEFPipeline, ReferenceNetwork

# The client reads these when it is imported, here and in processes that tests start. So no test reaches the real Hub,
# and the user's cache and token are not touched. The port stays bound; the server listens on it when a test needs it.
HUB_SOCKET = socket.socket()
HUB_SOCKET.bind(("127.0.0.1", 0))
os.environ |= {
    "HF_ENDPOINT": f"http://127.0.0.1:{HUB_SOCKET.getsockname()[1]}",
    "HF_HOME": tempfile.mkdtemp(prefix="def-hub-tests-"),
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
}
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
    os.environ.pop(name, None)

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
CARD = b"---\nlicense: apache-2.0\nlibrary_name: diffusers\npipeline_tag: image-to-image\n---\n\n# tiny\n"


SLOW = {
    *("test_app", "test_baselines", "test_build", "test_calls", "test_degraded_training", "test_examples"),
    *(
        "test_assessment",
        "test_detail",
        "test_evaluate",
        "test_fitting",
        "test_hub_devices",
        "test_hub_load",
        "test_hub_publish",
        "test_hub_space",
    ),
    *("test_mcp", "test_observed", "test_olah", "test_recorded", "test_report_page", "test_scales", "test_selection"),
    *(
        "test_card",
        "test_convert",
        "test_hub_faults",
        "test_inspect",
        "test_losses",
        "test_space",
        "test_space_panels",
        "test_space_scale",
        "test_temporary",
        "test_training",
        "test_gpu_scripts",
        "test_upscale_shared",
        "test_development",
        "test_baseline_training",
        "test_interruption",
        "test_odd_inputs",
        "test_determinism",
        "test_fuzz",
        "test_elsewhere",
    ),
}
"""Files whose tests start servers, load the embedded weights, train or compile: `make quick` leaves them out, and
of what runs in two precisions the second."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        twice = getattr(item, "callspec", None) is not None and item.callspec.params.get("each_precision") == "bfloat16"
        if twice or item.path.stem in SLOW or item.path.parent.name in ("browser", "library"):
            item.add_marker(pytest.mark.slow)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


torch.set_num_threads(min(2, torch.get_num_threads()))


def make_unet(inputs: int, outputs: int) -> "UNet2DModel":
    """A tiny prior with two levels. Its random weights depend on the current seed."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        in_channels=inputs,
        out_channels=outputs,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        add_attention=False,
    )


def make_tiny_pipe(seed: int = 0) -> "DEFPipeline":
    """A pipeline of tiny random components."""
    from diffusers import DDIMScheduler

    from def_hub import DEFPipeline, ReferenceNetwork

    torch.manual_seed(seed)
    unet = make_unet(6, 3)
    scheduler = DDIMScheduler(beta_start=1e-6, beta_end=1e-2, clip_sample=False)
    refsr = ReferenceNetwork(extractor="mini", features=(8, 8, 8), blocks=(1, 1, 1, 1))
    # eval, as for loaded networks: in training mode even a dropout of 0 changes the memory layout, and so the last bits
    pipe = DEFPipeline(unet=unet.eval(), scheduler=scheduler, refsr=refsr.eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder: path → bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def enlarged(pipe: "DEFPipeline", **options: Any) -> "Image.Image":
    """The result of a fixed call. It differs between pipelines with different weights."""
    pipe.set_progress_bar_config(disable=True)
    noise = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    return pipe(noise[:1, :, :9, :10], noise[1:], generator=torch.Generator().manual_seed(2), **options).images[0]


def put_ddpm(hub: HubServer, folder: Path) -> None:
    """Put a repository like google/ddpm-… on the Hub: the network and its scheduler at the top."""
    from diffusers import DDPMScheduler

    torch.manual_seed(5)
    make_unet(3, 3).save_pretrained(folder)
    DDPMScheduler().save_pretrained(folder)
    hub.put("google/ddpm", contents(folder))


def add_detail(folder: Path) -> "ReferenceNetwork":
    """Add the optional weights of the preset "detail" to a model folder, and return them."""
    from def_hub import DEFPipeline

    detail = make_tiny_pipe(seed=9).refsr
    DEFPipeline.from_pretrained(folder, refsr_detail=detail).save_pretrained(folder)
    return detail


@pytest.fixture(params=("float32", "bfloat16"))
def each_precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All presets compute in this precision, so that the test does not depend on the processor."""
    from dataclasses import replace

    from def_hub.settings import PRESETS

    for name, settings in PRESETS.items():
        monkeypatch.setitem(PRESETS, name, replace(settings, precision=request.param))
    return request.param


@pytest.fixture
def tiny_pipe() -> "DEFPipeline":
    """A pipeline of tiny random components, new for every test."""
    return make_tiny_pipe()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved tiny pipeline."""
    folder = tmp_path_factory.mktemp("tiny-model")
    make_tiny_pipe().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder that is ready to be published."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_bytes(CARD)
    return tmp_path / "model"


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs a command and returns (exit status, stdout, stderr)."""
    from diffusers.utils import logging

    from def_hub import cli

    logging.disable_progress_bar()

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def _hub_server() -> HubServer:
    server = HubServer(HUB_SOCKET)
    server.start()
    return server


@pytest.fixture
def hub(_hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub. The user is alice, and the client retries without waiting."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    patient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", patient)
    yield _hub_server
    _hub_server.reset()


@pytest.fixture(scope="session")
def pipe() -> "DEFPipeline":
    """The embedded default."""
    weights = ROOT / "def_hub" / "weights"
    if not any(weights.glob("**/*.safetensors")):
        pytest.skip(f"no weights in {weights}: the embedded default is not part of this checkout")
    from def_hub import DEFPipeline

    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the development sets, which cannot be shipped: `DEF_SHARED`, or `../shared/data` by default."""
    folder = Path(os.environ.get("DEF_SHARED", ROOT.parent / "shared" / "data"))
    if not (folder / "eval-dev").is_dir():
        pytest.skip(f"no development sets at {folder}; set DEF_SHARED to the folder that holds eval-dev/")
    return folder


@pytest.fixture(scope="session")
def shared_weights(shared_data: Path) -> Path:
    """The folder of published weights beside the development sets, which may not be shipped either."""
    folder = shared_data.parent / "weights"
    if not folder.is_dir():
        pytest.skip(f"no published weights at {folder}")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, with six tiny pairs and two photographs."""
    import numpy as np
    from PIL import Image

    from .helpers.pictures import picture

    monkeypatch.chdir(tmp_path)
    for name in ("pairs/input", "pairs/ref", "photos"):
        (tmp_path / name).mkdir(parents=True)
    for i in range(6):
        scene = (picture(48 + i, 56)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(scene[:32, :32]).save(tmp_path / f"pairs/input/{i}.png")
        Image.fromarray(scene[6:38, 4:36]).save(tmp_path / f"pairs/ref/{i}.png")
        if i < 2:
            Image.fromarray(scene).save(tmp_path / f"photos/{i}.png")
    groups = "name\tgroup\n" + "".join(f"{i}\t{'castle' if i < 4 else 'garden'}\n" for i in range(6))
    (tmp_path / "pairs/pairs.tsv").write_text(groups)
    return tmp_path
