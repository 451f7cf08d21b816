"""Loading from the Hub, from its cache and from folders, with the real client and a local server."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from safetensors.torch import load_file, save, save_file

from def_hub import DEFPipeline, ReferenceNetwork
from def_hub.hub.fetch import OPTIONS, WEIGHTS
from def_hub.loading import COMPONENTS, LOADING
from def_hub.pipeline import EMBEDDED

from .conftest import CARD, ROOT, Run, add_detail, contents, enlarged, make_tiny_pipe, make_unet, put_ddpm
from .helpers.hub_server import HubServer

NAME = "alice/def-x4"


def test_subfolders_variants_and_replaced_components(hub: HubServer, tmp_path: Path) -> None:
    pipe = make_tiny_pipe()
    pipe.save_pretrained(str(tmp_path / "m"))
    half = make_tiny_pipe()
    half.to(dtype=torch.float16)
    half.unet.save_pretrained(tmp_path / "m" / "unet", variant="fp16")
    hub.put(NAME, {f"x4/v1.0/{name}": data for name, data in contents(tmp_path / "m").items()})

    def fetched(cache: Path) -> set[str]:
        return {p.name for p in cache.glob("models--*/snapshots/*/x4/v1.0/unet/*.safetensors")}

    plain, variant, own = (tmp_path / name for name in ("plain", "variant", "own"))
    a = DEFPipeline.from_pretrained(NAME, subfolder="x4/v1.0", cache_dir=plain)
    assert enlarged(a).tobytes() == enlarged(pipe).tobytes()
    assert DEFPipeline.from_pretrained(NAME, subfolder="/x4/v1.0/", cache_dir=plain) is not None
    assert fetched(plain) == {"diffusion_pytorch_model.safetensors"}
    # one component has the variant; the others load their plain weights
    b = DEFPipeline.from_pretrained(NAME, subfolder="x4/v1.0", variant="fp16", dtype=torch.float32, cache_dir=variant)
    assert fetched(variant) == {"diffusion_pytorch_model.fp16.safetensors"}
    assert torch.equal(b.unet.conv_in.weight, half.unet.conv_in.weight.float())
    with pytest.raises(ValueError, match="no component has weights of the variant 'int8'"):
        DEFPipeline.from_pretrained(NAME, subfolder="x4/v1.0", variant="int8")
    # a replaced prior: the stored one is not fetched
    prior = make_unet(3, 3)
    c = DEFPipeline.from_pretrained(NAME, subfolder="x4/v1.0", unet=prior, cache_dir=own)
    assert c.unet is prior and fetched(own) == set() and enlarged(c).size == (40, 36)
    with pytest.raises(ValueError, match="there is no model_index.json"):
        DEFPipeline.from_pretrained(NAME, cache_dir=own)


def test_variants_in_shards(hub: HubServer, tmp_path: Path) -> None:
    half = make_tiny_pipe()
    half.to(dtype=torch.float16)
    half.save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    hub.put(NAME, contents(tmp_path))
    for name in (NAME, tmp_path):
        pipe = DEFPipeline.from_pretrained(name, variant="fp16")
        for part in ("unet", "refsr"):
            found, wanted = (getattr(p, part).state_dict() for p in (pipe, half))
            assert all(torch.equal(found[k], v) for k, v in wanted.items())
        with pytest.raises(ValueError, match="refsr has no diffusion_pytorch_model.safetensors"):
            DEFPipeline.from_pretrained(name)
    single = ReferenceNetwork.from_pretrained(NAME, subfolder="refsr", variant="fp16")
    assert torch.equal(single.aggregator.head.weight, half.refsr.aggregator.head.weight)
    # a missing shard
    next(tmp_path.glob("unet/*-00002-of-*")).unlink()
    with pytest.raises(OSError, match="-00002-of-"):
        DEFPipeline.from_pretrained(tmp_path, variant="fp16")


def test_a_prior_of_the_hub(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    put_ddpm(hub, tmp_path / "ddpm")
    hub.put(NAME, contents(folder))
    unet = UNet2DModel.from_pretrained("google/ddpm")
    pipe = DEFPipeline.from_pretrained(NAME, unet=unet, scheduler=DDPMScheduler.from_pretrained("google/ddpm"))
    assert pipe.unet is unet and isinstance(pipe.scheduler, DDPMScheduler) and enlarged(pipe).size == (40, 36)


def test_weights_for_the_preset_detail(hub: HubServer, folder: Path, tmp_path: Path, run: Run) -> None:
    detail = add_detail(folder)
    (folder / "README.md").unlink()
    assert run("publish", folder, NAME)[0] == 0
    size = sum(parameter.numel() for parameter in detail.parameters())
    assert f"| `refsr_detail` | ReferenceNetwork | {size:,} |" in hub.files(NAME)["README.md"].decode()
    pipe = DEFPipeline.from_pretrained(NAME)
    assert all(torch.equal(v, pipe.refsr_detail.state_dict()[k]) for k, v in detail.state_dict().items())
    single = ReferenceNetwork.from_pretrained(NAME, subfolder="refsr_detail")
    assert all(torch.equal(v, single.state_dict()[k]) for k, v in detail.state_dict().items())
    # without them, they are not fetched
    pipe = DEFPipeline.from_pretrained(NAME, refsr_detail=None, cache_dir=tmp_path / "cache")
    assert pipe.refsr_detail is None and not list((tmp_path / "cache").rglob("refsr_detail/*"))
    # publishing a version without them removes them from the repository
    pipe.push_to_hub(NAME)
    assert "refsr_detail/diffusion_pytorch_model.safetensors" not in hub.files(NAME)
    assert DEFPipeline.from_pretrained(NAME).refsr_detail is None


def test_single_components(hub: HubServer, folder: Path) -> None:
    hub.put(NAME, contents(folder))
    network = ReferenceNetwork.from_pretrained(NAME, subfolder="refsr")
    stored = load_file(folder / "refsr" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in network.state_dict().items())
    hub.put("alice/part", {p.name: p.read_bytes() for p in (folder / "refsr").iterdir()})
    assert ReferenceNetwork.from_pretrained("alice/part").config.extractor == "mini"
    for path, weights, message in (
        ("unet", None, "expected a ReferenceNetwork, got 'UNet2DModel'"),
        ("refsr", {"extra": torch.zeros(1)}, "has no place for extra"),
        ("refsr", {"aggregator.head.bias": None}, "lacks aggregator.head.bias"),
    ):
        changed = {k: v for k, v in (stored | (weights or {})).items() if v is not None}
        hub.put("alice/odd", contents(folder))
        if weights is not None:
            hub.put("alice/odd", {f"{path}/{WEIGHTS}.safetensors": save(changed)})
        for options in ({}, {"low_cpu_mem_usage": False}):
            with pytest.raises(ValueError, match=f"alice/odd: {message}"):
                ReferenceNetwork.from_pretrained("alice/odd", subfolder=path, **options)
    with pytest.raises(ValueError, match="safetensors only"):
        ReferenceNetwork.from_pretrained(NAME, subfolder="refsr", use_safetensors=False)


def test_private_repositories(hub: HubServer, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("publish", folder, NAME, "--private")[0] == 0
    assert hub.repositories["models", NAME].private
    assert enlarged(DEFPipeline.from_pretrained(NAME)).size == (40, 36)
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    cache = folder.parent / "cache of bob"
    with pytest.raises(OSError, match="no such repository on the Hub, or a private one"):
        DEFPipeline.from_pretrained(NAME, cache_dir=cache)
    with pytest.raises(OSError, match="private repository"):
        ReferenceNetwork.from_pretrained(NAME, subfolder="refsr", cache_dir=cache)
    single = ReferenceNetwork.from_pretrained(NAME, subfolder="refsr", cache_dir=cache, token="hf_alice")
    pipe = DEFPipeline.from_pretrained(NAME, cache_dir=cache, token="hf_alice")
    assert torch.equal(pipe.refsr.aggregator.head.weight, single.aggregator.head.weight)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    hub.put("alice/public", {"README.md": CARD})
    status, _, err = run("publish", folder, "alice/public", "--private")
    assert status == 2 and "exists and is public" in err


# ------------------------------------------------------------------ refusals


def test_from_pretrained_refuses_unknown_keywords_and_wrong_components(folder: Path) -> None:
    for options, message in (
        ({"revison": "v2"}, "no keyword revison; there are subfolder, revision, "),
        ({"dtpye": None, "a": 1}, "no keyword a, dtpye"),
        ({"unet": "google/ddpm"}, "unet: expected a UNet2DModel, as its from_pretrained loads it, got 'google/ddpm'"),
        ({"refsr": make_unet(3, 3)}, "refsr: expected a ReferenceNetwork, .*, got UNet2DModel"),
        ({"scheduler": None}, "scheduler: expected a SchedulerMixin, .*, got None"),
    ):
        with pytest.raises(TypeError, match=message):
            DEFPipeline.from_pretrained(folder, **options)
    with pytest.raises(ValueError, match="safetensors only"):
        DEFPipeline.from_pretrained(folder, use_flashpack=True)
    assert DEFPipeline.from_pretrained(folder, operator="bicubic", window=64).config.window == 64
    with pytest.raises(ValueError, match="operator: refsr was made for .bicubic."):
        DEFPipeline.from_pretrained(folder, operator="box")


def test_keywords_are_those_of_the_base_class() -> None:
    theirs = re.findall(r'kwargs\.pop\(\s*"(\w+)"', inspect.getsource(DiffusionPipeline.from_pretrained))
    ours = {*LOADING, *OPTIONS, "use_safetensors", "use_flashpack"} - {"subfolder"}
    assert ours == set(theirs) and "dtype" in theirs
    assert tuple(COMPONENTS) == tuple(make_tiny_pipe().components)


def test_weights_that_lack_a_tensor(hub: HubServer, folder: Path, run: Run) -> None:
    path = folder / "unet" / f"{WEIGHTS}.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != "conv_out.bias"}, path)
    with pytest.raises(ValueError, match="unet lacks conv_out.bias"):
        DEFPipeline.from_pretrained(folder)
    status, _, err = run("publish", folder, NAME)
    assert status == 2 and "does not load: " in err and "unet lacks conv_out.bias" in err and not hub.uploads()
    assert DEFPipeline.from_pretrained(folder, unet=make_unet(6, 3)) is not None


def test_pickles_are_refused_with_the_reason(hub: HubServer, folder: Path) -> None:
    network = DEFPipeline.from_pretrained(folder)
    (folder / "refsr" / "diffusion_pytorch_model.safetensors").unlink()
    network.refsr.save_pretrained(folder / "refsr", safe_serialization=False)
    hub.put(NAME, contents(folder))
    for name in (NAME, folder):
        with pytest.raises(ValueError, match=r"refsr exists only as refsr/diffusion_pytorch_model.bin, a pickle"):
            DEFPipeline.from_pretrained(name)
        with pytest.raises(ValueError, match="safetensors only"):
            DEFPipeline.from_pretrained(name, use_safetensors=False)
        with pytest.raises(OSError, match=r"safetensors.* A pickle \(\.bin\) is not read: it can run any code"):
            ReferenceNetwork.from_pretrained(str(name), subfolder="refsr")
    with pytest.raises(OSError) as raised:
        ReferenceNetwork.from_pretrained("alice/absent")
    assert "pickle" not in str(raised.value)


def test_diffusion_pipeline_says_what_to_do(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    hub.put(NAME, contents(folder))
    with pytest.raises(ValueError, match="from def_hub import DEFPipeline; DEFPipeline.from_pretrained"):
        DiffusionPipeline.from_pretrained(NAME, cache_dir=tmp_path)
    # for a folder, its error message contains the class name and nothing else
    for local in (folder, EMBEDDED):
        with pytest.raises(AttributeError, match=r"no attribute def_hub\.DEFPipeline"):
            DiffusionPipeline.from_pretrained(local)


def test_missing_repositories_and_folders_are_refused(hub: HubServer) -> None:
    for name, kind, message in (
        ("alice/absent", OSError, "no such repository on the Hub"),
        ("not a name", ValueError, "neither a folder nor a name on the Hub"),
        ("a/b/c", ValueError, "neither a folder nor a name on the Hub"),
    ):
        with pytest.raises(kind, match=message):
            DEFPipeline.from_pretrained(name)
    with pytest.raises(ValueError, match="absent: no such folder"):
        DEFPipeline.from_pretrained(EMBEDDED, subfolder="absent")


# ------------------------------------------------------------------ without the Hub


def test_faults_of_the_hub_while_loading(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    hub.put(NAME, contents(folder))
    with pytest.raises(OSError, match="the token is not valid; log in with `hf auth login`"):
        DEFPipeline.from_pretrained(NAME, token="hf_wrong", cache_dir=tmp_path)
    hub.fail("GET", "/api/models/", 403, times=9, code="GatedRepo")
    with pytest.raises(OSError, match="gated: ask for access"):
        DEFPipeline.from_pretrained(NAME, cache_dir=tmp_path)
    hub.faults.clear()
    hub.fail("GET", "/api/models/", None, times=9)
    with pytest.raises(OSError, match="the connection failed"):
        DEFPipeline.from_pretrained(NAME, cache_dir=tmp_path)


def test_the_cache_is_used_when_the_hub_cannot_be_reached(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    hub.put(NAME, contents(folder))
    cache = tmp_path / "cache"
    first = enlarged(DEFPipeline.from_pretrained(NAME, cache_dir=cache))
    hub.requests.clear()
    again = DEFPipeline.from_pretrained(NAME, cache_dir=cache, local_files_only=True)
    assert enlarged(again).tobytes() == first.tobytes() and hub.requests == []
    hub.fail("GET", "/api/", 503, times=99)
    assert enlarged(DEFPipeline.from_pretrained(NAME, cache_dir=cache)).tobytes() == first.tobytes()
    with pytest.raises(OSError):
        DEFPipeline.from_pretrained(NAME, cache_dir=tmp_path / "empty", local_files_only=True)


def test_offline(hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads HF_HUB_OFFLINE when it is imported, so this runs in a fresh process."""
    hub.put(NAME, contents(folder))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    DEFPipeline.from_pretrained(NAME, cache_dir=tmp_path / "cache")
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = f"""
from def_hub import DEFPipeline, ReferenceNetwork
print(DEFPipeline.from_pretrained({NAME!r}).unet.config.sample_size)
print(ReferenceNetwork.from_pretrained({NAME!r}, subfolder="refsr").config.extractor)
for name, revision in (("alice/never-seen", None), ({NAME!r}, "v2")):
    try:
        DEFPipeline.from_pretrained(name, revision=revision)
    except OSError as error:
        print("refused:", name)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["32", "mini", "refused: alice/never-seen", f"refused: {NAME}"]
    assert hub.requests == []
