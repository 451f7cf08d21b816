"""Loading and publishing: the real client against a Hub on loopback (`hub_server.py`)."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.hooks import CpuOffload
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.utils import logging
from safetensors.torch import load_file, save, save_file
from torch import nn

from def_hub import DEFPipeline, ReferenceNetwork, cli
from def_hub.hub import publish
from def_hub.hub.fetch import OPTIONS, WEIGHTS
from def_hub.pipeline import COMPONENTS, LOADING

from .conftest import make_tiny_pipe, make_unet
from .hub_server import HubServer

if TYPE_CHECKING:
    from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "def_hub" / "weights" / "def-mini"
NAME = "alice/def-x4"
CARD = b"---\nlicense: apache-2.0\nlibrary_name: diffusers\npipeline_tag: image-to-image\n---\n\n# tiny\n"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder that is ready to be published."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_bytes(CARD)
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def enlarged(pipe: DEFPipeline, **options: Any) -> "Image.Image":
    pipe.set_progress_bar_config(disable=True)
    noise = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    return pipe(noise[:1, :, :9, :10], noise[1:], generator=torch.Generator().manual_seed(2), **options).images[0]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives (exit status, stdout, stderr)."""
    logging.disable_progress_bar()

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


# ------------------------------------------------------------------ there and back


