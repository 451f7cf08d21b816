"""The pipeline in a process of its own: what it answers, and what happens when it raises, lacks memory or dies."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

import app
from def_hub import DEFPipeline
from def_hub.formats import MissingDecoder
from def_hub.service import workers
from def_hub.service.call import RunOptions
from def_hub.service.elsewhere import Elsewhere, Killed, _portable
from def_hub.service.run import Step
from def_hub.service.runner import NotEnoughMemory, Runner, complaint
from def_hub.service.session import Session
from def_hub.service.uploads import check_photo, check_references
from def_hub.service.work import Here
from def_hub.space import serve
from tests.conftest import EXAMPLES, ROOT, Run, make_tiny_pipe

FAST = RunOptions.of("fast")
LONG = RunOptions.of("fast", num_inference_steps=50)


class Limited(Here):
    """Gets less memory than a large photograph needs, where a run has 50 steps."""

    def compute(self, call: object) -> Iterator[object]:
        import resource

        if call.options.settings.num_inference_steps == 50:
            most = 1024 * int(Path("/proc/self/statm").read_text().split()[0]) * 4 + 30_000_000
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        try:
            yield from super().compute(call)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Witness:
    """Says who loaded it, and which threads there are."""

    def __init__(self) -> None:
        self.loaded_by = threading.current_thread().name

    def rank(self, *_: object) -> tuple[str, list[str]]:
        return self.loaded_by, [thread.name for thread in threading.enumerate()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    make_tiny_pipe().save_pretrained(made / "tiny")
    photo = Image.open(EXAMPLES / "street_lr.png").convert("RGB")
    photo.crop((40, 30, 72, 54)).save(made / "small.png")
    photo.resize((600, 500)).save(made / "large.png")
    Image.open(EXAMPLES / "street_ref1.jpg").crop((160, 120, 352, 280)).save(made / "reference.png")
    return made


@pytest.fixture(scope="module")
def work(folder: Path) -> Iterator[Elsewhere]:
    before = set(multiprocessing.active_children())  # other files of tests leave some
    work = Elsewhere(partial(Limited.load, str(folder / "tiny"), None, None))
    yield work
    work.close()
    assert set(multiprocessing.active_children()) <= before


@pytest.fixture(scope="module")
def pipe(folder: Path) -> DEFPipeline:
    return Here.load(str(folder / "tiny"), None, None).pipeline


@pytest.fixture
def runner(work: Elsewhere) -> Runner:
    return Runner(work)


def visit(folder: Path, photo: str = "small.png") -> Session:
    session = Session()
    session.set_photo(check_photo(folder / photo))
    session.set_uploads(check_references([str(folder / "reference.png")]))
    return session


def result(runner: Runner, session: Session) -> np.ndarray:
    for _ in runner.run(session, FAST):
        pass
    return np.asarray(Image.open(session.result.picture("result")))


def test_it_gives_what_this_process_gives(pipe: DEFPipeline, runner: Runner, folder: Path) -> None:
    there, here = visit(folder), visit(folder)
    steps = [p.step for p in runner.run(there, FAST) if p.step]
    assert steps and all(isinstance(step, Step) and step.picture.shape == (1, 3, 96, 128) for step in steps)
    assert np.array_equal(np.asarray(Image.open(there.result.picture("result"))), result(Runner(pipe), here))
    for session, other in ((there, runner), (here, Runner(pipe))):
        session.rank(other.rank)
    assert there.ranked == here.ranked


def test_it_tells_what_this_process_would_tell(pipe: DEFPipeline, work: Elsewhere) -> None:
    told, known = work.about(), Here(pipe).about()
    threads = told.setup.threads  # of its own
    assert told == replace(known, setup=replace(known.setup, threads=threads)) and told.setup.name == "tiny"


def test_who_loads_the_model_does_not_stay() -> None:
    """OpenMP slowed every call beside the idle threads of the one that had loaded the model."""
    work = Elsewhere(Witness)
    try:
        loaded_by, there = work.rank(Path(), [])
    finally:
        work.close()
    assert "MainThread" in there and loaded_by not in there


def test_a_model_that_does_not_load_is_said_at_each_call(folder: Path) -> None:
    work = Elsewhere(partial(Here.load, str(folder / "later"), None, None))
    with closing(work):
        for _ in range(2):
            with pytest.raises(ValueError, match="later"):
                work.about()
        process = work.process
        make_tiny_pipe().save_pretrained(folder / "later")
        assert work.about().setup.name == "later" and work.process is process


COMMAND = "import sys; from def_hub.cli import main; sys.exit(main(['app', *sys.argv[1:]]))"


def started(*words: object, **more: str) -> subprocess.Popen[str]:
    """`def-hub app`, which is not to get as far as serving."""
    command = [sys.executable, "-c", COMMAND, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | more, stderr=subprocess.PIPE, text=True)


def complaints(server: subprocess.Popen[str]) -> list[str]:
    """What it says when it ends, but for bars of progress."""
    said = server.communicate(timeout=600)[1].splitlines()
    assert server.returncode == 2, said
    return [line for line in said if line.strip() and not line.startswith("Loading ")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model", "user/none"], "user/none: the Hub cannot be reached, or must not be asked, and the cache lacks"),
        (["--library", "absent.def"], "absent.def: no library here; make one with"),
    ],
)
def test_what_does_not_load_is_one_line_of_the_command(words: list[str], expected: str) -> None:
    (said,) = complaints(started(*words, HF_HUB_OFFLINE="1"))
    assert said.startswith(f"def-hub: error: {expected}")


def test_a_folder_that_is_not_there_is_said_at_once(run: Run) -> None:
    status, out, err = run("app", "--model", "absent/folder/")
    assert status == 2 and not out
    assert err == "def-hub: error: --model absent/folder/: neither a folder nor a Hub name like user/model\n"


def loading(server: subprocess.Popen[str]) -> int | None:
    """The process that computes, as soon as it has begun to load libraries."""
    for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        command, libraries = (Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "maps"))
        if "spawn_main" in command and "libtorch" in libraries:
            return int(pid)
    return None


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="looks for it as Linux tells")
def test_a_process_that_is_killed_while_it_loads_is_one_line_of_the_command(folder: Path) -> None:
    server = started("--model", folder / "tiny")
    while (computing := loading(server)) is None:
        assert server.poll() is None
        time.sleep(0.01)
    os.kill(computing, signal.SIGKILL)
    (said,) = complaints(server)
    assert said == (
        "def-hub: error: the page cannot be served: while the model was loaded, the process that computes ended with "
        "status -9; is there enough memory?"
    )


def test_the_server_itself_loads_no_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would lie in memory twice."""

    def pipelines() -> list[DEFPipeline]:
        return [known for known in gc.get_objects() if type(known) is DEFPipeline]

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before, while_serving = pipelines(), list[DEFPipeline]()
    monkeypatch.setenv("DEF_MODEL", str(folder / "tiny"))
    monkeypatch.setattr("gradio.Blocks.launch", lambda *_, **options: while_serving.extend(pipelines()))
    monkeypatch.setattr("def_hub.service.examples.SHIPPED", ())
    served: list[Elsewhere] = []
    monkeypatch.setattr(serve, "Elsewhere", lambda load: served.append(Elsewhere(load)) or served[0])
    serve.main()
    served[0].close()
    assert {id(pipe) for pipe in while_serving} <= {id(pipe) for pipe in before}


