"""Publishing when the Hub or the connection fails, or somebody else publishes at the same time."""

import logging
import shutil
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from def_hub import DEFPipeline
from def_hub.hub import publish

from .conftest import CARD, Run, contents, make_tiny_pipe
from .helpers.hub_server import HubServer

NAME = "alice/def-x4"


def test_a_cut_connection_publishes_nothing_and_the_same_command_continues(
    hub: HubServer, folder: Path, run: Run
) -> None:
    assert run("publish", folder, NAME)[0] == 0
    before = hub.files(NAME)
    pipe = make_tiny_pipe(seed=7)
    pipe.save_pretrained(str(folder))
    hub.fail("PUT", "/lfs/", None, times=99, after=1000)  # the client tries each upload six times
    status, out, err = run("publish", folder, NAME)
    assert status == 2 and "the connection failed" in err and "run the same command again to continue" in err
    assert len(err.strip().splitlines()) == 1
    assert hub.files(NAME) == before and len(hub.repositories["models", NAME].commits) == 2  # no partial commit
    stored = len(hub.repositories["models", NAME].objects)
    hub.faults.clear()
    hub.requests.clear()
    status, out, err = run("publish", folder, NAME)
    assert status == 0 and hub.files(NAME) == contents(folder)
    sent = len([m for m, _ in hub.requests if m == "PUT"])
    assert sent == len(hub.repositories["models", NAME].objects) - stored  # files that had arrived are not sent again


def test_a_connection_that_is_cut_once_is_retried(hub: HubServer, folder: Path, run: Run) -> None:
    hub.fail("PUT", "/lfs/", None, times=1, after=1000)
    hub.fail("POST", "/objects/batch", 503, times=2)
    assert run("publish", folder, NAME)[0] == 0
    assert hub.files(NAME) == contents(folder)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    (
        ("POST", "/commit/", 500, "run the same command again later to continue"),
        ("POST", "/commit/", 412, "somebody else committed meanwhile"),
        ("POST", "/commit/", 409, "run the same command again"),
        ("POST", "/commit/", None, "the connection failed"),
        ("POST", "/verify", 404, "HTTP 404"),
        ("POST", "repos/create", 403, "may not write there"),
        ("POST", "/preupload/", 401, "hf auth login"),
        ("GET", "/api/models/", 500, "run the same command again later to continue"),
    ),
)
def test_every_fault_gives_a_one_line_error_and_no_commit(
    hub: HubServer, folder: Path, run: Run, method: str, path: str, status: int | None, message: str
) -> None:
    hub.fail(method, path, status, times=9)
    code, _, err = run("publish", folder, NAME)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1
    repository = hub.repositories.get(("models", NAME))
    assert repository is None or list(repository.commits) == [repository.refs["main"]]  # no commit after the first
    hub.faults.clear()
    assert run("publish", folder, NAME)[0] == 0 and hub.files(NAME) == contents(folder)


# ------------------------------------------------------------------ concurrent publishing


def test_a_commit_made_meanwhile_is_not_overwritten(hub: HubServer, folder: Path) -> None:
    publish.carry_out(publish.plan(NAME, publish.model_files(folder)))
    (folder / "README.md").write_bytes(CARD + b"mine\n")
    prepared = publish.plan(NAME, publish.model_files(folder))
    hub.put(NAME, {"README.md": CARD + b"theirs\n"})
    with pytest.raises(OSError, match="somebody else committed meanwhile"):
        publish.carry_out(prepared)
    assert hub.files(NAME)["README.md"].endswith(b"theirs\n")


def test_files_that_somebody_else_published_meanwhile_make_no_commit(hub: HubServer, folder: Path) -> None:
    hub.put(NAME, {"README.md": CARD})
    same = [publish.plan(NAME, publish.model_files(folder)) for _ in range(2)]
    publish.carry_out(same[0])
    commits = list(hub.repositories["models", NAME].commits)
    hub.requests.clear()
    publish.carry_out(same[1])  # the Hub tells the client that no file is new
    assert ("POST", f"/api/models/{NAME}/preupload/main") in hub.requests and not hub.uploads()
    assert list(hub.repositories["models", NAME].commits) == commits


def test_a_repository_that_was_created_meanwhile_is_used_if_it_is_empty(hub: HubServer, folder: Path) -> None:
    prepared, late = (publish.plan(NAME, publish.model_files(folder)) for _ in range(2))
    hub.create("models", NAME, "alice")  # the Hub now answers 409 when the client creates it
    publish.carry_out(prepared)
    assert ("POST", "/api/repos/create") in hub.requests and hub.files(NAME) == contents(folder)
    with pytest.raises(OSError, match="somebody else made it meanwhile"):
        publish.carry_out(late)


def test_of_two_concurrent_uploads_one_fails_with_a_hint(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    make_tiny_pipe(seed=7).save_pretrained(tmp_path / "other")
    for _ in range(2):  # a new repository, then one that exists
        plans = [publish.plan(NAME, publish.model_files(f)) for f in (folder, tmp_path / "other")]
        with ThreadPoolExecutor() as pool:
            done = [pool.submit(publish.carry_out, plan).exception() for plan in plans]
        (refused,) = [error for error in done if error is not None]
        assert isinstance(refused, OSError) and "somebody else" in str(refused)
        winner = (folder, tmp_path / "other")[done.index(None)]
        assert hub.files(NAME) == contents(winner)  # without files of the other one
        for f in (folder, tmp_path / "other"):
            (f / "README.md").write_bytes(CARD + f"better, says {f.name}\n".encode())


# ------------------------------------------------------------------ permissions


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


def test_no_log_shows_a_token(
    hub: HubServer, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether publishing and loading go well or not, and with everything logged."""
    secret = "hf_TheSecretOfAlice"
    monkeypatch.setitem(hub.users, secret, "alice")
    said = ""
    with caplog.at_level(logging.DEBUG):
        for token, name, expected in ((secret, NAME, 0), (secret, "bob/def-x4", 2), ("hf_wrongSecret", NAME, 2)):
            monkeypatch.setenv("HF_TOKEN", token)
            status, out, err = run("publish", folder, name)
            assert status == expected
            said += out + err
        monkeypatch.setenv("DEF_DEBUG", "1")
        for name in (NAME, "alice/absent"):
            try:
                said += repr(DEFPipeline.from_pretrained(name, token=secret, cache_dir=folder.parent / "cache"))
            except Exception as error:
                said += "".join(traceback.format_exception(error))
    assert "alice/absent" in said and len(caplog.records) > 10
    written = b"".join(path.read_bytes() for path in folder.parent.rglob("*") if path.is_file())
    published = b"".join(hub.files(NAME).values())
    for token in (secret, "hf_wrongSecret"):
        assert token not in said and token not in caplog.text
        assert token.encode() not in written and token.encode() not in published


def test_in_somebody_elses_repository_only_a_pull_request_works(hub: HubServer, folder: Path, run: Run) -> None:
    hub.put("bob/def-x4", contents(folder))
    (folder / "README.md").write_bytes(CARD + b"better\n")
    status, _, err = run("publish", folder, "bob/def-x4")
    assert status == 2 and "this token may not write there" in err
    assert hub.files("bob/def-x4")["README.md"] == CARD and not [m for m, _ in hub.requests if m == "PUT"]
    assert run("publish", folder, "bob/def-x4", "--create-pr")[0] == 0
    assert hub.files("bob/def-x4", ref="refs/pr/1") == contents(folder)
