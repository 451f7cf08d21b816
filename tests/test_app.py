"""The browser interface over HTTP, as a visitor's script would use it."""

import inspect
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from PIL import Image

import app
from def_hub import DEFPipeline, images, rank_references
from def_hub.service import uploads, workers
from def_hub.service.call import Call
from def_hub.space.pictures import given_paths
from tests.conftest import EXAMPLES, ROOT, make_tiny_pipe
from tests.helpers import odd_files

QUICK = {"preset": "fast", "seed": 4, "matching_image": "joint"}


@contextmanager
def serving(pipe: DEFPipeline, queue: int = 4) -> Iterator[Client]:
    demo = app.build_demo(pipe).queue(max_size=queue)
    _, url, _ = demo.launch(**app.launch_options(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield Client(url, verbose=False)
    demo.close()


@pytest.fixture(scope="module")
def tiny() -> DEFPipeline:
    return make_tiny_pipe()


@pytest.fixture(scope="module")
def client(tiny: DEFPipeline) -> Iterator[Client]:
    with serving(tiny) as client:
        yield client


def given(photo: Path | None, references: list[Path]) -> dict[str, Any]:
    return {
        "photo": handle_file(str(photo)) if photo else None,
        "references": [handle_file(str(path)) for path in references],
    }


def upscale(client: Client, photo: Path | None, references: list[Path], **settings: Any) -> tuple[str, dict[str, Any]]:
    return client.predict(**given(photo, references), **(QUICK | settings), api_name="/upscale")


def corner(folder: Path) -> tuple[Path, Path]:
    """A corner of a shipped example and of its reference, to be quick."""
    photo, reference = folder / "corner.png", folder / "reference.png"
    Image.open(EXAMPLES / "street_lr.png").crop((40, 30, 72, 54)).save(photo)
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(reference)
    return photo, reference


def expected(pipe: DEFPipeline, photo: Path, reference: Path | None = None) -> np.ndarray:
    generator = torch.Generator().manual_seed(4)
    return np.asarray(pipe(photo, reference, preset="fast", matching_image="joint", generator=generator).images[0])


def check_agreement(client: Client, pipe: DEFPipeline, folder: Path) -> None:
    """The endpoint gives, without loss, what the pipeline gives, and says how to repeat it."""
    photo, reference = corner(folder)
    result, report = upscale(client, photo, [reference])
    assert Image.open(result).format == "PNG"
    assert np.array_equal(np.asarray(Image.open(result)), expected(pipe, photo, reference))
    assert report["seed"] == 4 and report["parameters"]["preset"] == "fast" and len(report["weights"]) == 12
    assert report["sizes"] == {"input": "32x24", "output": "128x96", "references": ["192x160"]}
    assert sum([report["scores"][f"{name}_share"] for name in ("input", "prior", "reference")]) == pytest.approx(1)


def test_upscale_gives_what_the_pipeline_gives(client: Client, tiny: DEFPipeline, tmp_path: Path) -> None:
    check_agreement(client, tiny, tmp_path)


def test_a_part_of_a_large_photograph_is_enlarged_as_it_is_described(
    client: Client, tiny: DEFPipeline, tmp_path: Path
) -> None:
    photo, part = tmp_path / "large.png", tmp_path / "part.png"
    whole = Image.open(EXAMPLES / "street_lr.png").convert("RGB").resize((1200, 1000), Image.Resampling.BICUBIC)
    whole.save(photo)
    whole.crop((600, 500, 632, 524)).save(part)
    result, report = upscale(client, photo, [], crop="32x24+600+500", degradation="noise5")
    settings = {"preset": "fast", "matching_image": "joint", "degradation": "noise5"}
    alone = tiny(part, generator=torch.Generator().manual_seed(4), **settings).images[0]
    assert np.array_equal(np.asarray(Image.open(result)), np.asarray(alone))
    assert report["files"]["input_made_from"] == "1200x1000, the part 32x24+600+500"
    assert report["parameters"]["degradation"] == report["observation"]["degradation"] == "noise5"
    for wrong, words in (
        ({"crop": "32x24+1190+0"}, "inside 1200x1000"),
        ({"crop": "1200x1000+0+0"}, "at most 1 million pixels are enlarged here"),
        ({"crop": "32x24+600+500", "degradation": "jpg70"}, "degradation: expected clean, jpegQ"),
    ):
        with pytest.raises(Exception, match=words):
            upscale(client, photo, [], **wrong)


def test_the_embedded_default_is_served(pipe: DEFPipeline, tmp_path: Path) -> None:
    with serving(pipe) as client:
        check_agreement(client, pipe, tmp_path)


def fork(work: Callable[[Connection], None]) -> Connection:
    """What the child sends, while it works in a copy of this process."""
    ours, theirs = multiprocessing.Pipe()

    def started() -> None:
        torch.set_num_threads(1)  # the threads of the parent are not in the copy
        try:
            work(theirs)
        except BaseException as error:  # noqa: BLE001
            theirs.send(error)
        theirs.recv()  # tensors are handed over in memory that both have, while both live
        os._exit(0)

    multiprocessing.get_context("fork").Process(target=started, daemon=True).start()
    theirs.close()
    return ours


class ZeroGPU(ModuleType):
    """The module `spaces` as it is on a ZeroGPU Space: work is done in a forked process, which has the GPU; arguments
    and results are pickled. seconds: what was asked for."""

    def __init__(self) -> None:
        super().__init__("spaces")
        self.seconds: list[int] = []

    def GPU(self, duration: Callable[..., int]) -> Callable[..., Any]:  # noqa: N802
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            def results(*arguments: Any) -> Iterator[Any]:
                self.seconds.append(duration(*arguments))
                sent = pickle.dumps(arguments)

                def work(there: Connection) -> None:
                    done = function(*pickle.loads(sent))
                    for result in done if inspect.isgeneratorfunction(function) else [done]:
                        there.send((result,))
                    there.send(None)

                here = fork(work)
                while (received := here.recv()) is not None:
                    if isinstance(received, BaseException):
                        raise received
                    yield received[0]
                here.send(None)

            return results if inspect.isgeneratorfunction(function) else lambda *given: next(results(*given))

        return decorate


def test_zero_gpu_computes_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", there := ZeroGPU())
    pipe = make_tiny_pipe()
    calls: list[int] = []
    pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    photo, reference = corner(tmp_path)
    with serving(pipe) as client:
        result, report = upscale(client, photo, [reference])
        ranked = client.predict(**given(photo, [reference]), api_name="/rank_references")
        with pytest.raises(Exception, match="eta must be") as caught:  # noqa: PT012  (what fails there is told here)
            monkeypatch.setattr(Call, "make", refuse)
            upscale(client, photo, [])
        assert "Traceback" not in str(caught.value)
        monkeypatch.undo()
    assert len(there.seconds) == 3 and all(5 <= seconds <= 60 for seconds in there.seconds)
    assert not calls and len(report["weights"]) == 12 and ranked[0]["index"] == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as there: more add up in another order, and in half precision that can be seen
    difference = np.abs(np.asarray(Image.open(result), float) - expected(pipe, photo, reference))
    torch.set_num_threads(threads)
    assert difference.max() <= 1 and calls


def refuse(*_: Any, **more: Any) -> None:
    raise ValueError("eta must be in 0 … 1")


def test_zero_gpu_is_imported_before_torch(tmp_path: Path) -> None:
    environment = dict(os.environ)
    script = "import sys, app; print('spaces' in sys.modules, hasattr(app, 'build_demo'))"
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    (tmp_path / "spaces.py").write_text("import sys\nassert 'torch' not in sys.modules, 'too late'\n")
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert told.stdout.split() == ["True", "True"], told.stderr


def test_inspect_shows_what_happened(client: Client, tmp_path: Path) -> None:
    photo, reference = corner(tmp_path)
    pictures, report = client.predict(**given(photo, [reference]), preset="fast", seed=0, api_name="/inspect")
    names = {picture["caption"]: Image.open(picture["image"]) for picture in pictures}
    assert set(names) == {"result", "enhanced", "confidence", "overlay", "steps", "matches", "transferred"}
    assert {name: p.size for name, p in names.items() if name in ("result", "overlay")} == {
        "result": (128, 96),
        "overlay": (128, 96),
    }
    assert all(picture.format == "PNG" for picture in names.values()) and report["scores"]
    alone, report = client.predict(**given(photo, []), preset="fast", seed=0, api_name="/inspect")
    assert {p["caption"] for p in alone} == set(names) - {"matches", "transferred"}
    assert report["scores"]["reference_share"] == 0


def test_rank_references_orders_as_in_python(client: Client, tiny: DEFPipeline) -> None:
    photo, references = EXAMPLES / "street_lr.png", [EXAMPLES / f"{n}_ref1.jpg" for n in ("banana", "street")]
    ranked = client.predict(**given(photo, references), api_name="/rank_references")
    there = rank_references(photo, references, tiny.refsr.feature_extractor)
    assert [(r["index"], r["score"], r["verdict"]) for r in ranked] == [
        (r.index, pytest.approx(r.score, abs=1e-4), r.verdict) for r in there
    ]


def save(name: str, folder: Path) -> Path:
    """A corner of an example in a form that is easily read wrongly."""
    path = folder / f"{name}.png"
    picture = Image.open(EXAMPLES / "street_lr.png").convert("RGB").crop((40, 30, 72, 54))
    if name == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.rotate(90, expand=True).save(path := folder / "turned.jpg", exif=exif, quality=95)
    elif name == "transparent":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(path)
    elif name == "sixteen":
        images.save_image(images.to_tensor(picture) ** 1.1, path, bits=16)
    elif name == "tiff":
        picture.save(path := folder / "picture.tif")
    return path


@pytest.mark.parametrize("name", ["turned", "transparent", "sixteen", "tiff"])
def test_photographs_of_every_kind(client: Client, tiny: DEFPipeline, tmp_path: Path, name: str) -> None:
    photo = save(name, tmp_path)
    result, report = upscale(client, photo, [])
    assert np.array_equal(np.asarray(Image.open(result)), expected(tiny, photo))
    assert report["sizes"]["output"] == "128x96"


def test_visitors_get_one_clear_line(client: Client, tmp_path: Path) -> None:
    photo, _ = corner(tmp_path)
    text, tiny, large, script = (tmp_path / f"{name}.png" for name in ("text", "tiny", "large", "script"))
    text.write_text("not a picture")
    script.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n")
    Image.new("RGB", (5, 50)).save(tiny)
    Image.new("RGB", (1200, 1000)).save(large)
    cut = tmp_path / "cut.png"
    cut.write_bytes((EXAMPLES / "street_lr.png").read_bytes()[:4000])
    for file, references, words in [
        (None, [], "Upload a small photograph first."),
        (text, [], "The photograph is not a picture that can be read"),
        (script, [], "The photograph is not a picture that can be read"),
        (cut, [], "The photograph is not a picture that can be read"),
        (photo, [text], "Reference 1 is not a picture that can be read"),
        (tiny, [], "at least 8×8 pixels, got 5×50"),
        (large, [], "has 1200×1000 pixels; at most 1 million are taken. Shrink it to 1095×912 first (fit)"),
        (photo, [photo] * (uploads.MAX_REFERENCES + 1), f"At most {uploads.MAX_REFERENCES} references"),
    ]:
        with pytest.raises(Exception) as caught:  # noqa: B017, PT011  (the client's own error class)
            upscale(client, file, references)
        message = str(caught.value)
        assert words in message and "Traceback" not in message and "/tmp" not in message and "\n" not in message


ODD = [case for make in (odd_files.formats, odd_files.turned, odd_files.modes, odd_files.sizes) for case in make()]
TAKEN = [case for case in ODD if case.page and case.expected is not None and case.expected.size < 2000][::6]
REFUSED = [case for case in ODD if case.words and not case.name.startswith("TIFF of floats")][::5]


@pytest.mark.parametrize("case", [*TAKEN, *REFUSED], ids=lambda case: case.name)
def test_odd_uploads(client: Client, tiny: DEFPipeline, tmp_path: Path, case: odd_files.Case) -> None:
    """As the photograph: what the pipeline makes of it, or one line. See `tests/test_odd_inputs.py` for all of them."""
    photo = case.make(tmp_path)
    if case.expected is not None:
        result, report = upscale(client, photo, [])
        assert np.array_equal(np.asarray(Image.open(result)), expected(tiny, photo))
        return
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011  (the client's own error class)
        upscale(client, photo, [])
    message = str(caught.value)
    assert "Traceback" not in message and "/tmp" not in message and "\n" not in message and "photograph" in message


def test_settings_are_checked(client: Client, tmp_path: Path) -> None:
    photo, _ = corner(tmp_path)
    for settings, words in (
        ({"preset": "best"}, "preset must be one of fast, balanced, detail, got 'best'"),
        ({"steps": 51}, "at most 50 are computed here, got 51"),
        ({"eta": 2}, "eta must lie in [0, 1], got 2"),
        ({"strength": 1.5}, "reference_strength must lie in [0, 1], got 1.5"),
        ({"seed": -1}, "seed must lie in [0, 2147483647], got -1"),
        ({"matching_image": "other"}, "matching_image must be one of"),
    ):
        with pytest.raises(Exception) as caught:  # noqa: B017, PT011  (the client's own error class)
            upscale(client, photo, [], **settings)
        assert words in str(caught.value)


def test_one_reference_needs_no_list(client: Client, tiny: DEFPipeline, tmp_path: Path) -> None:
    photo, reference = corner(tmp_path)
    one = {"photo": handle_file(str(photo)), "references": handle_file(str(reference))}
    result, report = client.predict(**one, **QUICK, api_name="/upscale")
    assert np.array_equal(np.asarray(Image.open(result)), expected(tiny, photo, reference))
    assert report["sizes"]["references"] == ["192x160"]
    assert client.predict(**one, api_name="/rank_references")[0]["index"] == 0


def test_a_path_from_the_browser_is_an_upload(tmp_path: Path) -> None:
    """What an event of the page names is checked: a browser may send any path."""
    inside = Path(get_upload_folder()) / "hash" / "photo.png"
    event = gr.EventData(None, {"files": [{"path": str(inside)}]})
    assert given_paths(event) == [str(inside)]
    for path in (corner(tmp_path)[0], inside.parent / ".." / ".." / ".." / "etc" / "passwd"):
        with pytest.raises(ValueError, match="Only uploaded files"):
            given_paths(gr.EventData(None, {"files": [{"path": str(path)}]}))


def test_files_of_the_server_are_not_read(client: Client) -> None:
    """A path that was not uploaded is refused, whatever it leads to."""
    there = {"path": str(EXAMPLES / "street_lr.png"), "meta": {"_type": "gradio.FileData"}}
    call = f"{client.src}gradio_api/call/upscale"
    asked = httpx.post(call, json={"data": [there, [], "fast", 1, 0, 0, 1, "joint", True, None, False, None, 4]}).json()
    answer = httpx.get(f"{call}/{asked['event_id']}", timeout=60).text
    assert "event: error" in answer and "event: complete" not in answer


def test_no_endpoint_fetches_a_link(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a photograph, not among the references, and not for any other function of the page."""
    asked: list[str] = []
    monkeypatch.setattr(gr.processing_utils, "async_ssrf_protected_get", lambda url: asked.append(url))
    photo, _ = corner(tmp_path)
    link = {"path": "https://example.org/a.png", "meta": {"_type": "gradio.FileData"}}
    rest = ["fast", 1, 0, 0, 1, "joint", True, None, False, None, 4]
    call = f"{client.src}gradio_api/call/upscale"
    with httpx.Client(timeout=60) as visitor:
        uploaded = visitor.post(f"{client.src}gradio_api/upload", files={"files": photo.read_bytes()}).json()[0]
        here = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
        for data in ([link, [], *rest], [here, [link], *rest], [here, ["https://example.org/a.png"], *rest]):
            event = visitor.post(call, json={"data": data}).json()["event_id"]
            answer = visitor.get(f"{call}/{event}").text
            assert "event: error" in answer and "event: complete" not in answer
    assert not asked


def put(visitor: httpx.Client, api: str, photo: Path, name: str = "secret.png") -> str:
    """The path that an upload has on the server."""
    return visitor.post(f"{api}/upload", files={"files": (name, photo.read_bytes())}).json()[0]


def asked_for(path: str) -> dict[str, Any]:
    """The body of a call that enlarges a file of the server."""
    given = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return {"data": [given, [], "fast", 1, 0, 0, 1, "joint", True, None, False, None, 4]}


@pytest.fixture
def secret(client: Client, tmp_path: Path) -> Iterator[tuple[str, httpx.Client, str]]:
    """The API's address, a visitor, and the path of a file that they uploaded, which no other test has."""
    photo, api = tmp_path / "secret.png", f"{client.src}gradio_api"
    images.save_image(torch.rand(3, 16, 16), photo)
    with httpx.Client(timeout=60) as owner:
        yield api, owner, put(owner, api, photo)


def test_a_visitor_cannot_read_anothers_files(secret: tuple[str, httpx.Client, str], client: Client) -> None:
    """Neither uploads nor results, even with the exact path and from the same address; their owner can."""
    api, owner, path = secret
    event = owner.post(f"{api}/call/upscale", json=asked_for(path)).json()["event_id"]
    told = owner.get(f"{api}/call/upscale/{event}").text
    result = re.search(r'"path": "([^"]+result[^"]*\.png)"', told)[1]
    with httpx.Client() as other:
        other.get(client.src).raise_for_status()
        assert other.cookies["def-visitor"] != owner.cookies["def-visitor"]
        for file in (path, result):
            assert owner.get(f"{api}/file={file}").content == Path(file).read_bytes()
            for stranger in (other, httpx, httpx.Client(cookies=client.cookies)):
                assert stranger.get(f"{api}/file={file}").status_code == 403
                assert stranger.get(f"{api}/file={file.replace('/', '%2F')}").status_code == 403
        assert other.post(f"{api}/call/upscale", json=asked_for(path)).status_code == 403
        assert other.get(f"{api}/file={path}?secret.png").status_code == 403


def test_no_other_spelling_gives_anothers_file(secret: tuple[str, httpx.Client, str]) -> None:
    """Escapes of JSON, other encodings and kinds of the body, and a digest in the place of a key."""
    api, _, path = secret
    digest = Path(path).parent.name
    body = json.dumps(asked_for(path))
    escaped = body.replace(digest, "".join(f"\\u{ord(c):04x}" for c in digest))
    assert json.loads(escaped) == json.loads(body) and digest not in escaped
    kinds = ("application/json", "Application/JSON", "application/vnd.api+json", "text/json")
    for content in (body.encode(), escaped.encode(), body.encode("utf-16"), escaped.encode("utf-16")):
        for kind in kinds:
            headers = {"content-type": kind}
            assert httpx.post(f"{api}/call/upscale", content=content, headers=headers).status_code == 403
    twice = [("content-type", "application/json"), ("content-type", "multipart/form-data")]
    assert httpx.post(f"{api}/call/upscale", content=body, headers=twice).status_code == 403
    assert httpx.get(f"{api}/file={path}?key={digest}").status_code == 403
    assert httpx.get(f"{api}/file={path.replace(digest, digest.upper())}").status_code == 403


def test_no_answer_that_repeats_a_name_gives_anothers_file(
    secret: tuple[str, httpx.Client, str], client: Client, tmp_path: Path
) -> None:
    """The server remembers whom it has told of a file: nobody can make it say another's name."""
    api, _, path = secret
    digest = Path(path).parent.name
    photo, _ = corner(tmp_path)
    with httpx.Client(timeout=60) as other:
        for name in (f"{digest}.png", f"{digest}/a.png", f'{digest}\\"a.png', f"a/{digest}/b.png"):
            files = {"files": (name, photo.read_bytes())}
            other.post(f"{api}/upload?upload_id=mine", files=files).raise_for_status()
            other.get(f"{api}/upload_progress?upload_id=mine")
        for header in ("x-forwarded-host", "x-gradio-server"):
            assert other.get(f"{client.src}config", headers={header: f"a.org/{digest}/"}).status_code == 403
        other.get(f"{api}/file=/nowhere/{digest}/a.png")
        other.get(f"{client.src}config", headers={"referer": f"https://a.org/{digest}/"})
        assert other.get(f"{api}/file={path}").status_code == 403


def test_what_the_page_itself_is_made_of_is_everybodys(client: Client) -> None:
    """The page asks for its style sheet with that one's digest, which is no visitor's file."""
    visitor = httpx.Client(base_url=client.src)
    assert visitor.get(f"/theme.css?v={64 * 'a'}").status_code == 200
    assert visitor.get(f"/gradio_api/file=/tmp/{64 * 'a'}/theme.css").status_code == 403


def test_an_upload_that_is_too_large_is_refused(client: Client) -> None:
    """By the server, whatever it is, before anything looks into it."""
    large = {"files": ("too_large.png", b"\x89PNG" + bytes(uploads.MAX_BYTES))}  # no other test's name
    answer = httpx.post(f"{client.src}gradio_api/upload", files=large, timeout=60)
    assert answer.status_code == 413 and not list(Path(get_upload_folder()).rglob("too_large.png"))


def test_a_request_without_end_is_cut_off(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("def_hub.space.visitors.MOST", 100_000)
    answer = httpx.post(f"{client.src}gradio_api/call/upscale", content=b" " * 400_000)
    assert answer.status_code == 413


def test_the_cookie_is_kept_where_the_page_is_shown_in_a_frame(client: Client) -> None:
    """A Space is shown in a frame of another site: over HTTPS, browsers have to be told that this is meant."""
    for headers, words in (
        ({}, "SameSite=Lax"),
        ({"x-forwarded-proto": "https"}, "SameSite=None; Secure; Partitioned"),
    ):
        cookie = httpx.get(client.src, headers=headers).headers["set-cookie"]
        assert words in cookie and "HttpOnly" in cookie


def test_the_server_is_no_proxy(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for way in ("file=https://example.org/a.png", "file=HTTP://example.org", "proxy=https://example.org/a.png"):
        assert httpx.get(f"{client.src}gradio_api/{way}").status_code == 403


def test_what_is_public_is_named_and_described(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert set(endpoints["named_endpoints"]) == {"/upscale", "/inspect", "/rank_references"}
    assert not endpoints["unnamed_endpoints"]
    names = [p["parameter_name"] for p in endpoints["named_endpoints"]["/upscale"]["parameters"]]
    assert names[:4] == ["photo", "references", "preset", "steps"] and names[-2:] == ["crop", "scale"]
    told = httpx.get(f"{client.src}gradio_api/info").json()["named_endpoints"]
    assert all("photograph" in endpoint["description"] for endpoint in told.values())


@pytest.fixture
def gate(tiny: DEFPipeline) -> Iterator[tuple[threading.Event, threading.Event]]:
    """(reached, open): the prior waits at its first call until the gate is opened."""
    reached, opened = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        reached.set()
        assert opened.wait(60)

    hook = tiny.unet.register_forward_pre_hook(wait)
    yield reached, opened
    opened.set()
    hook.remove()


def test_a_full_queue_says_so(tiny: DEFPipeline, tmp_path: Path, gate: tuple[threading.Event, ...]) -> None:
    photo, _ = corner(tmp_path)
    reached, opened = gate
    with serving(tiny, queue=1) as client:
        jobs = [client.submit(**given(photo, []), **QUICK, api_name="/upscale")]
        assert reached.wait(60)  # it runs; the next waits; there is no room for more
        jobs += [client.submit(**given(photo, []), **QUICK, api_name="/upscale") for _ in range(3)]
        opened.set()
        refused = [job for job in jobs[1:] if job.exception() is not None]
        assert refused and all("queue is full" in str(job.exception()).lower() for job in refused)
        assert Image.open(jobs[0].result()[0]).size == (128, 96)


def test_a_cancelled_job_stops_computing(
    client: Client, tiny: DEFPipeline, tmp_path: Path, gate: tuple[threading.Event, threading.Event]
) -> None:
    photo, _ = corner(tmp_path)
    reached, opened = gate
    calls: list[int] = []
    counter = tiny.unet.register_forward_hook(lambda *_: calls.append(1))
    job = client.submit(**given(photo, []), **(QUICK | {"steps": 50}), api_name="/upscale")
    assert reached.wait(60)
    ((worker, stop),) = workers.WORKERS.items()
    canceller = threading.Thread(target=job.cancel)  # the answer comes when nothing computes any more
    canceller.start()
    assert stop.wait(60)
    opened.set()
    canceller.join(60)
    worker.join(60)
    counter.remove()
    assert not worker.is_alive() and len(calls) < 50
