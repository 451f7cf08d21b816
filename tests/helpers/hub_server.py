"""A Hub for the tests: a local server for the HTTP protocol of `huggingface_hub`, with repositories in memory.

It has repositories of models and Spaces with branches, pull requests and immutable commits, regular files (git blobs)
and LFS objects with batch, upload and verify, tokens and private repositories. On demand it fails: it answers with an
error status, or cuts the connection while a body is being sent.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (
    ".safetensors",
    ".bin",
    ".png",
    ".jpg",
    ".webp",
)  # as in the .gitattributes of a new repository
KINDS = "models|spaces|datasets"


@dataclass(frozen=True)
class Blob:
    """A file of a commit. `data` holds its bytes, also for an LFS file."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """Git's hash of the content, or of the pointer that git stores instead of an LFS object."""
        data = self.data
        if self.lfs:
            lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {len(data)}\n")
            data = "\n".join(lines).encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass
class Repository:
    """A repository. Commits are trees, by their hash; branches and pull requests refer to commits."""

    owner: str
    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS objects, uploaded before a commit refers to them
    messages: dict[str, str] = field(default_factory=dict)
    proposals: dict[int, tuple[str, str]] = field(default_factory=dict)  # open pull requests: author and branch

    def commit(self, ref: str, tree: dict[str, Blob], message: str) -> str:
        text = json.dumps([len(self.commits), message, sorted((p, b.oid) for p, b in tree.items())])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.messages[sha], self.refs[ref] = tree, message, sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """What happens to the next requests that match: `status` is answered (with `code` in X-Error-Code), or, if it is
    None, the connection is cut after `after` bytes of the body."""

    method: str
    path: str
    status: int | None
    times: int
    after: int = 0
    code: str | None = None


