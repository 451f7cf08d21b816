"""Publishing and loading again, with the real client and a local server (`helpers/hub_server.py`)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from def_hub import DEFPipeline
from def_hub.hub.fetch import WEIGHTS
from def_hub.pipeline import EMBEDDED

from .conftest import CARD, ROOT, Run, add_detail, contents, enlarged, make_tiny_pipe
from .helpers.hub_server import HubServer

NAME = "alice/def-x4"


def test_push_and_pull_give_the_same_bytes_and_the_same_picture(
    hub: HubServer, folder: Path, tmp_path: Path, run: Run
) -> None:
    (folder / "made-by").mkdir()
    (folder / "made-by" / "settings.json").write_text("{}")
    status, out, err = run("publish", folder, NAME)
    assert (status, err) == (0, "")
    assert "model alice/def-x4 (new)" in out and "add" in out and "unet/diffusion_pytorch_model.safetensors" in out
    assert f"{hub.url}/{NAME}/commit/" in out
    assert hub.files(NAME) == contents(folder)
    again = DEFPipeline.from_pretrained(NAME, cache_dir=tmp_path / "cache")
    assert enlarged(again).tobytes() == enlarged(DEFPipeline.from_pretrained(folder)).tobytes()
    # exactly the files for loading were fetched, byte for byte
    (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
    fetched = contents(snapshot)
    assert set(fetched) == set(contents(folder)) - {"README.md", "made-by/settings.json"}
    assert all(contents(folder)[name] == data for name, data in fetched.items())


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
    assert len(shards) > 2 and not list(folder.rglob(f"{WEIGHTS}.safetensors"))  # the single files were removed
    assert run("publish", folder, NAME)[0] == 0
    assert enlarged(DEFPipeline.from_pretrained(NAME)).tobytes() == enlarged(pipe).tobytes()  # sharded
    hub.requests.clear()
    shutil.rmtree(folder / "unet")
    pipe.unet.save_pretrained(folder / "unet")
    status, out, _ = run("publish", folder, NAME)
    assert status == 0 and "remove" in out and "README.md" not in out
    assert len([m for m, _ in hub.requests if m == "PUT"]) == 1
    assert hub.files(NAME) == contents(folder)


def test_pictures_that_the_card_links_to_are_published(hub: HubServer, folder: Path, run: Run) -> None:
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


def test_without_a_card_one_is_written_from_what_is_known(hub: HubServer, folder: Path, run: Run) -> None:
    (folder / "README.md").unlink()
    words = ["publish", folder, NAME, "--license", "cc-by-4.0", "--base-model", "alice/base"]
    assert run(*words)[0] == 0
    card = hub.files(NAME)["README.md"].decode()
    assert "license: cc-by-4.0" in card and "base_model: alice/base" in card and "Not measured." in card
    # what was measured in the meantime is for a new card; that of the repository stays as somebody may have changed it
    shutil.copytree(EMBEDDED / "made-by", folder / "made-by")
    assert run(*words)[0] == 0 and hub.files(NAME)["README.md"].decode() == card
    assert run("publish", folder, "alice/other")[0] == 0
    card = hub.files("alice/other")["README.md"].decode()
    assert "model-index:" in card and "| MultiView | first | 27 |" in card
    status, _, err = run("publish", folder, NAME, "--card", folder / "absent.md")
    assert status == 2 and "absent.md: no model card there" in err


def test_an_existing_card_is_not_overwritten(hub: HubServer, folder: Path, run: Run) -> None:
    assert run("publish", folder, NAME)[0] == 0
    (folder / "README.md").unlink()
    make_tiny_pipe(seed=7).save_pretrained(folder)
    hub.fail("GET", "/resolve/main/README.md", 503, times=99)
    hub.fail("HEAD", "/resolve/main/README.md", 503, times=99)
    status, _, err = run("publish", folder, NAME)  # the Hub does not answer whether there is a card
    assert status == 2 and len(err.strip().splitlines()) == 1 and hub.files(NAME)["README.md"] == CARD
    hub.faults.clear()
    assert run("publish", folder, NAME, "--revision", "new")[0] == 0
    assert hub.files(NAME, ref="new")["README.md"] == CARD  # a branch starts from main
    del hub.repositories["models", NAME]
    assert run("publish", folder, NAME)[0] == 0
    assert "Not measured." in hub.files(NAME)["README.md"].decode()  # the client still had the old one


# ------------------------------------------------------------------ refusals before anything is sent


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
        (
            lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut"),
            "not readable as safetensors",
        ),
        (
            lambda f: spoil_weights(f / "unet" / "diffusion_pytorch_model.safetensors"),
            "conv_in.weight has NaN or infinity",
        ),
        (
            lambda f: (add_detail(f), spoil_weights(f / "refsr_detail" / f"{WEIGHTS}.safetensors")),
            "refsr_detail: feature_ext",
        ),
    ),
)
def test_an_unusable_folder_is_not_published(
    hub: HubServer, folder: Path, run: Run, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    status, out, err = run("publish", folder, NAME)
    assert status == 2 and out == "" and message in err
    assert len(err.strip().splitlines()) == 1 and err.startswith("def-hub: error: ")
    assert hub.requests == []


def spoil_weights(path: Path) -> None:
    save_file({k: torch.full_like(v, torch.nan) for k, v in load_file(path).items()}, path)


def test_dry_run_shows_and_stops(hub: HubServer, folder: Path, run: Run) -> None:
    status, out, _ = run("publish", folder, NAME, "--dry-run")
    assert status == 0 and "model_index.json" in out and "in all" in out
    assert not hub.uploads() and not hub.repositories


# ------------------------------------------------------------------ pull requests and branches


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


def test_the_same_files_are_not_proposed_twice(
    hub: HubServer, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(NAME, contents(folder))
    repository = hub.repositories["models", NAME]
    repository.refs["v2"] = repository.refs["main"]
    for number, text in enumerate((b"one\n", b"two\n", b"three\n"), 1):  # the server lists two per page
        (folder / "README.md").write_bytes(CARD + text)
        assert run("publish", folder, NAME, "--create-pr")[0] == 0 and len(repository.proposals) == number
    hub.requests.clear()
    status, out, _ = run("publish", folder, NAME, "--create-pr")
    assert status == 0 and "nothing to upload, all 7 files are in pull request 3, which is open" in out
    assert f"{hub.url}/{NAME}/discussions/3" in out and not hub.uploads()
    # another branch, other files or another user make a new pull request
    assert run("publish", folder, NAME, "--create-pr", "--revision", "v2")[0] == 0 and len(repository.proposals) == 4
    (folder / "README.md").write_bytes(CARD + b"four\n")
    assert run("publish", folder, NAME, "--create-pr")[0] == 0 and len(repository.proposals) == 5
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    assert run("publish", folder, NAME, "--create-pr")[0] == 0 and len(repository.proposals) == 6
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    (folder / "README.md").write_bytes(CARD + b"five\n")
    assert run("publish", folder, NAME, "--revision", "refs/pr/5")[0] == 0  # a pull request can be updated
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


# ------------------------------------------------------------------ from Python


def test_push_to_hub_does_the_same_as_the_command(hub: HubServer, tiny_pipe: DEFPipeline, tmp_path: Path) -> None:
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
    # an existing card stays, unless a card is passed
    hub.put(NAME, {"README.md": CARD})
    tiny_pipe.push_to_hub(NAME)
    assert hub.files(NAME)["README.md"] == CARD
    (tmp_path / "card.md").write_bytes(CARD + b"given\n")
    tiny_pipe.push_to_hub(NAME, card=tmp_path / "card.md", revision="v2", max_shard_size="20KB")
    assert hub.files(NAME, ref="v2")["README.md"].endswith(b"given\n")
    assert any("-of-" in name for name in hub.files(NAME, ref="v2"))
    with pytest.raises(ValueError, match="name: expected one like user/model"):
        tiny_pipe.push_to_hub("def-x4")
    with pytest.raises(ValueError, match="use push_to_hub"):  # the base class would publish without checks
        tiny_pipe.save_pretrained(tmp_path / "m", push_to_hub=True)


def test_what_is_published_names_no_path_of_this_machine(hub: HubServer, folder: Path) -> None:
    DEFPipeline.from_pretrained(folder).push_to_hub(NAME)
    assert not [name for name, data in hub.files(NAME).items() if str(folder).encode() in data]


def test_the_embedded_default_is_published_with_its_card(
    hub: HubServer, pipe: DEFPipeline, folder: Path, run: Run
) -> None:
    pipe.push_to_hub(NAME)
    files = hub.files(NAME)
    card = EMBEDDED / "README.md"
    assert files["README.md"] == card.read_bytes() and b"model-index:" in files["README.md"]
    assert {"failures/street.jpg", "failures/CREDITS.md", "made-by/README.md"} <= set(files)
    assert all((EMBEDDED / name).read_bytes() == data for name, data in files.items() if name.startswith("failures/"))
    assert run("publish", EMBEDDED, "alice/again")[0] == 0
    assert hub.files("alice/again") == contents(EMBEDDED)
    # anything else gets a card of its own
    mixed = DEFPipeline.from_pretrained(NAME, window=64)
    mixed.push_to_hub("alice/mixed", license="mit")
    text = hub.files("alice/mixed")["README.md"].decode()
    assert "license: mit" in text and f"base_model: {NAME}" in text and "64 HR pixels at a time" in text
    assert "that of `def-mini`" in text and "Not measured." in text


def test_the_card_is_part_of_the_package() -> None:
    """A wheel holds what is under `weights`, as pyproject.toml says."""
    import tomllib

    from def_hub.hub.new_card import SHIPPED

    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["def_hub"]
    assert "weights/**" in package and SHIPPED.relative_to(ROOT / "def_hub").parts[0] == "weights"
    assert (SHIPPED / "README.md").is_file()


def test_no_licence_is_said(hub: HubServer, folder: Path, run: Run) -> None:
    (folder / "README.md").unlink()
    status, _, err = run("publish", folder, NAME)
    assert status == 0 and "--license ID names one" in err
    assert run("publish", folder, "alice/other", "--license", "mit")[2] == ""
