"""A model folder, and on request a Space around it, onto the Hub: checked first, shown, then one commit or none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from def_hub.hub.card import check_card, links_of
from def_hub.hub.errors import plainly
from def_hub.hub.fetch import PICKLES, check_folder
from def_hub.hub.new_card import new_card
from def_hub.settings import DEFAULT_PRESET, PRESETS

Content = Path | bytes
Kind = Literal["model", "space"]


@dataclass(frozen=True)
class Change:
    """What a commit does to one file: "add", "replace" or "remove" it. `size` in bytes."""

    action: Literal["add", "replace", "remove"]
    path: str
    size: int


@dataclass(frozen=True)
class Plan:
    """What is to be done, against the revision as it was when it was compared (`parent`).

    `changes` is empty where the repository already has it all, or where the pull request number `proposal`, which is
    open, would give it all. `exists` is false where the repository is still to be made; `branch`, where the branch is.
    """

    name: str
    kind: Kind
    files: Mapping[str, Content]
    changes: tuple[Change, ...]
    parent: str | None
    exists: bool
    branch: bool
    private: bool | None
    create_pr: bool
    revision: str | None
    proposal: int | None = None

    def __str__(self) -> str:
        where = f"{self.kind} {self.name}{f' @ {self.revision}' if self.revision else ''}"
        state = "" if self.exists else f" (new{', private' if self.private else ''})"
        if not self.changes:
            there = f"in pull request {self.proposal}, which is open" if self.proposal else "there"
            return f"{where}: nothing to upload, all {len(self.files)} files are {there}"
        lines = [f"{where}{state}: {len(self.changes)} changes, {len(self.files)} files in all"]
        lines += [f"  {c.action:8}{_size(c.size):>10}  {c.path}" for c in self.changes]
        total = sum(c.size for c in self.changes if c.action != "remove")
        return "\n".join([*lines, f"  {'in all':8}{_size(total):>10}"])


def model_files(folder: str | Path, card: str | Path | None = None) -> dict[str, Content]:
    """What is published of a model folder: path in the repository → content.

    All files but hidden ones; `card` takes the place of the folder's own README.md, and the pictures and files that it
    links to come with it under the names it uses.

    Raises:
        ValueError: where weights are missing or pickled, or the card is not there, cannot be used (see `check_card`) or
            links to a file that does not exist.
    """
    folder = Path(folder)
    check_folder(folder)
    files: dict[str, Content] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            if name.endswith(PICKLES):
                raise ValueError(
                    f"{path}: a pickle, which can run any code when it is read; only safetensors are published"
                )
            files[name] = path
    readme = Path(card) if card is not None else folder / "README.md"
    if card is None and not readme.exists():
        return files
    if not readme.is_file():
        raise ValueError(f"{readme}: no model card there")
    text = readme.read_text(encoding="utf-8")
    check_card(text)
    files["README.md"] = readme
    for link in links_of(text):
        if not (readme.parent / link).is_file():
            raise ValueError(f"{readme}: links to {link}, which is not there")
        files[link] = readme.parent / link
    return files


def prepare(
    folder: str | Path,
    name: str,
    *,
    load: Callable[[Path], Any],
    card: str | Path | None = None,
    license: str = "unknown",
    base_model: str | None = None,
    **where: Any,
) -> Plan:
    """Check a model folder and compare it with the Hub: what `carry_out` then does. Uploads nothing.

    Args:
        load: makes a pipeline of a folder (`DEFPipeline.from_pretrained`).
        card: file with the model card; by default the README.md of the folder, else the one that the repository has,
            else the shipped one for the embedded default, else a new one that says what is known: see `new_card`.
        license, base_model: for that new one.
        where: private, create_pr, revision, token, see `plan`.

    Raises:
        ValueError: for what cannot be published. OSError: see `plan`.
    """
    check_name(name)
    files = model_files(folder, card)
    try:
        pipe = load(Path(folder))
    except Exception as error:  # whatever it is: these weights are of no use to anybody else
        raise ValueError(f"{folder}: does not load: {' '.join(str(error).split())}") from error
    check_runs(pipe, str(folder))
    if "README.md" not in files:
        text = card_of(name, where.get("revision"), where.get("token"))
        if text is not None:
            files["README.md"] = text.encode()
        else:
            files |= new_card(name, folder, license, base_model)
        check_card(text_of(files["README.md"]))
    return plan(name, files, **where)


def check_runs(pipe: Any, where: str) -> None:
    """Whether a pipeline makes a finite 32×32 picture of an 8×8 one and a reference, with all the weights that it has.

    Raises ValueError if not.
    """
    noise = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pipe.set_progress_bar_config(disable=True)
    for preset in PRESETS:
        if preset != DEFAULT_PRESET and pipe.parts(preset) == pipe.parts(DEFAULT_PRESET):
            continue  # the same weights
        try:
            start = torch.Generator().manual_seed(0)
            result = pipe(noise[:1, :, :8, :8], noise[1:], preset, generator=start, output_type="pt").images[0]
        except Exception as error:
            raise ValueError(f"{where}: does not run ({preset}): {' '.join(str(error).split())}") from error
        if result.shape != (3, 32, 32) or not torch.isfinite(result).all():
            raise ValueError(
                f"{where}: expected a finite 32×32 picture ({preset}), got {list(result.shape)} or one that is not"
            )


def plan(
    name: str,
    files: Mapping[str, Content],
    *,
    kind: Kind = "model",
    private: bool | None = None,
    create_pr: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Plan:
    """Compare `files` with what the repository holds. Uploads nothing.

    Weights of the repository that `files` lack are to be removed, because loading would mix them with the new ones;
    all else that is there stays.

    Args:
        private: make a new repository private (or not). revision: a branch, "main" by default; made if it is not there.
        create_pr: propose the change instead of making it, unless an open pull request of the user's does so already.

    Raises:
        ValueError: for a wrong name, a revision that is a commit, or where `private` is asked for and the repository is
            public.
        OSError: where the Hub cannot be asked, or says no.
    """
    check_name(name)
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(f"revision: expected a branch, got {revision}, a commit, which nothing can be added to")
    api = HfApi(token=token)
    exists, branch, parent, proposal, remote = True, True, None, None, {}
    with plainly(_shown(name, kind)):
        try:
            info = api.repo_info(name, repo_type=kind)
            if private and not info.private:
                raise ValueError(f"{name}: exists and is public, a private one was asked for")
            try:
                parent = api.repo_info(name, repo_type=kind, revision=revision or "main").sha
            except RevisionNotFoundError:
                branch, parent = False, info.sha
            remote = _files(api, name, kind, parent)
            changes = _changes(files, remote)
            if create_pr and changes:
                proposal = _proposed(api, name, kind, files, revision or "main")
                changes = () if proposal else changes
        except RepositoryNotFoundError:
            exists, branch = False, revision in (None, "main")
            changes = _changes(files, {})
            if create_pr:
                raise
    return Plan(name, kind, files, changes, parent, exists, branch, private, create_pr, revision, proposal)


def carry_out(plan: Plan, *, message: str | None = None, token: str | None = None) -> str:
    """Do what the plan says, in one commit; returns its address, or that of the pull request.

    LFS objects are uploaded first. Should that, or anything before the commit, fail, no revision has changed, and the
    same command finds what is stored already and goes on. A plan without changes asks the Hub for nothing.

    Raises:
        OSError: with what failed; also where somebody else committed since the plan was made.
        ValueError: where the Hub refuses the card.
    """
    api = HfApi(token=token)
    address = f"{api.endpoint}/{'spaces/' if plan.kind == 'space' else ''}{plan.name}"
    if not plan.changes:
        return f"{address}/discussions/{plan.proposal}" if plan.proposal else address
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for change in plan.changes:
        if change.action == "remove":
            operations.append(CommitOperationDelete(change.path))
        else:
            operations.append(CommitOperationAdd(change.path, plan.files[change.path]))
    with plainly(_shown(plan.name, plan.kind)):
        if plan.kind == "model":
            ModelCard(text_of(plan.files["README.md"])).validate()
        parent = plan.parent if plan.exists else _new_repository(api, plan)
        if not plan.branch and plan.revision is not None:
            api.create_branch(plan.name, repo_type=plan.kind, branch=plan.revision, revision=parent, exist_ok=True)
        done = api.create_commit(
            plan.name,
            operations,
            commit_message=message or f"Upload {plan.kind} with def_hub",
            repo_type=plan.kind,
            revision=plan.revision,
            create_pr=plan.create_pr,
            parent_commit=parent,
        )
    return done.pr_url or done.commit_url


def _new_repository(api: HfApi, plan: Plan) -> str:
    """Make it; returns its first commit. Raises OSError where somebody else made it meanwhile and has filled it."""
    sdk = "gradio" if plan.kind == "space" else None
    api.create_repo(plan.name, repo_type=plan.kind, private=plan.private, space_sdk=sdk, exist_ok=True)
    first = api.repo_info(plan.name, repo_type=plan.kind).sha
    there = api.list_repo_files(plan.name, repo_type=plan.kind, revision=first)
    if set(there) & set(plan.files) - {"README.md"}:  # a Space begins with one
        raise OSError(
            f"{plan.name}: somebody else made it meanwhile; run the same command again to see what would change"
        )
    assert first is not None
    return first


def text_of(content: Content) -> str:
    """A text file that is to be published."""
    return (content if isinstance(content, bytes) else content.read_bytes()).decode()


def check_name(name: str) -> None:
    """Raises ValueError where `name` is none that a repository can have, like "user/model"."""
    if not isinstance(name, str) or "/" not in name:
        raise ValueError(f"name: expected one like user/model, got {name!r}")
    validate_repo_id(name)


def card_of(name: str, revision: str | None = None, token: str | None = None) -> str | None:
    """The card that the repository has, if there is one; that of "main" for a branch that is still to be made."""
    # not the client's cache: it would give an old card where the Hub has none any more, or fails
    with plainly(name), TemporaryDirectory() as cache:
        try:
            path = hf_hub_download(name, "README.md", revision=revision, token=token, cache_dir=cache)
            return Path(path).read_bytes().decode()
        except (RepositoryNotFoundError, RemoteEntryNotFoundError):
            return None
        except RevisionNotFoundError:
            return card_of(name, None, token) if revision else None


def _shown(name: str, kind: Kind) -> str:
    return name if kind == "model" else f"{kind} {name}"


def _files(api: HfApi, name: str, kind: Kind, revision: str | None) -> dict[str, RepoFile]:
    """What a revision of the repository holds, by path."""
    entries = api.list_repo_tree(name, recursive=True, revision=revision, repo_type=kind)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _changes(files: Mapping[str, Content], remote: Mapping[str, RepoFile]) -> tuple[Change, ...]:
    """What makes the repository's files ours, see `plan`."""
    changes = []
    for path, content in files.items():
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if path not in remote:
            changes.append(Change("add", path, size))
        elif remote[path].size != size or not _same(content, remote[path]):
            changes.append(Change("replace", path, size))
    stale = [e for p, e in remote.items() if p not in files and p.endswith((".safetensors", ".safetensors.index.json"))]
    return (*changes, *(Change("remove", entry.path, entry.size) for entry in stale))


def _proposed(api: HfApi, name: str, kind: Kind, files: Mapping[str, Content], branch: str) -> int | None:
    """Number of an open pull request of the user's that would give the branch these files, if there is one."""
    mine = api.get_repo_discussions(
        name, repo_type=kind, author=api.whoami()["name"], discussion_type="pull_request", discussion_status="open"
    )
    for request in mine:
        target = api.get_discussion_details(name, request.num, repo_type=kind).target_branch
        there = _files(api, name, kind, f"refs/pr/{request.num}")
        if target == f"refs/heads/{branch}" and not _changes(files, there):
            return request.num
    return None


def _same(content: Content, remote: RepoFile) -> bool:
    """Whether the repository's file has this content: by its sha256, or by git's name for it."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    if remote.lfs is not None:
        return hashlib.sha256(data).hexdigest() == remote.lfs.sha256
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == remote.blob_id


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
