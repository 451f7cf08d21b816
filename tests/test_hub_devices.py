"""Ways to load weights onto a device: device maps, low memory, offloading."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.hooks import CpuOffload
from diffusers import UNet2DModel
from torch import nn

from def_hub import DEFPipeline, ReferenceNetwork

from .conftest import ROOT, contents, enlarged, make_tiny_pipe
from .helpers.hub_server import HubServer

NAME = "alice/def-x4"


@pytest.mark.parametrize("placing", ({"device_map": "cpu"}, {"low_cpu_mem_usage": False}, {"low_cpu_mem_usage": True}))
def test_every_way_onto_a_device_gives_the_same_result(hub: HubServer, folder: Path, placing: dict[str, Any]) -> None:
    hub.put(NAME, contents(folder))
    placed = DEFPipeline.from_pretrained(NAME, **placing)
    assert enlarged(placed).tobytes() == enlarged(DEFPipeline.from_pretrained(folder)).tobytes()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("placing", ("", "device_map='cpu'", "dtype=torch.float16", "low_cpu_mem_usage=False"))
def test_weights_are_never_held_twice(large: Path, placing: str) -> None:
    """Memory of a fresh process while it loads. Pages that are mapped from the file do not count."""
    code = f"""
import threading, time
import torch
from def_hub import DEFPipeline

def megabytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        seen.append(megabytes())
        time.sleep(0.001)

DEFPipeline.from_pretrained()  # the memory of a first load does not count
seen = []
before = megabytes()
threading.Thread(target=watch, daemon=True).start()
pipe = DEFPipeline.from_pretrained({str(large)!r}, {placing})
parameters = [p for part in (pipe.unet, pipe.refsr) for p in part.parameters()]
total = float(sum(p.sum(dtype=torch.float32) for p in parameters))  # reads all weights
print(sum(p.nbytes for p in parameters) / 2**20, max(seen) - before)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    weights, peak = map(float, result.stdout.split())
    assert weights > 25 and peak < 1.3 * weights + 5, (weights, peak)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with weights of about 60 MB, in shards."""
    folder = tmp_path_factory.mktemp("large")
    pipe = make_tiny_pipe()
    unet = UNet2DModel(**{**pipe.unet.config, "block_out_channels": (128, 256), "norm_num_groups": 32})
    refsr = ReferenceNetwork(extractor="mini", features=(256, 64, 32), blocks=(2, 1, 1, 1))
    DEFPipeline(unet=unet, scheduler=pipe.scheduler, refsr=refsr).save_pretrained(folder, max_shard_size="10MB")
    return folder


@pytest.mark.parametrize("where", ("cpu", "disk"))
def test_weights_can_be_offloaded_layer_by_layer(folder: Path, tmp_path: Path, where: str) -> None:
    """Accelerate's offloading with the CPU as the device: a layer has weights only while it runs."""
    pipe = DEFPipeline.from_pretrained(folder)
    for name in ("unet", "refsr"):
        if where == "cpu":
            cpu_offload(getattr(pipe, name), execution_device=torch.device("cpu"))
        else:
            disk_offload(getattr(pipe, name), tmp_path / name, execution_device=torch.device("cpu"))
    assert {p.device.type for p in (*pipe.unet.parameters(), *pipe.refsr.parameters())} == {"meta"}
    assert enlarged(pipe).tobytes() == enlarged(DEFPipeline.from_pretrained(folder)).tobytes()


@pytest.mark.parametrize("detail", (False, True))
def test_with_cpu_offload_every_layer_finds_its_weights_on_the_device(
    tiny_pipe: DEFPipeline, monkeypatch: pytest.MonkeyPatch, detail: bool
) -> None:
    """Works without a GPU: the moves of Accelerate's hooks are recorded instead of carried out."""
    there: set[nn.Module] = set()
    bring, send_back = CpuOffload.pre_forward, CpuOffload.init_hook

    def pre_forward(hook: CpuOffload, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if hook.prev_module_hook is not None:
            there.discard(hook.prev_module_hook.model)
        there.add(module)
        return bring(hook, module, *args, **kwargs)

    def init_hook(hook: CpuOffload, module: nn.Module) -> nn.Module:
        there.discard(module)
        return send_back(hook, module)

    monkeypatch.setattr(CpuOffload, "pre_forward", pre_forward)
    monkeypatch.setattr(CpuOffload, "init_hook", init_hook)
    tiny_pipe.register_modules(refsr_detail=make_tiny_pipe(seed=9).refsr)
    parts = {name: part for name, part in tiny_pipe.components.items() if isinstance(part, nn.Module)}
    assert tiny_pipe.model_cpu_offload_seq.split("->") == list(parts)  # all components, in the order of the steps
    seen = set()
    for name, part in parts.items():

        def check(layer: nn.Module, _: Any, part: nn.Module = part, name: str = name) -> None:
            assert part in there, f"{type(layer).__name__} of {name} would compute with weights left on the CPU"
            seen.add(name)

        for layer in part.modules():
            if not list(layer.children()):
                layer.register_forward_pre_hook(check)
    tiny_pipe.enable_model_cpu_offload(device="cpu")
    picture = enlarged(tiny_pipe, preset="detail" if detail else "balanced")
    assert seen == {"unet", "refsr_detail" if detail else "refsr"} and not there  # all of them left the device again
    assert picture.size == (40, 36)


def test_cpu_offload_needs_an_accelerator(tiny_pipe: DEFPipeline) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    for offload in (tiny_pipe.enable_model_cpu_offload, tiny_pipe.enable_sequential_cpu_offload):
        with pytest.raises(RuntimeError, match="requires accelerator, but not found"):
            offload()
    assert enlarged(tiny_pipe).size == (40, 36)  # still usable


@pytest.mark.skipif(not torch.cuda.is_available(), reason="offloading moves weights between a GPU and the CPU")
def test_cpu_offload(folder: Path) -> None:
    pipe = DEFPipeline.from_pretrained(folder)
    pipe.enable_model_cpu_offload()
    on_cpu = np.asarray(enlarged(DEFPipeline.from_pretrained(folder)), dtype=int)
    assert np.abs(np.asarray(enlarged(pipe), dtype=int) - on_cpu).max() <= 1
    assert {p.device.type for p in pipe.unet.parameters()} == {"cpu"}
    sequential = DEFPipeline.from_pretrained(folder)
    sequential.enable_sequential_cpu_offload()
    assert np.abs(np.asarray(enlarged(sequential), dtype=int) - on_cpu).max() <= 1