def test_push_and_pull_give_the_same_bytes_and_the_same_picture(
    hub: HubServer, folder: Path, tmp_path: Path, run: Run
) -> None:
    status, out, err = run("publish", folder, NAME)
    assert (status, err) == (0, "")
    assert "model alice/def-x4 (new)" in out and "add" in out and "unet/diffusion_pytorch_model.safetensors" in out
    assert f"{hub.url}/{NAME}/commit/" in out
    assert hub.files(NAME) == contents(folder)
    again = DEFPipeline.from_pretrained(NAME, cache_dir=tmp_path / "cache")
    assert enlarged(again).tobytes() == enlarged(DEFPipeline.from_pretrained(folder)).tobytes()
    # what was fetched is what is needed to load, byte for byte
    (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
    fetched = contents(snapshot)
    assert set(fetched) == set(contents(folder)) - {"README.md"}
    assert all(contents(folder)[name] == data for name, data in fetched.items())


def test_a_folder_that_is_saved_again_holds_nothing_of_before(folder: Path) -> None:
    pipe = DEFPipeline.from_pretrained(folder)
    plain = contents(folder)
    pipe.save_pretrained(folder, max_shard_size="20KB")
    pipe.save_pretrained(folder, variant="fp16")
    pipe.save_pretrained(folder, variant="fp16", max_shard_size="20KB")
    assert len(list(folder.rglob("*.index.json"))) == len(list(folder.rglob("*.index.fp16.json"))) == 2
    for variant in (None, "fp16"):  # both in shards: their indices are of the same kind
        again = DEFPipeline.from_pretrained(folder, variant=variant)
        assert enlarged(again).tobytes() == enlarged(pipe).tobytes()
    for path in folder.rglob("*fp16*"):
        path.unlink()
    pipe.save_pretrained(folder)
    assert contents(folder) == plain
    # a component that the pipeline has no more; what somebody else laid beside it is his
    add_detail(folder)
    (folder / "refsr_detail" / "notes.txt").write_text("mine")
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text("{}")
    pipe.save_pretrained(folder)
    kept = {"refsr_detail/notes.txt", "other/config.json"}
    assert set(contents(folder)) == {*plain, *kept} and DEFPipeline.from_pretrained(folder).refsr_detail is None
    # of a pipeline that is not ours nothing is known
    index = folder / "model_index.json"
    add_detail(folder)
    index.write_text(index.read_text().replace("def_hub.DEFPipeline", "OtherPipeline"))
    pipe.save_pretrained(folder)
    assert (folder / "refsr_detail" / "config.json").is_file()
    index.write_text("{")  # cut off
    pipe.save_pretrained(folder)
    # nor is a path one of the components
    recorded = json.loads(index.read_text())
    index.write_text(json.dumps(recorded | {"../elsewhere": ["diffusers", "UNet2DModel"]}))
    shutil.copytree(folder / "unet", folder.parent / "elsewhere")
    pipe.save_pretrained(folder)
    assert contents(folder.parent / "elsewhere") == contents(folder / "unet")


def test_a_second_run_uploads_nothing(hub: HubServer, folder: Path, run: Run) -> None:
    assert run("publish", folder, NAME)[0] == 0
    commits = list(hub.repositories["models", NAME].commits)
    hub.requests.clear()
    status, out, _ = run("publish", folder, NAME)
    assert status == 0 and "nothing to upload" in out
    assert not hub.uploads() and all(method == "GET" for method, _ in hub.requests)
    assert list(hub.repositories["models", NAME].commits) == commits


def test_only_what_changed_is_uploaded_and_stale_shards_go(hub: HubServer, folder: Path, run: Run) -> None:
    pipe = DEFPipeline.from_pretrained(folder)
    pipe.save_pretrained(str(folder), max_shard_size="20KB")
    shards = {name for name in contents(folder) if "-of-" in name}
    assert len(shards) > 2 and not list(folder.rglob(f"{WEIGHTS}.safetensors"))  # the whole ones have gone
    assert run("publish", folder, NAME)[0] == 0
    assert enlarged(DEFPipeline.from_pretrained(NAME)).tobytes() == enlarged(pipe).tobytes()  # sharded
    hub.requests.clear()
    shutil.rmtree(folder / "unet")
    pipe.unet.save_pretrained(folder / "unet")
    status, out, _ = run("publish", folder, NAME)
    assert status == 0 and "remove" in out and "README.md" not in out
    assert len([m for m, _ in hub.requests if m == "PUT"]) == 1
    assert hub.files(NAME) == contents(folder)


def test_links_of_the_card_come_with_it(hub: HubServer, folder: Path, run: Run) -> None:
    card = folder.parent / "card.md"
    card.write_bytes(
        CARD + b"\n![what fails](pictures/fail.jpg)\n[elsewhere](https://example.org/x.png) [below](#below)\n"
    )
    status, _, err = run("publish", folder, NAME, "--card", card)
    assert status == 2 and "links to pictures/fail.jpg, which is not there" in err and not hub.uploads()
    (card.parent / "pictures").mkdir()
    (card.parent / "pictures" / "fail.jpg").write_bytes(b"\xff\xd8 a picture")
    assert run("publish", folder, NAME, "--card", card)[0] == 0
    files = hub.files(NAME)
    assert files["README.md"] == card.read_bytes() and files["pictures/fail.jpg"] == b"\xff\xd8 a picture"


def test_without_a_card_one_is_written_that_says_what_is_known(hub: HubServer, folder: Path, run: Run) -> None:
    (folder / "README.md").unlink()
    words = ["publish", folder, NAME, "--license", "cc-by-4.0", "--base-model", "alice/base"]
    assert run(*words)[0] == 0
    card = hub.files(NAME)["README.md"].decode()
    assert "license: cc-by-4.0" in card and "base_model: alice/base" in card and "Nothing was measured" in card
    # what was measured in the meantime is for a new card; that of the repository stays as somebody may have changed it
    shutil.copytree(EMBEDDED / "made-by", folder / "made-by")
    assert run(*words)[0] == 0 and hub.files(NAME)["README.md"].decode() == card
    assert run("publish", folder, "alice/other")[0] == 0
    card = hub.files("alice/other")["README.md"].decode()
    assert "model-index:" in card and "| MultiView | first | 27 |" in card
    status, _, err = run("publish", folder, NAME, "--card", folder / "absent.md")
    assert status == 2 and "absent.md: no model card there" in err


def test_a_card_that_somebody_wrote_is_not_lost(hub: HubServer, folder: Path, run: Run) -> None:
    assert run("publish", folder, NAME)[0] == 0
    (folder / "README.md").unlink()
    make_tiny_pipe(seed=7).save_pretrained(folder)
    hub.fail("GET", "/resolve/main/README.md", 503, times=99)
    hub.fail("HEAD", "/resolve/main/README.md", 503, times=99)
    status, _, err = run("publish", folder, NAME)  # the Hub cannot say whether there is one
    assert status == 2 and len(err.strip().splitlines()) == 1 and hub.files(NAME)["README.md"] == CARD
    hub.faults.clear()
    assert run("publish", folder, NAME, "--revision", "new")[0] == 0
    assert hub.files(NAME, ref="new")["README.md"] == CARD  # a branch begins with what main has
    del hub.repositories["models", NAME]
    assert run("publish", folder, NAME)[0] == 0
    assert "Nothing was measured" in hub.files(NAME)["README.md"].decode()  # the client still had the old one


# ------------------------------------------------------------------ what is refused before anything is sent


@pytest.mark.parametrize(
    ("spoil", "message"),
    (
        (lambda f: (f / "README.md").write_text("# no front matter"), "expected front matter"),
        (lambda f: (f / "README.md").write_bytes(CARD.replace(b"license: apache-2.0\n", b"")), "expected license"),
        (lambda f: (f / "README.md").write_bytes(CARD.replace(b"license:", b"license: [")), "cannot be read"),
        (lambda f: (f / "model_index.json").unlink(), "expected the folder of a pipeline"),
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
            "unet has no diffusion_pytorch_model",
        ),
        (lambda f: (f / "unet" / "optimizer.pt").touch(), "a pickle"),
        (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut"), "does not load"),
        (lambda f: spoil_weights(f / "unet" / "diffusion_pytorch_model.safetensors"), "or one that is not"),
        (lambda f: (add_detail(f), spoil_weights(f / "refsr_detail" / f"{WEIGHTS}.safetensors")), r"picture (detail)"),
    ),
)
def test_a_folder_that_cannot_be_used_is_not_published(
    hub: HubServer, folder: Path, run: Run, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    status, out, err = run("publish", folder, NAME)
    assert status == 2 and out == "" and message in err
    assert len(err.strip().splitlines()) == 1 and err.startswith("def-hub: error: ")
    assert hub.requests == []


def spoil_weights(path: Path) -> None:
    save_file({k: torch.full_like(v, torch.nan) for k, v in load_file(path).items()}, path)


def add_detail(folder: Path) -> ReferenceNetwork:
    """Give a model the optional weights of the preset "detail"."""
    detail = make_tiny_pipe(seed=9).refsr
    DEFPipeline.from_pretrained(folder, refsr_detail=detail).save_pretrained(folder)
    return detail


def test_dry_run_shows_and_stops(hub: HubServer, folder: Path, run: Run) -> None:
    status, out, _ = run("publish", folder, NAME, "--dry-run")
    assert status == 0 and "model_index.json" in out and "in all" in out
    assert not hub.uploads() and not hub.repositories


# ------------------------------------------------------------------ faults of the Hub


def test_a_connection_cut_while_uploading_leaves_nothing_and_the_same_command_goes_on(
    hub: HubServer, folder: Path, run: Run
) -> None:
    assert run("publish", folder, NAME)[0] == 0
    before = hub.files(NAME)
    pipe = make_tiny_pipe(seed=7)
    pipe.save_pretrained(str(folder))
    hub.fail("PUT", "/lfs/", None, times=99, after=1000)  # the client tries each six times
    status, out, err = run("publish", folder, NAME)
    assert status == 2 and "the connection failed" in err and "the same command goes on" in err
    assert len(err.strip().splitlines()) == 1
    assert hub.files(NAME) == before and len(hub.repositories["models", NAME].commits) == 2  # nothing half-published
    stored = len(hub.repositories["models", NAME].objects)
    hub.faults.clear()
    hub.requests.clear()
    status, out, err = run("publish", folder, NAME)
    assert status == 0 and hub.files(NAME) == contents(folder)
    sent = len([m for m, _ in hub.requests if m == "PUT"])
    assert sent == len(hub.repositories["models", NAME].objects) - stored  # what had arrived is not sent again


def test_a_connection_cut_once_goes_unnoticed(hub: HubServer, folder: Path, run: Run) -> None:
    hub.fail("PUT", "/lfs/", None, times=1, after=1000)
    hub.fail("POST", "/objects/batch", 503, times=2)
    assert run("publish", folder, NAME)[0] == 0
    assert hub.files(NAME) == contents(folder)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    (
        ("POST", "/commit/", 500, "the same command goes on later"),
        ("POST", "/commit/", 412, "somebody else committed meanwhile"),
        ("POST", "/commit/", 409, "run the same command again"),
        ("POST", "/commit/", None, "the connection failed"),
        ("POST", "/verify", 404, "HTTP 404"),
        ("POST", "repos/create", 403, "may not write there"),
        ("POST", "/preupload/", 401, "hf auth login"),
        ("GET", "/api/models/", 500, "the same command goes on later"),
    ),
)
def test_every_fault_is_one_line_and_leaves_no_revision(
    hub: HubServer, folder: Path, run: Run, method: str, path: str, status: int | None, message: str
) -> None:
    hub.fail(method, path, status, times=9)
    code, _, err = run("publish", folder, NAME)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1
    repository = hub.repositories.get(("models", NAME))
    assert repository is None or list(repository.commits) == [repository.refs["main"]]  # as it was made, empty
    hub.faults.clear()
    assert run("publish", folder, NAME)[0] == 0 and hub.files(NAME) == contents(folder)


def test_a_commit_in_between_is_not_overwritten(hub: HubServer, folder: Path) -> None:
    publish.carry_out(publish.plan(NAME, publish.model_files(folder)))
    (folder / "README.md").write_bytes(CARD + b"mine\n")
    prepared = publish.plan(NAME, publish.model_files(folder))
    hub.put(NAME, {"README.md": CARD + b"theirs\n"})
    with pytest.raises(OSError, match="somebody else committed meanwhile"):
        publish.carry_out(prepared)
    assert hub.files(NAME)["README.md"].endswith(b"theirs\n")


def test_what_is_there_by_then_makes_no_commit(hub: HubServer, folder: Path) -> None:
    hub.put(NAME, {"README.md": CARD})
    same = [publish.plan(NAME, publish.model_files(folder)) for _ in range(2)]
    publish.carry_out(same[0])
    commits = list(hub.repositories["models", NAME].commits)
    hub.requests.clear()
    publish.carry_out(same[1])  # the client learns from the Hub that nothing of it is new
    assert ("POST", f"/api/models/{NAME}/preupload/main") in hub.requests and not hub.uploads()
    assert list(hub.repositories["models", NAME].commits) == commits


def test_a_repository_that_was_made_in_between_is_used_if_it_is_empty(hub: HubServer, folder: Path) -> None:
    prepared, late = (publish.plan(NAME, publish.model_files(folder)) for _ in range(2))
    hub.create("models", NAME, "alice")  # the Hub now answers 409 to the wish to make it
    publish.carry_out(prepared)
    assert ("POST", "/api/repos/create") in hub.requests and hub.files(NAME) == contents(folder)
    with pytest.raises(OSError, match="somebody else made it meanwhile"):
        publish.carry_out(late)


def test_of_two_who_publish_at_once_one_is_told_to_look_again(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    make_tiny_pipe(seed=7).save_pretrained(tmp_path / "other")
    for _ in range(2):  # a new repository, then one that exists
        plans = [publish.plan(NAME, publish.model_files(f)) for f in (folder, tmp_path / "other")]
        with ThreadPoolExecutor() as pool:
            done = [pool.submit(publish.carry_out, plan).exception() for plan in plans]
        (refused,) = [error for error in done if error is not None]
        assert isinstance(refused, OSError) and "somebody else" in str(refused)
        winner = (folder, tmp_path / "other")[done.index(None)]
        assert hub.files(NAME) == contents(winner)  # nothing of the other's in it
        for f in (folder, tmp_path / "other"):
            (f / "README.md").write_bytes(CARD + f"better, says {f.name}\n".encode())


def test_wrong_tokens_and_names(hub: HubServer, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("def-x4", "a/b/c", "alice/with space"):
        status, _, err = run("publish", folder, name)
        assert status == 2 and len(err.strip().splitlines()) == 1
    assert hub.requests == []
    status, _, err = run("publish", folder, "bob/def-x4")
    assert status == 2 and "may not write there" in err
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    status, _, err = run("publish", folder, NAME)
    assert status == 2 and "hf auth login" in err
    assert not hub.repositories


def test_in_somebody_elses_repository_one_may_only_propose(hub: HubServer, folder: Path, run: Run) -> None:
    hub.put("bob/def-x4", contents(folder))
    (folder / "README.md").write_bytes(CARD + b"better\n")
    status, _, err = run("publish", folder, "bob/def-x4")
    assert status == 2 and "this token may not write there" in err
    assert hub.files("bob/def-x4")["README.md"] == CARD and not [m for m, _ in hub.requests if m == "PUT"]
    assert run("publish", folder, "bob/def-x4", "--create-pr")[0] == 0
    assert hub.files("bob/def-x4", ref="refs/pr/1") == contents(folder)


# ------------------------------------------------------------------ pull requests, revisions, private repositories


def test_pull_request(hub: HubServer, folder: Path, run: Run) -> None:
    assert run("publish", folder, NAME)[0] == 0
    before = hub.files(NAME)
    (folder / "README.md").write_bytes(CARD + b"better\n")
    status, out, _ = run("publish", folder, NAME, "--create-pr")
    assert status == 0 and f"{hub.url}/{NAME}/discussions/1" in out
    assert hub.files(NAME) == before and hub.files(NAME, ref="refs/pr/1") == contents(folder)
    status, _, err = run("publish", folder, "alice/absent", "--create-pr")
    assert status == 2 and "no such repository" in err
    status, _, err = run("publish", folder, NAME, "--create-pr", "--space")
    assert status == 2 and f"space {NAME}: no such repository" in err


def test_what_is_proposed_is_not_proposed_again(
    hub: HubServer, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(NAME, contents(folder))
    repository = hub.repositories["models", NAME]
    repository.refs["v2"] = repository.refs["main"]
    for number, text in enumerate((b"one\n", b"two\n", b"three\n"), 1):  # the server gives two on a page
        (folder / "README.md").write_bytes(CARD + text)
        assert run("publish", folder, NAME, "--create-pr")[0] == 0 and len(repository.proposals) == number
    hub.requests.clear()
    status, out, _ = run("publish", folder, NAME, "--create-pr")
    assert status == 0 and "nothing to upload, all 7 files are in pull request 3, which is open" in out
    assert f"{hub.url}/{NAME}/discussions/3" in out and not hub.uploads()
    # for another branch, with other files, or as somebody else it is another proposal
    assert run("publish", folder, NAME, "--create-pr", "--revision", "v2")[0] == 0 and len(repository.proposals) == 4
    (folder / "README.md").write_bytes(CARD + b"four\n")
    assert run("publish", folder, NAME, "--create-pr")[0] == 0 and len(repository.proposals) == 5
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    assert run("publish", folder, NAME, "--create-pr")[0] == 0 and len(repository.proposals) == 6
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    (folder / "README.md").write_bytes(CARD + b"five\n")
    assert run("publish", folder, NAME, "--revision", "refs/pr/5")[0] == 0  # a proposal may be changed
    assert hub.files(NAME, ref="refs/pr/5") == contents(folder) and len(repository.proposals) == 6


def test_revisions(hub: HubServer, folder: Path, run: Run, tmp_path: Path) -> None:
    assert run("publish", folder, NAME)[0] == 0
    other = make_tiny_pipe(seed=3)
    other.save_pretrained(str(folder))
    assert run("publish", folder, NAME, "--revision", "v2")[0] == 0  # a new branch
    assert hub.files(NAME, ref="v2") == contents(folder) != hub.files(NAME)
    sha = hub.repositories["models", NAME].refs["v2"]
    for revision in ("v2", sha):
        assert enlarged(DEFPipeline.from_pretrained(NAME, revision=revision)).tobytes() == enlarged(other).tobytes()
    assert enlarged(DEFPipeline.from_pretrained(NAME)).tobytes() != enlarged(other).tobytes()
    with pytest.raises(OSError, match="has no revision 'v3'"):
        DEFPipeline.from_pretrained(NAME, revision="v3")
    status, _, err = run("publish", folder, NAME, "--revision", sha)
    assert status == 2 and f"expected a branch, got {sha}, a commit" in err


def test_private_repositories(hub: HubServer, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("publish", folder, NAME, "--private")[0] == 0
    assert hub.repositories["models", NAME].private
    assert enlarged(DEFPipeline.from_pretrained(NAME)).size == (40, 36)
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    cache = folder.parent / "cache of bob"
    with pytest.raises(OSError, match="no such repository on the Hub, or a private one"):
        DEFPipeline.from_pretrained(NAME, cache_dir=cache)
    assert DEFPipeline.from_pretrained(NAME, cache_dir=cache, token="hf_alice") is not None
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    hub.put("alice/public", {"README.md": CARD})
    status, _, err = run("publish", folder, "alice/public", "--private")
    assert status == 2 and "exists and is public" in err


# ------------------------------------------------------------------ loading


def test_subfolder_variant_and_components_of_ones_own(hub: HubServer, tmp_path: Path) -> None:
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
    # one component has the variant, the others are taken as they are
    b = DEFPipeline.from_pretrained(NAME, subfolder="x4/v1.0", variant="fp16", dtype=torch.float32, cache_dir=variant)
    assert fetched(variant) == {"diffusion_pytorch_model.fp16.safetensors"}
    assert torch.equal(b.unet.conv_in.weight, half.unet.conv_in.weight.float())
    with pytest.raises(ValueError, match="no component has weights of the variant 'int8'"):
        DEFPipeline.from_pretrained(NAME, subfolder="x4/v1.0", variant="int8")
    # a prior of one's own, unconditional: the stored one is not even fetched
    prior = make_unet(3, 3)
    c = DEFPipeline.from_pretrained(NAME, subfolder="x4/v1.0", unet=prior, cache_dir=own)
    assert c.unet is prior and fetched(own) == set() and enlarged(c).size == (40, 36)
    with pytest.raises(ValueError, match="has no model_index.json"):
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
    # one that is missing
    next(tmp_path.glob("unet/*-00002-of-*")).unlink()
    with pytest.raises(OSError, match="-00002-of-"):
        DEFPipeline.from_pretrained(tmp_path, variant="fp16")


def put_ddpm(hub: HubServer, folder: Path) -> None:
    """As google/ddpm-…: the network at the top, its scheduler beside it."""
    torch.manual_seed(5)
    make_unet(3, 3).save_pretrained(folder)
    DDPMScheduler().save_pretrained(folder)
    hub.put("google/ddpm", contents(folder))


def test_a_prior_of_the_hub(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    put_ddpm(hub, tmp_path / "ddpm")
    hub.put(NAME, contents(folder))
    unet = UNet2DModel.from_pretrained("google/ddpm")
    pipe = DEFPipeline.from_pretrained(NAME, unet=unet, scheduler=DDPMScheduler.from_pretrained("google/ddpm"))
    assert pipe.unet is unet and isinstance(pipe.scheduler, DDPMScheduler) and enlarged(pipe).size == (40, 36)


def test_what_from_pretrained_does_not_take(folder: Path) -> None:
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
    assert DEFPipeline.from_pretrained(folder, operator="box", window=64).config.window == 64


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


def test_weights_for_the_preset_detail(hub: HubServer, folder: Path, tmp_path: Path, run: Run) -> None:
    detail = add_detail(folder)
    (folder / "README.md").unlink()
    assert run("publish", folder, NAME)[0] == 0
    assert "| `refsr_detail` | 154,320 |" in hub.files(NAME)["README.md"].decode()
    pipe = DEFPipeline.from_pretrained(NAME)
    assert all(torch.equal(v, pipe.refsr_detail.state_dict()[k]) for k, v in detail.state_dict().items())
    single = ReferenceNetwork.from_pretrained(NAME, subfolder="refsr_detail")
    assert all(torch.equal(v, single.state_dict()[k]) for k, v in detail.state_dict().items())
    # who does not want them does not fetch them
    pipe = DEFPipeline.from_pretrained(NAME, refsr_detail=None, cache_dir=tmp_path / "cache")
    assert pipe.refsr_detail is None and not list((tmp_path / "cache").rglob("refsr_detail/*"))
    # and a version without them takes them out of the repository
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
        ("unet", None, "lacks "),  # another network's
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
    # of a folder it looks up the class and nothing else: the name of it is all that can be said
    for local in (folder, EMBEDDED):
        with pytest.raises(AttributeError, match=r"no attribute def_hub\.DEFPipeline"):
            DiffusionPipeline.from_pretrained(local)


def test_what_does_not_exist(hub: HubServer) -> None:
    for name, kind, message in (
        ("alice/absent", OSError, "no such repository on the Hub"),
        ("not a name", ValueError, "neither a folder nor a name on the Hub"),
        ("a/b/c", ValueError, "neither a folder nor a name on the Hub"),
    ):
        with pytest.raises(kind, match=message):
            DEFPipeline.from_pretrained(name)
    with pytest.raises(ValueError, match="absent: no such folder"):
        DEFPipeline.from_pretrained(EMBEDDED, subfolder="absent")


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


def test_the_cache_serves_when_the_hub_does_not(hub: HubServer, folder: Path, tmp_path: Path) -> None:
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
    """HF_HUB_OFFLINE is read when the client is imported: a process of its own."""
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


@pytest.mark.parametrize("placing", ({"device_map": "cpu"}, {"low_cpu_mem_usage": False}, {"low_cpu_mem_usage": True}))
def test_ways_onto_a_device(hub: HubServer, folder: Path, placing: dict[str, Any]) -> None:
    hub.put(NAME, contents(folder))
    placed = DEFPipeline.from_pretrained(NAME, **placing)
    assert enlarged(placed).tobytes() == enlarged(DEFPipeline.from_pretrained(folder)).tobytes()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("placing", ("", "device_map='cpu'", "dtype=torch.float16", "low_cpu_mem_usage=False"))
def test_weights_are_never_held_twice(large: Path, placing: str) -> None:
    """A process of its own, whose memory is watched while it loads: what is not a mapped page of the file itself."""
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

DEFPipeline.from_pretrained()  # what the first load costs anyway
seen = []
before = megabytes()
threading.Thread(target=watch, daemon=True).start()
pipe = DEFPipeline.from_pretrained({str(large)!r}, {placing})
parameters = [p for part in (pipe.unet, pipe.refsr) for p in part.parameters()]
total = float(sum(p.sum(dtype=torch.float32) for p in parameters))  # reads them all
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
def test_weights_that_are_brought_for_each_layer(folder: Path, tmp_path: Path, where: str) -> None:
    """Accelerate's offloading, the CPU being the device: outside its turn a layer has no weights."""
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
    """Without a GPU: what Accelerate's hooks bring to the device, and send back, is written down instead of moved."""
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
    assert tiny_pipe.model_cpu_offload_seq.split("->") == list(parts)  # each of them, in the order of the steps
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
    assert seen == {"unet", "refsr_detail" if detail else "refsr"} and not there  # all of them were sent back
    assert picture.size == (40, 36)


def test_cpu_offload_wants_an_accelerator(tiny_pipe: DEFPipeline) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    for offload in (tiny_pipe.enable_model_cpu_offload, tiny_pipe.enable_sequential_cpu_offload):
        with pytest.raises(RuntimeError, match="requires accelerator, but not found"):
            offload()
    assert enlarged(tiny_pipe).size == (40, 36)  # as usable as before


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


# ------------------------------------------------------------------ from Python


def test_push_to_hub_is_the_same_path(hub: HubServer, tiny_pipe: DEFPipeline, tmp_path: Path) -> None:
    url = tiny_pipe.push_to_hub(NAME, private=True, base_model="alice/base", commit_message="first")
    repository = hub.repositories["models", NAME]
    assert repository.private and repository.messages[repository.refs["main"]] == "first"
    assert url == f"{hub.url}/{NAME}/commit/{repository.refs['main']}"
    card = hub.files(NAME)["README.md"].decode()
    assert "base_model: alice/base" in card and "license: unknown" in card and f'from_pretrained("{NAME}")' in card
    assert json.loads(hub.files(NAME)["model_index.json"])["_class_name"] == "def_hub.DEFPipeline"
    assert enlarged(DEFPipeline.from_pretrained(NAME)).tobytes() == enlarged(tiny_pipe).tobytes()

    hub.requests.clear()
    tiny_pipe.push_to_hub(NAME)
    assert not hub.uploads()
    # a card that somebody wrote stays, unless another one is given
    hub.put(NAME, {"README.md": CARD})
    tiny_pipe.push_to_hub(NAME)
    assert hub.files(NAME)["README.md"] == CARD
    (tmp_path / "card.md").write_bytes(CARD + b"given\n")
    tiny_pipe.push_to_hub(NAME, card=tmp_path / "card.md", revision="v2", max_shard_size="20KB")
    assert hub.files(NAME, ref="v2")["README.md"].endswith(b"given\n")
    assert any("-of-" in name for name in hub.files(NAME, ref="v2"))
    with pytest.raises(ValueError, match="name: expected one like user/model"):
        tiny_pipe.push_to_hub("def-x4")
    with pytest.raises(ValueError, match="use push_to_hub"):  # the base class would publish without any check
        tiny_pipe.save_pretrained(tmp_path / "m", push_to_hub=True)


def test_what_is_published_names_no_path_of_this_machine(hub: HubServer, folder: Path) -> None:
    DEFPipeline.from_pretrained(folder).push_to_hub(NAME)
    assert not [name for name, data in hub.files(NAME).items() if str(folder).encode() in data]


# ------------------------------------------------------------------ any prior of the Hub


def test_assembled_from_parts_of_the_hub(hub: HubServer, folder: Path, tmp_path: Path, run: Run) -> None:
    put_ddpm(hub, tmp_path / "ddpm")
    hub.put(NAME, contents(folder))
    words = ["assemble", "--config", "def-mini", "--unet", "google/ddpm", "-o", tmp_path / "out"]
    status, _, err = run(*words, "--refsr", NAME)
    assert status == 2 and "has folded=False, which is not def-mini" in err and not (tmp_path / "out").exists()
    extractor = make_tiny_pipe(seed=4).refsr.feature_extractor.state_dict()
    save_file(extractor, tmp_path / "extractor.safetensors")
    hub.put("alice/extractor", {"extractor.safetensors": (tmp_path / "extractor.safetensors").read_bytes()})
    words += ["--refsr", EMBEDDED, "--refsr-detail", EMBEDDED / "refsr", "--extractor", "alice/extractor"]
    status, out, err = run(*words, "--dtype", "float16")
    assert (status, err) == (0, "") and str(tmp_path / "out") in out and "refsr_detail 1.6 M" in out
    pipe = DEFPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    found = pipe.refsr.feature_extractor.state_dict()
    assert all(torch.equal(found[k], v.half().float()) for k, v in extractor.items())
    assert pipe.refsr_detail is not None
    assert pipe.unet.config.in_channels == 3 and isinstance(pipe.scheduler, DDPMScheduler)
    assert enlarged(pipe).size == (40, 36)
    made = (tmp_path / "out" / "README.md").read_text()
    assert "google/ddpm" in made and "alice/extractor" in made and "| `refsr_detail` |" in made