class HubError(Exception):
    """An answer other than 200; `code` goes into X-Error-Code."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **body}


class HubServer:
    """The server. `start` starts it, `repositories` holds the published files, `requests` lists (method, path)."""

    def __init__(self, bound: socket.socket) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}  # by (kind, name)
        self.users = {"hf_alice": "alice", "hf_bob": "bob"}  # by token
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(bound.getsockname(), handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = bound
        self._server.daemon_threads = True

    def start(self) -> None:
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.repositories.clear()
        self.requests.clear()
        self.faults.clear()

    def fail(self, method: str, path: str, status: int | None, times: int = 1, **how: Any) -> None:
        """The next `times` requests whose path contains a match of `path` fail; see `Fault`."""
        self.faults.append(Fault(method, path, status, times, **how))

    def put(self, name: str, files: dict[str, bytes], kind: str = "models", ref: str = "main", **options: Any) -> None:
        """Create a repository with these files, as if somebody else had published it."""
        repository = self.repositories.get((kind, name)) or self.create(kind, name, name.split("/")[0], **options)
        blobs = {path: Blob(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
        repository.commit(ref, repository.commits[repository.refs["main"]] | blobs, "put")

    def create(self, kind: str, name: str, owner: str, private: bool = False) -> Repository:
        repository = self.repositories[kind, name] = Repository(owner, private)
        rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        first = {".gitattributes": rules} | ({"README.md": "---\nsdk: gradio\n---\n"} if kind == "spaces" else {})
        repository.commit("main", {p: Blob(text.encode(), False) for p, text in first.items()}, "initial commit")
        return repository

    def files(self, name: str, kind: str = "models", ref: str = "main") -> dict[str, bytes]:
        """The files of a revision, without .gitattributes."""
        repository = self.repositories[kind, name]
        tree = repository.commits[repository.refs[ref]]
        return {path: blob.data for path, blob in tree.items() if path != ".gitattributes"}

    def uploads(self) -> list[tuple[str, str]]:
        """The requests that uploaded or changed something."""
        return [(m, p) for m, p in self.requests if m == "PUT" or "/commit/" in p or "repos/create" in p]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            fault = next((f for f in self.hub.faults if f.method == self.command and re.search(f.path, path)), None)
            if fault is not None:
                fault.times -= 1
                if fault.times == 0:
                    self.hub.faults.remove(fault)
        if fault is not None and fault.status is None:
            self.rfile.read(min(fault.after, int(self.headers.get("Content-Length") or 0)))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.body = self._read()
        asked = "GET" if self.command == "HEAD" else self.command  # a HEAD request is answered like a GET request
        try:
            if fault is not None:
                raise HubError(fault.status or 500, "a fault that the test asked for", fault.code)
            with self.hub.lock:
                for method, pattern, function in _ROUTES:
                    match = re.fullmatch(pattern, path)
                    if match and asked == method:
                        function(self, *match.groups())
                        return
            raise HubError(404, f"no such route: {self.command} {path}")
        except HubError as error:
            headers = {"X-Error-Message": str(error)} | ({"X-Error-Code": error.code} if error.code else {})
            self._send(json.dumps(error.body).encode(), status=error.status, headers=headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        given = {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode())

    # ------------------------------------------------------------------ users and repositories

    def _user(self) -> str | None:
        header = self.headers.get("Authorization", "")
        if not header:
            return None
        user = self.hub.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def _repository(self, kind: str, name: str, write: bool = False) -> Repository:
        repository, user = self.hub.repositories.get((kind, name)), self._user()
        if repository is None or (repository.private and user != repository.owner):
            # like the real Hub: the same answer for a missing and for a private repository
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and user != repository.owner:
            raise HubError(403 if user else 401, "You have no write access to this repository")
        return repository

    def _commit_of(self, repository: Repository, revision: str) -> str:
        sha = repository.resolve(revision)
        if sha is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    # ------------------------------------------------------------------ routes

    def whoami(self) -> None:
        user = self._user()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        self._json({"type": "user", "name": user, "orgs": [], "auth": {"type": "access_token"}})

    def create(self) -> None:
        asked = json.loads(self.body)
        user = self._user()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        owner = asked.get("organization") or user
        if owner != user:
            raise HubError(403, f"You don't have the rights to create a repository under the namespace {owner!r}")
        kind, name = f"{asked.get('type') or 'model'}s", f"{owner}/{asked['name']}"
        if kind == "spaces" and not asked.get("sdk"):
            raise HubError(400, "sdk is required")
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.hub.repositories:
            raise HubError(409, "You already created this repo", url=url)
        self.hub.create(kind, name, owner, private=asked.get("visibility") == "private")
        self._json({"url": url, "name": name, "id": name})

    def validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        import yaml

        try:
            header = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
            data = yaml.safe_load(header[1]) if header else {}
            errors = [] if data and data.get("license") else [{"message": '"license" is required'}]
        except yaml.YAMLError as error:
            errors = [{"message": f"YAML: {error}"}]
        if errors:
            raise HubError(400, "Invalid metadata", errors=errors, warnings=[])
        self._json({"errors": [], "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, write="create_pr" not in self.query)
        tree = repository.commits[self._commit_of(repository, revision)]
        answers = []
        for file in json.loads(self.body)["files"]:
            sample = base64.b64decode(file["sample"])
            lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] > 10_000_000 or b"\0" in sample
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if file["path"] in tree:
                answer["oid"] = tree[file["path"]].etag
            answers.append(answer)
        self._json({"files": answers})

    def lfs_batch(self, prefix: str | None, name: str) -> None:
        kind = (prefix or "models/").rstrip("/")
        repository = self._repository(kind, name)
        asked = json.loads(self.body)
        if asked["operation"] != "upload" or "basic" not in asked["transfers"] or asked["hash_algo"] != "sha256":
            raise HubError(422, "expected basic uploads by sha256")
        objects = []
        for wanted in asked["objects"]:
            href = f"{self.hub.url}/lfs/{kind}/{name}/{wanted['oid']}"
            actions = {"upload": {"href": href, "header": {}}, "verify": {"href": f"{href}/verify"}}
            stored = wanted["oid"] in repository.objects
            objects.append(wanted if stored else {**wanted, "actions": actions})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, kind: str, name: str, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "the content does not have the promised sha256")
        self.hub.repositories[kind, name].objects[oid] = self.body
        self._send(b"")

    def lfs_verify(self, kind: str, name: str, oid: str) -> None:
        stored, said = self._repository(kind, name).objects.get(oid), json.loads(self.body)
        if stored is None or (said["oid"], said["size"]) != (oid, len(stored)):
            raise HubError(404, "not stored")
        self._json({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        as_pull_request = "create_pr" in self.query
        repository = self._repository(kind, name, write=not as_pull_request)
        if self._user() is None:
            raise HubError(401, "Invalid username or password.")
        if revision not in repository.refs:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        lines = [json.loads(line) for line in self.body.splitlines()]
        header, *operations = lines
        assert header["key"] == "header"
        parent = header["value"].get("parentCommit") or repository.refs[revision]
        if parent != repository.refs[revision] and not as_pull_request:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repository.commits[parent])
        for operation in operations:
            key, value = operation["key"], operation["value"]
            if key == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in repository.objects:
                    raise HubError(400, f"LFS object {value['oid']} was never uploaded")
                tree[value["path"]] = Blob(repository.objects[value["oid"]], True)
            elif key == "deletedFile":
                if tree.pop(value["path"], None) is None:
                    raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise HubError(400, f"unknown operation {key}")
        ref = revision
        if as_pull_request:
            repository.proposals[len(repository.proposals) + 1] = (self._user() or "", revision)
            ref = f"refs/pr/{len(repository.proposals)}"
        sha = repository.commit(ref, tree, header["value"]["summary"])
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
        number = ref.rpartition("/")[2]
        self._json(
            {
                "success": True,
                "commitOid": sha,
                "commitUrl": f"{url}/commit/{sha}",
                "pullRequestUrl": f"{url}/discussions/{number}" if as_pull_request else None,
            }
        )

    def discussions(self, kind: str, name: str) -> None:
        """The pull requests that match the query. The client does not filter the answer."""
        repository, asked = self._repository(kind, name), {k: v[0] for k, v in self.query.items()}
        numbers = [n for n, (author, _) in repository.proposals.items() if asked.get("author", author) == author]
        if asked.get("type") == "discussion" or asked.get("status") == "closed":
            numbers = []
        found = [self._discussion(kind, name, number) for number in numbers]
        page = found[(first := 2 * int(asked.get("p", 0))) : first + 2]
        self._json({"count": len(found), "start": first, "discussions": page})

    def discussion(self, kind: str, name: str, number: str) -> None:
        if int(number) not in self._repository(kind, name).proposals:
            raise HubError(404, "Discussion not found", "EntryNotFound")
        self._json(self._discussion(kind, name, int(number)))

    def _discussion(self, kind: str, name: str, number: int) -> dict[str, Any]:
        author, base = self._repository(kind, name).proposals[number]
        return {
            "num": number,
            "title": "Upload",
            "author": {"name": author},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "status": "open",
            "isPullRequest": True,
            "repo": {"name": name, "type": kind.removesuffix("s")},
            "changes": {"base": f"refs/heads/{base}"},
            "filesWithConflicts": [],
            "events": [],
        }

    def branch(self, kind: str, name: str, branch: str) -> None:
        repository = self._repository(kind, name, write=True)
        if branch in repository.refs:
            raise HubError(409, "Reference already exists")
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        repository.refs[branch] = self._commit_of(repository, start)
        self._json({})

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        repository = self._repository(kind, name)
        sha = self._commit_of(repository, revision or "main")
        siblings = [{"rfilename": path} for path in repository.commits[sha]]
        self._json({"id": name, "sha": sha, "private": repository.private, "siblings": siblings, "tags": []})

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        """All files at or below a folder; the client always asks recursively."""
        inside = f"{folder}/" if folder else ""
        self._json([entry for entry in self._entries(kind, name, revision) if entry["path"].startswith(inside)])

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        form = "urlencoded" in self.headers.get("Content-Type", "")
        paths = parse_qs(self.body.decode())["paths"] if form else json.loads(self.body)["paths"]
        self._json([entry for entry in self._entries(kind, name, revision) if entry["path"] in paths])

    def _entries(self, kind: str, name: str, revision: str) -> list[dict[str, Any]]:
        repository = self._repository(kind, name)
        entries = []
        for path, blob in sorted(repository.commits[self._commit_of(repository, revision)].items()):
            entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.data)}
            if blob.lfs:
                entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 134}
            entries.append(entry)
        return entries

    def resolve(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        repository = self._repository((prefix or "models/").rstrip("/"), name)
        sha = self._commit_of(repository, revision)
        headers = {"X-Repo-Commit": sha}
        blob = repository.commits[sha].get(path)
        if blob is None:
            raise HubError(404, "Entry not found", "EntryNotFound")
        headers |= {"ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:  # a download that continues where it was cut
            start, size = int(asked[1]), len(blob.data)
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self._send(blob.data[start:], 206, headers)
        else:
            self._send(blob.data, headers=headers)


NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("POST", rf"/api/({KINDS})/{NAME}/preupload/(.+)", _Handler.preupload),
    ("POST", rf"/((?:spaces|datasets)/)?{NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", rf"/lfs/({KINDS})/{NAME}/(\w+)", _Handler.lfs_put),
    ("POST", rf"/lfs/({KINDS})/{NAME}/(\w+)/verify", _Handler.lfs_verify),
    ("POST", rf"/api/({KINDS})/{NAME}/commit/(.+)", _Handler.commit),
    ("POST", rf"/api/({KINDS})/{NAME}/branch/(.+)", _Handler.branch),
    ("GET", rf"/api/({KINDS})/{NAME}/discussions", _Handler.discussions),
    ("GET", rf"/api/({KINDS})/{NAME}/discussions/(\d+)", _Handler.discussion),
    ("GET", rf"/api/({KINDS})/{NAME}(?:/revision/(.+))?", _Handler.info),
    ("GET", rf"/api/({KINDS})/{NAME}/tree/(refs/pr/\d+|[^/]+)(?:/(.*))?", _Handler.tree),
    ("POST", rf"/api/({KINDS})/{NAME}/paths-info/(.+)", _Handler.paths_info),
    ("GET", rf"/((?:spaces|datasets)/)?{NAME}/resolve/(refs/pr/\d+|[^/]+)/(.+)", _Handler.resolve),
]
