"""`def-hub convert` and `def-hub assemble`: files of other projects → a folder that loads and runs."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from def_hub import DEFPipeline, ReferenceNetwork, cli
from def_hub.assemble import assemble
from def_hub.convert import convert_vgg19
from def_hub.observation.downsample import make_operator
from def_hub.pipeline import EMBEDDED

from .conftest import Run, contents, enlarged, make_tiny_pipe, make_unet, put_ddpm
from .helpers import foreign
from .helpers.hub_server import HubServer
from .helpers.pictures import picture


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    make_unet(3, 3).save_pretrained(tmp_path / "prior" / "unet")
    DDIMScheduler().save_pretrained(tmp_path / "prior" / "scheduler")
    return tmp_path / "prior"


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The single line of a failing command's error message."""
    assert cli.main([str(word) for word in words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Loading" not in line]
    assert line.startswith("def-hub: error: ")
    return line


def test_adm_and_ttsr_become_a_pipeline(tmp_path: Path) -> None:
    """OpenAI's prior and TTSR's network, converted and assembled by the commands."""
    adm = foreign.ADM(multipliers=(1, 2), attention=(False, True))
    torch.save(adm.random_state(), tmp_path / "adm.pt")
    torch.save(foreign.ttsr_state(), tmp_path / "ttsr.pt")
    words = ["convert", "adm", tmp_path / "adm.pt", "-o", tmp_path / "adm", "--image-size", 32, "--head-channels", 32]
    assert cli.main([str(w) for w in words]) == 0
    assert cli.main(["convert", "ttsr", str(tmp_path / "ttsr.pt"), "-o", str(tmp_path / "ttsr")]) == 0
    words = ["assemble", "--config", "base", "--unet", tmp_path / "adm", "--refsr", tmp_path / "ttsr"]
    assert cli.main([str(w) for w in [*words, "-o", tmp_path / "out"]]) == 0

    unet = UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet")
    x, timestep = torch.randn(1, 3, 32, 32), torch.tensor([40])
    with torch.no_grad():
        assert torch.allclose(unet(x, timestep).sample, adm(adm.random_state(), x, timestep), atol=1e-4)
    pipe = DEFPipeline.from_pretrained(tmp_path / "out")
    assert pipe.refsr.config.ttsr and enlarged(pipe).size == (40, 36)
    # the pipeline gives TTSR's result, except for the projection
    y, sharp = torch.rand(1, 3, 9, 10), picture(40, 32)
    output = pipe(
        y, sharp, matching_image="bicubic", refine=False, precision="float32", consistency=False, output_type="pt"
    )
    operator = pipe.refsr._operator
    views = operator.upsample(y), sharp, operator.upsample(operator.forward(sharp).clamp(0, 1))
    expected = foreign.ttsr(foreign.ttsr_state(), y, *views)
    assert (output.images[0] - expected[0].clamp(0, 1)).abs().max() < 1e-4


def test_vgg19_becomes_the_extractor_of_def_base(tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = foreign.vgg19_state(shrink=16)
    save_file(state, tmp_path / "vgg19.safetensors")
    assert cli.main(["convert", "vgg19", str(tmp_path / "vgg19.safetensors"), "-o", str(tmp_path / "vgg")]) == 0
    # def-base with smaller sizes, so that the test is quick
    monkeypatch.setattr("def_hub.assemble._arguments", lambda c: {"features": (8, 8, 8), "blocks": (1, 1, 1, 1)})
    pipe = assemble("def-base", unet=prior, extractor=tmp_path / "vgg" / "extractor.safetensors")
    assert pipe.refsr.config.extractor == "vgg19_imagenet"
    image = torch.rand(1, 3, 16, 20)
    for actual, expected in zip(pipe.refsr.feature_extractor(image), foreign.vgg19(state, image), strict=True):
        assert torch.allclose(actual, expected, atol=1e-4)
    pipe.save_pretrained(tmp_path / "out")
    again = DEFPipeline.from_pretrained(tmp_path / "out")
    assert again.refsr.config.extractor == "vgg19_imagenet"
    assert enlarged(again).tobytes() == enlarged(pipe).tobytes()


def test_an_extractor_replaces_the_stored_one(tmp_path: Path, prior: Path) -> None:
    torch.manual_seed(2)
    stored = ReferenceNetwork("vgg19", (8, 8, 8), (1, 1, 1, 1))
    stored.save_pretrained(tmp_path / "refsr")
    other = convert_vgg19(foreign.vgg19_state(shrink=16)).state_dict()
    save_file(other, tmp_path / "plain.safetensors")
    save_file(other, tmp_path / "named.safetensors", metadata={"extractor": "vgg19_imagenet"})
    for name, kind in (("plain", "vgg19"), ("named", "vgg19_imagenet")):
        network = assemble("def-base", unet=prior, refsr=tmp_path, extractor=tmp_path / f"{name}.safetensors").refsr
        assert network.config.extractor == kind
        weights = network.state_dict()
        assert all(torch.equal(weights[f"feature_extractor.{k}"], v) for k, v in other.items())
        rest = [k for k in weights if not k.startswith("feature_extractor.")]
        assert rest and all(torch.equal(weights[k], stored.state_dict()[k]) for k in rest)


def test_parts_that_do_not_fit_give_a_one_line_error_and_write_nothing(
    tmp_path: Path, prior: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    shutil.copytree(prior, tmp_path / "mute")
    shutil.rmtree(tmp_path / "mute" / "scheduler")
    shutil.copytree(prior, tmp_path / "pickled")
    (tmp_path / "pickled" / "unet" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "pickled/unet/x.bin")
    make_unet(5, 3).save_pretrained(tmp_path / "odd" / "unet")
    shutil.copytree(prior / "scheduler", tmp_path / "odd" / "scheduler")
    words = ["assemble", "--config", "def-base", "-o", tmp_path / "out", "--unet"]
    refsr = ["--refsr", tiny_model]
    for rest, message in (
        ([prior], "expected at least one of them"),
        ([prior, *refsr], "has extractor='mini', which is not def-base (extractor='vgg19')"),
        ([prior, "--extractor", tmp_path / "a.safetensors"], "does not fit"),
        ([prior, "--extractor", tmp_path / "absent"], "neither a folder nor a name on the Hub"),
        ([prior, "--extractor", prior], "has no extractor.safetensors"),
        ([tmp_path / "mute", "--extractor", "x"], "has no scheduler_config.json"),
        ([tmp_path / "pickled", "--extractor", "x"], "unet exists only as unet/x.bin, a pickle"),
        ([tmp_path / "empty name", "--extractor", "x"], "neither a folder nor a name on the Hub"),
        ([tiny_model / "refsr", "--extractor", "x"], "expected a UNet2DModel, got 'ReferenceNetwork'"),
    ):
        assert message in fails(capsys, *words, *rest)
    assert "does not run" in fails(
        capsys, "assemble", "--config", "def-mini", "-o", tmp_path / "out", "--unet", tmp_path / "odd",
        "--refsr", Path(__file__).resolve().parents[1] / "def_hub" / "weights" / "def-mini",
    )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert "exists already" in fails(capsys, *words[:3], "-o", prior, "--unet", prior, *refsr)
    assert "not a guided-diffusion U-Net" in fails(
        capsys, "convert", "adm", tmp_path / "a.safetensors", "-o", tmp_path / "out"
    )
    assert "absent: no such file" in fails(capsys, "convert", "ttsr", tmp_path / "absent", "-o", tmp_path / "out")
    assert load_file(prior / "unet" / "diffusion_pytorch_model.safetensors")  # unchanged


def test_parts_of_the_hub_can_be_assembled(hub: HubServer, folder: Path, tmp_path: Path, run: Run) -> None:
    put_ddpm(hub, tmp_path / "ddpm")
    hub.put("alice/def-x4", contents(folder))
    words = ["assemble", "--config", "def-mini", "--unet", "google/ddpm", "-o", tmp_path / "out"]
    status, _, err = run(*words, "--refsr", "alice/def-x4")
    assert status == 2 and "has folded=False, which is not def-mini" in err and not (tmp_path / "out").exists()
    extractor = make_tiny_pipe(seed=4).refsr.feature_extractor.state_dict()
    save_file(extractor, tmp_path / "extractor.safetensors")
    hub.put("alice/extractor", {"extractor.safetensors": (tmp_path / "extractor.safetensors").read_bytes()})
    words += ["--refsr", EMBEDDED, "--refsr-detail", EMBEDDED / "refsr", "--extractor", "alice/extractor"]
    status, out, err = run(*words, "--dtype", "float16")
    assert (status, err) == (0, "") and str(tmp_path / "out") in out and "refsr_detail 1.6 M" in out
    pipe = DEFPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    loaded = pipe.refsr.feature_extractor.state_dict()
    assert all(torch.equal(loaded[k], v.half().float()) for k, v in extractor.items())
    assert pipe.refsr_detail is not None
    assert pipe.unet.config.in_channels == 3 and isinstance(pipe.scheduler, DDPMScheduler)
    assert enlarged(pipe).size == (40, 36)
    made = (tmp_path / "out" / "README.md").read_text()
    assert 'from_pretrained("out")  # its folder; on the Hub, the name of this repository' in made
    assert "google/ddpm" in made and "alice/extractor" in made and "| `refsr_detail` |" in made


@pytest.mark.parametrize("operator", ["box", "bicubic", "matlab"])
def test_one_operator_inside_and_outside(
    tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    monkeypatch.setattr("def_hub.assemble._arguments", lambda c: {"features": (8, 8, 8), "blocks": (1, 1, 1, 1)})
    save_file(convert_vgg19(foreign.vgg19_state(shrink=16)).state_dict(), tmp_path / "vgg.safetensors")
    pipe = assemble("def-base", unet=prior, extractor=tmp_path / "vgg.safetensors", operator=operator)
    assert pipe.config.operator == pipe.refsr.config.operator == operator
    x = picture(32, 36)
    assert torch.equal(pipe.refsr._operator.forward(x), make_operator(operator).forward(x))
    pipe.save_pretrained(tmp_path / "out")
    again = DEFPipeline.from_pretrained(tmp_path / "out")
    assert again.config.operator == again.refsr.config.operator == operator
    other = "box" if operator == "bicubic" else "bicubic"
    with pytest.raises(ValueError, match=f"operator: refsr was made for '{operator}', the pipeline .* '{other}'"):
        assemble("def-base", unet=prior, refsr=tmp_path / "out", operator=other)


def test_a_pipeline_refuses_networks_for_another_operator(tiny_pipe: DEFPipeline) -> None:
    parts = {"unet": tiny_pipe.unet, "scheduler": tiny_pipe.scheduler, "refsr": tiny_pipe.refsr}
    with pytest.raises(ValueError, match="operator: refsr was made for 'bicubic'"):
        DEFPipeline(**parts, operator="box")
    detail = ReferenceNetwork("mini", (8, 8, 8), (1, 1, 1, 1), operator="box")
    with pytest.raises(ValueError, match="operator: refsr_detail was made for 'box'"):
        DEFPipeline(**parts, refsr_detail=detail)