def test_a_killed_process_costs_one_run(runner: Runner, work: Elsewhere, folder: Path) -> None:
    """Who waits for it gets a message that names a size; the next visitor is served."""
    expected, killed = result(runner, visit(folder)), visit(folder)
    with closing(runner.run(killed, LONG)) as progress:
        next(progress)
        os.kill(work.process.pid, signal.SIGKILL)
        with pytest.raises(NotEnoughMemory, match="not enough memory for 32×24 pixels") as caught:
            for _ in progress:
                pass
    words = complaint(caught.value)
    assert "with these references" in words and ("fewer or smaller references" in words or "fits" in words)
    killed.set_uploads([])
    assert "references" not in killed.advice(FAST)
    assert np.array_equal(result(runner, visit(folder)), expected)


def test_visitors_of_a_server_whose_process_is_killed(work: Elsewhere, folder: Path) -> None:
    """Over HTTP: the one that waits reads which size fits, the next is served."""
    demo = app.build_demo(work).queue(max_size=4)
    _, url, _ = demo.launch(**app.launch_options(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    client = Client(url, verbose=False)
    small, large = (handle_file(str(folder / f"{name}.png")) for name in ("small", "large"))
    given = {"preset": "fast", "api_name": "/upscale"}
    try:
        expected = client.predict(small, **given)[0]
        job = client.submit(large, **given, steps=40)
        while not work._calls:
            assert not job.done(), job.exception()
            time.sleep(0.01)
        os.kill(work.process.pid, signal.SIGKILL)
        assert "not enough memory for 600×500 pixels" in str(job.exception(300))
        assert np.array_equal(Image.open(client.predict(small, **given)[0]), Image.open(expected))
    finally:
        demo.close()


def test_used_up_memory_costs_one_run_and_names_a_size_that_fits(runner: Runner, work: Elsewhere, folder: Path) -> None:
    process = work.process
    with pytest.raises(NotEnoughMemory) as caught:
        for _ in runner.run(visit(folder, "large.png"), LONG):
            pass
    words = complaint(caught.value)
    assert words.startswith("There is not enough memory for 600×500 pixels") and "fits" in words
    width, height = map(int, words.split(". ")[1].split(" ")[0].split("×"))
    assert 8 <= height < 500 and width / height == pytest.approx(1.2, abs=0.02)
    assert result(runner, visit(folder)).shape == (96, 128, 3) and work.process is process


def test_what_it_raises_arrives(work: Elsewhere, folder: Path) -> None:
    (folder / "none.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not a readable picture") as caught:
        work.rank(folder / "none.png", [folder / "reference.png"])
    assert "rank_references" in "".join(caught.value.__notes__)  # where it happened, for the log


@pytest.mark.parametrize("error", [MissingDecoder("a.heic", "no", "a.heic"), Killed(-9), ValueError("a")])
def test_errors_can_travel(error: Exception) -> None:
    assert _portable(error) is error


def test_a_stopped_call_stops_there(work: Elsewhere, runner: Runner, folder: Path) -> None:
    """A closed run, and a thread that waits for an answer."""
    with closing(runner.run(visit(folder), LONG)) as progress:
        next(progress)
    assert not work._calls

    def ranked() -> None:
        work.rank(folder / "large.png", [folder / "reference.png"] * 20)

    worker, stop = workers.start(ranked, "def-test")
    while not work._calls:
        time.sleep(0.01)
    stop.set()
    worker.join(60)
    assert not worker.is_alive() and not work._calls


def test_calls_at_the_same_time_get_their_own_answers(work: Elsewhere, folder: Path) -> None:
    alone = {name: work.rank(folder / name, [folder / "reference.png"]) for name in ("small.png", "large.png")}
    there: dict[str, object] = {}

    def ranked(name: str) -> None:
        there[name] = work.rank(folder / name, [folder / "reference.png"])

    threads = [threading.Thread(target=ranked, args=(name,)) for name in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there == alone


def test_at_the_end_nobody_goes_on_waiting(folder: Path) -> None:
    """And nothing is logged as a failure."""
    work = Elsewhere(partial(Here.load, str(folder / "tiny"), None, None))
    raised: list[BaseException] = []

    def ranked() -> None:
        try:
            work.rank(folder / "large.png", [folder / "reference.png"] * 20)
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    waiting = threading.Thread(target=ranked)
    waiting.start()
    while not work._calls:
        time.sleep(0.01)
    work.close()
    waiting.join(60)
    assert [type(error) for error in raised] == [workers.Cancelled]
    with pytest.raises(workers.Cancelled):
        work.rank(folder / "small.png", [folder / "reference.png"])
