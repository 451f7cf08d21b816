"""Model folders made to do harm, or damaged: each is refused by name, before anything of it is imported or used."""

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from def_hub import DEFPipeline, ReferenceNetwork
from def_hub.assemble import load_prior
from def_hub.hub.contents import PIPELINES, WEIGHTS, read_index, read_tensors
from def_hub.pipeline import EMBEDDED

from .conftest import contents, make_tiny_pipe
from .helpers.hub_server import HubServer

NAME = "mallory/def-x4"
Change = Callable[[Path], Any]
EVIL = "evil_module_of_a_test"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder to spoil. A module that it might name can be imported, and says so by a file."""
    (tmp_path / "modules").mkdir()
    body = f"open({str(tmp_path / 'imported')!r}, 'w').close()\nfrom diffusers import ModelMixin\n"
    (tmp_path / "modules" / f"{EVIL}.py").write_text(body + "class Evil(ModelMixin): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    shutil.copytree(tiny_model, tmp_path / "model")
    for name in ("pipeline.py", "unet/network.py"):
        (tmp_path / "model" / name).write_text(body)
    return tmp_path / "model"


def entry(path: str, **entries: Any) -> Change:
    """Change entries of a JSON file of the folder."""

    def change(folder: Path) -> None:
        file = folder / path
        file.write_text(json.dumps(json.loads(file.read_text()) | entries))

    return change


def written(path: str, data: str | bytes) -> Change:
    """Replace a file of the folder."""
    return lambda folder: (folder / path).write_bytes(data.encode() if isinstance(data, str) else data)


def bytes_of(path: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda folder: (folder / path).write_bytes(change((folder / path).read_bytes()))


def header(change: Callable[[dict[str, Any]], object], path: str = f"unet/{WEIGHTS}.safetensors") -> Change:
    """Tamper with the header of a safetensors file; the data behind it stay."""

    def tamper(folder: Path) -> None:
        data = (folder / path).read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        head = json.loads(data[8 : 8 + size])
        change(head)
        text = json.dumps(head).encode()
        (folder / path).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return tamper


def tensors(change: Callable[[dict[str, torch.Tensor]], object], part: str = "unet") -> Change:
    """Change what a network stores, in a file that is otherwise in order."""

    def store(folder: Path) -> None:
        path = folder / part / f"{WEIGHTS}.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)

    return store


def shards(places: dict[str, Any]) -> Change:
    """Weights in shards, whose index says where each tensor is."""

    def split(folder: Path) -> None:
        make_tiny_pipe().unet.save_pretrained(folder / "unet", max_shard_size="20KB")
        (folder / "unet" / f"{WEIGHTS}.safetensors").unlink(missing_ok=True)
        entry(f"unet/{WEIGHTS}.safetensors.index.json", **places)(folder)

    return split


INDEX, UNET, REFSR = "model_index.json", "unet/config.json", "refsr/config.json"
WEIGHTS_OF_UNET = f"unet/{WEIGHTS}.safetensors"
SHARD = f"{WEIGHTS}-00001-of-00009.safetensors"

HOSTILE: dict[str, tuple[Change, str]] = {
    # what would be imported or run
    "class of a module": (
        entry(INDEX, unet=[EVIL, "Evil"]),
        "expected diffusers UNet2DModel, got .*not imported",
    ),
    "class of os": (entry(INDEX, unet=["os", "system"]), "unet: expected diffusers UNet2DModel"),
    "another class of diffusers": (entry(INDEX, unet=["diffusers", "AutoencoderKL"]), "expected diffusers UNet2DModel"),
    "a pipeline of diffusers": (entry(INDEX, refsr=["diffusers", "DiffusionPipeline"]), "refsr: expected def_hub"),
    "another class of ours": (entry(INDEX, refsr=["def_hub.cli", "main"]), "refsr: expected def_hub.reference.network"),
    "a module of the folder": (entry(INDEX, unet=["network", "Evil"]), "unet: expected diffusers UNet2DModel"),
    "a scheduler from elsewhere": (entry(INDEX, scheduler=[EVIL, "Evil"]), "expected a scheduler of diffusers"),
    "no scheduler": (entry(INDEX, scheduler=["diffusers", "UNet2DModel"]), "expected a scheduler of diffusers"),
    "an unknown scheduler": (
        entry(INDEX, scheduler=["diffusers", "NoScheduler"]),
        "NoScheduler. is none of diffusers",
    ),
    "a class with dots": (entry(INDEX, scheduler=["diffusers", "os.system.Scheduler"]), "a scheduler of diffusers"),
    "one more part": (entry(INDEX, helper=[EVIL, "Evil"]), "'helper' is no part of a DEFPipeline"),
    "a part outside the folder": (entry(INDEX, **{"../unet": ["diffusers", "UNet2DModel"]}), "'../unet' is no part"),
    "a part of three": (entry(INDEX, unet=["diffusers", "UNet2DModel", EVIL]), "unet: expected diffusers UNet2DModel"),
    "a part of numbers": (entry(INDEX, unet=[1, 2]), "unet: expected diffusers UNet2DModel"),
    "a part that is a name": (entry(INDEX, unet="UNet2DModel"), "unet: expected diffusers UNet2DModel"),
    "a part that is null": (entry(INDEX, unet=[None, None]), "names no unet"),
    "a pipeline of a file": (
        entry(INDEX, _class_name=["pipeline", "Evil"]),
        "expected the pipeline def_hub.DEFPipeline",
    ),
    "a pipeline elsewhere": (entry(INDEX, _class_name=f"{EVIL}.DEFPipeline"), "expected the pipeline def_hub.DEFP"),
    "no class": (entry(INDEX, _class_name=None), "expected the pipeline def_hub.DEFPipeline, got None"),
    "auto_map of the index": (entry(INDEX, auto_map={"Auto": f"{EVIL}.Evil"}), "auto_map is not read"),
    "auto_map of a part": (entry(UNET, auto_map={"AutoModel": f"{EVIL}.Evil"}), "auto_map is not read"),
    "quantization": (
        entry(UNET, quantization_config={"quant_method": "bitsandbytes"}),
        "quantization_config is not",
    ),
    "a part of another class": (
        entry(UNET, _class_name="UNet2DConditionModel"),
        "expected a UNet2DModel, got",
    ),
    "a network of another class": (
        entry(REFSR, _class_name="Evil"),
        "expected a ReferenceNetwork, got",
    ),
    # JSON
    "not JSON": (written(INDEX, "{"), "model_index.json: not readable as JSON"),
    "not an object": (written(INDEX, "[]"), "model_index.json: expected an object, got list"),
    "not text": (written(UNET, b"\xff\xfe\0"), "config.json: not readable as JSON"),
    "nested without end": (written(UNET, "[" * 200_000), "config.json: not readable as JSON"),
    "a large file": (written(UNET, '{"a": "' + "a" * 2_000_000 + '"}'), "config.json: expected at most 1000 kB"),
    "an empty index": (written(INDEX, "{}"), "expected the pipeline"),
    "no configuration": (lambda folder: (folder / UNET).unlink(), "unet/config.json: no such file"),
    "no schedule": (lambda folder: (folder / "scheduler/scheduler_config.json").unlink(), "scheduler_config.json"),
    # configurations that exhaust the memory, or describe nothing
    "a huge layer": (
        entry(UNET, block_out_channels=[8, 10**12]),
        "block_out_channels: expected a number up",
    ),
    "a wide layer": (entry(UNET, block_out_channels=[999_996, 999_996]), "has the shape"),
    "countless layers": (
        entry(UNET, layers_per_block=900_000),
        "no more layers than the [0-9]+ stored",
    ),
    "countless blocks": (entry(REFSR, blocks=[900_000, 1, 1, 1]), "expected no more layers than"),
    "a long list": (entry(UNET, block_out_channels=[8] * 20_000), "block_out_channels: expected a number up to"),
    "a long schedule": (entry("scheduler/scheduler_config.json", num_train_timesteps=10**10), "num_train_timesteps"),
    "NaN": (
        written("scheduler/scheduler_config.json", '{"_class_name": "DDIMScheduler", "a": NaN}'),
        "a: expected",
    ),
    "an unknown block": (entry(UNET, down_block_types=["Evil", "Evil"]), "no UNet2DModel can be made of it"),
    "an unknown extractor": (entry(REFSR, extractor=EVIL), "no ReferenceNetwork can be made of it .extractor must be"),
    "a type of a field": (entry(UNET, block_out_channels="os.system"), "no UNet2DModel can be made of it"),
    # safetensors
    "empty weights": (written(WEIGHTS_OF_UNET, b""), f"{WEIGHTS}.safetensors: not readable as safetensors"),
    "a pickle in disguise": (written(WEIGHTS_OF_UNET, b"\x80\x04cos\nsystem\n"), "not readable as safetensors"),
    "cut off": (bytes_of(WEIGHTS_OF_UNET, lambda data: data[:-100]), "not readable as safetensors"),
    "cut off in the header": (bytes_of(WEIGHTS_OF_UNET, lambda data: data[:100]), "not readable as safetensors"),
    "longer than it says": (bytes_of(WEIGHTS_OF_UNET, lambda data: data + b"\0" * 64), "not readable as safetensors"),
    "a huge header": (
        bytes_of(WEIGHTS_OF_UNET, lambda data: struct.pack("<Q", 2**62) + data[8:]),
        "not readable as safetensors",
    ),
    "offsets outside": (header(lambda h: h["conv_in.bias"].update(data_offsets=[0, 10**9])), "not readable as safet"),
    "offsets that overlap": (header(lambda h: h["conv_in.bias"].update(h["conv_out.bias"])), "not readable as safet"),
    "a shape that is not its data": (
        header(lambda h: h["conv_in.bias"].update(shape=[10**9])),
        "not readable as safet",
    ),
    "an unknown type": (header(lambda h: h["conv_in.bias"].update(dtype="EVIL")), "not readable as safetensors"),
    "whole numbers": (header(lambda h: h["conv_in.bias"].update(dtype="I32")), "conv_in.bias: expected floating-point"),
    "one tensor less": (tensors(lambda t: t.pop("conv_in.bias")), "unet lacks conv_in.bias"),
    "one tensor more": (tensors(lambda t: t.update(extra=torch.zeros(10_000))), "unet has no place for extra"),
    "one more in refsr": (tensors(lambda t: t.update(extra=torch.zeros(9)), "refsr"), "refsr has no place for extra"),
    "another shape": (tensors(lambda t: t.update({"conv_in.bias": torch.zeros(9)})), "conv_in.bias has the shape .9."),
    "NaN in the weights": (
        tensors(lambda t: t["conv_in.bias"].fill_(float("nan"))),
        "unet: conv_in.bias has NaN or infinity",
    ),
    # shards
    "shards elsewhere": (
        shards({"weight_map": {"a": f"../refsr/{WEIGHTS}.safetensors"}}),
        "json: expected names",
    ),
    "shards from the root": (
        shards({"weight_map": {"a": f"/etc/{WEIGHTS}.safetensors"}}),
        "json: expected names",
    ),
    "shards for Windows": (shards({"weight_map": {"a": f"..\\{WEIGHTS}.safetensors"}}), "json: expected names"),
    "shards in pickles": (shards({"weight_map": {"a": f"{WEIGHTS}.bin"}}), "json: expected names"),
    "a shard that is not there": (shards({"weight_map": {"a": SHARD}}), f"{SHARD}: no such file"),
    "no shards": (shards({"weight_map": {}}), "expected a weight_map"),
    "shards that are no names": (shards({"weight_map": {"a": 7}}), "expected a weight_map"),
    "no map": (shards({"weight_map": None}), "expected a weight_map"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_folders_are_refused_by_name(model: Path, tmp_path: Path, case: str) -> None:
    change, words = HOSTILE[case]
    change(model)
    (model / f"unet/{WEIGHTS}.bin").write_bytes(b"never read")
    before = contents(model)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as raised:
        DEFPipeline.from_pretrained(model)
    message = str(raised.value)
    assert str(model) in message and len(message.splitlines()) == 1
    assert not (tmp_path / "imported").exists() and EVIL not in sys.modules
    assert contents(model) == before


@pytest.mark.parametrize("option", ["custom_pipeline", "trust_remote_code"])
def test_no_code_of_a_repository_is_run_even_if_asked_for(model: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}: no code of a repository is run"):
        DEFPipeline.from_pretrained(model, **{option: str(model)})
    assert not (tmp_path / "imported").exists()


def test_files_of_code_in_the_folder_are_not_run(model: Path, tmp_path: Path) -> None:
    assert DEFPipeline.from_pretrained(model).unet is not None
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "case", ["another class of diffusers", "class of a module", "a scheduler from elsewhere", "one more part"]
)
def test_a_replaced_part_is_not_imported_either(model: Path, tmp_path: Path, case: str) -> None:
    change, words = HOSTILE[case]
    change(model)
    other = make_tiny_pipe()
    with pytest.raises(ValueError, match=words):
        DEFPipeline.from_pretrained(model, unet=other.unet, scheduler=other.scheduler, refsr=other.refsr)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("case", ["auto_map of a part", "a large file", "cut off", "not text"])
def test_single_parts_are_checked_as_well(model: Path, case: str) -> None:
    """`ReferenceNetwork.from_pretrained` and the prior of `assemble`."""
    change, words = HOSTILE[case]
    change(model)
    with pytest.raises(ValueError, match=words):
        load_prior(model)
    configuration = (model / REFSR).read_text()
    shutil.rmtree(model / "refsr")
    (model / "unet").rename(model / "refsr")
    if case == "auto_map of a part":
        entry(REFSR, _class_name="ReferenceNetwork")(model)
    if case == "cut off":
        (model / REFSR).write_text(configuration)
    with pytest.raises(ValueError, match=words):
        ReferenceNetwork.from_pretrained(str(model), subfolder="refsr")


@pytest.mark.parametrize("case", ["class of a module", "auto_map of a part", "offsets outside", "shards elsewhere"])
def test_a_hostile_repository_is_refused_like_a_folder(model: Path, tmp_path: Path, hub: HubServer, case: str) -> None:
    change, words = HOSTILE[case]
    change(model)
    hub.put(NAME, contents(model))
    with pytest.raises(ValueError, match=words):
        DEFPipeline.from_pretrained(NAME, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("path", ["../../../outside/config.json", "/outside/config.json", "unet/../../../config.json"])
def test_a_repository_cannot_write_outside_the_cache(model: Path, tmp_path: Path, hub: HubServer, path: str) -> None:
    cache = tmp_path / "deep" / "cache"
    hub.put(NAME, contents(model) | {path: b"{}"})
    try:
        DEFPipeline.from_pretrained(NAME, cache_dir=cache)
    except (ValueError, OSError) as error:
        assert len(str(error)) < 500
    outside = {p for p in tmp_path.rglob("config.json") if cache not in p.parents and model not in p.parents}
    assert not outside and not Path("/outside").exists()


def test_what_we_ship_and_save_passes(tmp_path: Path) -> None:
    """The allow-list is that of the pipeline: whatever `save_pretrained` writes is on it."""
    parts = read_index(EMBEDDED)
    assert set(parts) == {"unet", "scheduler", "refsr", "refsr_detail"}
    assert json.loads((EMBEDDED / INDEX).read_text())["_class_name"] == PIPELINES[0]
    pipe = make_tiny_pipe()
    pipe.save_pretrained(tmp_path)
    for part in ("unet", "refsr"):
        stored = read_tensors(tmp_path / part / f"{WEIGHTS}.safetensors")
        assert stored == {key: tuple(value.shape) for key, value in getattr(pipe, part).state_dict().items()}


def test_a_link_to_another_file_is_only_read_as_safetensors(model: Path, tmp_path: Path) -> None:
    """The Hub's cache consists of links, so they are followed; what is no safetensors is refused all the same."""
    (tmp_path / "secret").write_text("password")
    (model / WEIGHTS_OF_UNET).unlink()
    os.symlink(tmp_path / "secret", model / WEIGHTS_OF_UNET)
    with pytest.raises(ValueError, match="not readable as safetensors") as raised:
        DEFPipeline.from_pretrained(model)
    assert "password" not in str(raised.value)
