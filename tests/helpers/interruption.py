"""Kill a command at random moments, again and again, and look at what it leaves behind.

    python -m tests.helpers.interruption upscale --kills 50
    python -m tests.helpers.interruption all --kills 50

After each kill, what has its final name is whole. At the end the same command is run once more: it completes the rest,
the results are those of a run that nobody stopped, and no temporary file is left. Each kill is SIGKILL or SIGTERM, in
turn. Commands run in forks of this process, which has imported everything: a kill then costs what the command computes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open

Words = list[str]


@dataclass(frozen=True)
class Job:
    """A command that is stopped and started again.

    words: of the command. prepare: makes what it needs, in the current folder. whole: paths → what has to be the same
    as after a run that nobody stopped; raises where something is damaged. grows: it changes until the run is done.
    """

    words: Words
    prepare: Callable[[], None]
    whole: Callable[[], dict[str, object]]
    grows: bool = False


MODEL = ["--model", "model", "--device", "cpu"]
TRAIN = """
part = "extractor"
output = "run"
seed = 5
[data]
size = 32
holdout = ["garden"]
[[data.sources]]
kind = "photos"
path = "photos"
[log]
every = 1
validate = 2
checkpoint_minutes = 0.0
[optim]
steps = 12
batch = 2
warmup = 1
lr = 2e-3
"""


def picture(path: Path, seed: int, size: tuple[int, int]) -> None:
    """A smooth random picture of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)


def pixels(folder: str) -> dict[str, object]:
    """All pictures in a folder, decoded."""
    found = {}
    for path in Path(folder).rglob("*.png") if Path(folder).exists() else ():
        if not path.name.startswith("."):
            with Image.open(path) as image:
                found[str(path)] = image.convert("RGB").tobytes()
    return found


def held() -> dict[str, object]:
    """The photos that a library and its parts hold, each with its hash and its vectors."""
    from def_hub.reference.library.building import PART, PARTS
    from def_hub.reference.library.index import INDEX, entries_from_json, read_descriptors, read_index

    rows = []
    if Path("photos.def", INDEX).exists():
        index = read_index(Path("photos.def"))
        rows += zip(index.entries, index.descriptors.regions, strict=True)
    for path in Path("photos.def", PARTS).glob(PART):
        found, metadata = read_descriptors(path)
        rows += zip(entries_from_json(path, metadata["entries"]), found.regions, strict=True)
    return {entry.path: (entry.digest, vector.numpy().tobytes()) for entry, vector in rows}


def weights(folder: str) -> dict[str, object]:
    """All tensors in a folder, and whether its JSON files are whole."""
    found: dict[str, object] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".safetensors" and not any(part.startswith(".") for part in path.parts):
            with safe_open(path, framework="np") as file:
                found |= {f"{path}:{key}": file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
    return found


def measured() -> dict[str, object]:
    """The rows of an evaluation without what differs from run to run, and the pictures."""
    from def_hub.evaluation.rows import read_rows

    rows = {row.key: row for path in Path("out").glob("rows*.csv") for row in read_rows(path)}
    for path in Path("out").glob("*.json"):
        json.loads(path.read_text())
    return pixels("out") | {str(key): (row.psnr, row.ssim, row.consistency) for key, row in rows.items()}


def prepare_upscale() -> None:
    for number in range(5):
        picture(Path(f"in/{number}.png"), number, (12, 14))


def prepare_library() -> None:
    for number in range(60):
        picture(Path(f"photos/{number}.png"), number, (80, 64))


def prepare_evaluate() -> None:
    for number in range(4):
        picture(Path(f"data/{number}.png"), number, (40, 36))


def prepare_train() -> None:
    for number in range(4):
        picture(Path(f"photos/{number}.png"), number, (48, 40))
    Path("run.toml").write_text(TRAIN)


def whole_upscale() -> dict[str, object]:
    for path in Path("why").rglob("report.json"):
        json.loads(path.read_text())
    return pixels("out") | pixels("why")


JOBS = {
    "upscale": Job(
        [*"upscale in -o out --steps 4 --skip-existing --save-intermediates why".split(), *MODEL],
        prepare_upscale,
        whole_upscale,
    ),
    "library": Job("library build photos -o photos.def".split(), prepare_library, held),
    "evaluate": Job(
        [*"evaluate data --references none --steps 4 --output out --save-images --resume".split(), *MODEL],
        prepare_evaluate,
        measured,
    ),
    "train": Job(["train", "run.toml"], prepare_train, lambda: weights("run"), grows=True),
    "publish": Job(["publish", "model", "alice/def-x4", "--license", "mit"], lambda: None, lambda: {}),
    "app": Job(["app", "--model", "model"], lambda: None, lambda: {}),
}


def started(words: Words) -> int:
    """Run a command in a fork, silently; returns its number."""
    number = os.fork()
    if number:
        return number
    with open("log.txt", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    status = 70
    try:
        from def_hub.cli import main

        status = main(words)
    finally:
        os._exit(status)


def ended(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def kill(number: int, how: signal.Signals) -> bool:
    """Whether the process was still there."""
    if os.waitpid(number, os.WNOHANG)[0]:
        return False
    os.kill(number, how)
    ended(number)
    return True


def temporary_files() -> list[str]:
    return [str(path) for path in Path(".").rglob(".def-*")]


def complete(job: Job) -> None:
    status = ended(started(job.words))
    assert status == 0, f"{' '.join(job.words)} ended with {status}:\n{Path('log.txt').read_text()[-2000:]}"


def in_folder(name: str, job: Job) -> None:
    """Enter a new folder with what the job needs."""
    Path(name).mkdir()
    os.chdir(name)
    job.prepare()
    os.symlink("../model", "model")


def interrupt(job: Job, kills: int, rng: random.Random) -> str:
    """Stop a job at `kills` moments; whenever it is done, begin again in a new folder. Returns what was seen."""
    home = Path.cwd()
    in_folder("straight", job)
    begun = time.monotonic()
    complete(job)
    seconds, expected = time.monotonic() - begun, job.whole()
    assert expected
    done, rounds, early = 0, 0, 0
    while done < kills:
        os.chdir(home)
        in_folder(f"round{rounds}", job)
        rounds += 1
        for _ in range(4):  # as many times may one run be stopped
            number = started(job.words)
            time.sleep(rng.uniform(0, 0.7 * seconds))  # what is done is not done again
            early += not kill(number, (signal.SIGKILL, signal.SIGTERM)[done % 2])
            done += 1
            there = job.whole()
            assert job.grows or there.items() <= expected.items()
        complete(job)
        assert job.whole() == expected
        assert not temporary_files(), temporary_files()
    return f"{done} kills in {rounds} rounds, {early} after the end; a run takes {seconds:.1f} s"


def interrupt_publish(job: Job, kills: int, rng: random.Random) -> str:
    """Publishing to a local server: a killed one has committed all or nothing, and the same command completes it."""
    from tests.helpers.hub_server import HubServer

    bound = socket.socket()
    bound.bind(("127.0.0.1", int(os.environ["HF_ENDPOINT"].rpartition(":")[2])))
    hub = HubServer(bound)
    hub.start()
    begun = time.monotonic()
    complete(job)
    seconds, (expected,) = time.monotonic() - begun, [set(hub.files("alice/def-x4"))]
    committed = 0
    for number in range(kills):
        hub.reset()
        process = started(job.words)
        time.sleep(rng.uniform(0, seconds))
        kill(process, (signal.SIGKILL, signal.SIGTERM)[number % 2])
        there = set(hub.files("alice/def-x4")) if ("models", "alice/def-x4") in hub.repositories else set()
        assert there in (set(), expected), there
        committed += bool(there)
        complete(job)
        assert set(hub.files("alice/def-x4")) == expected
    assert not temporary_files()
    return f"{kills} kills, {committed} after the commit; a run takes {seconds:.1f} s"


def interrupt_app(job: Job, kills: int, rng: random.Random) -> str:
    """The page, with a visitor's upload: nothing is left after SIGTERM, and after SIGKILL once it starts again."""
    import httpx

    os.environ["TMPDIR"] = str(Path("temporary").absolute())
    Path("temporary").mkdir()
    picture(Path("photo.png"), 0, (16, 16))
    for number in range(kills):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ |= {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
        process = started(job.words)
        until = time.monotonic() + rng.uniform(0, 20)
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                files = {"files": ("photo.png", Path("photo.png").read_bytes())}
                httpx.post(f"http://127.0.0.1:{port}/gradio_api/upload", files=files, timeout=5).raise_for_status()
                time.sleep(rng.uniform(0, 1))
                break
            time.sleep(0.1)
        how = (signal.SIGKILL, signal.SIGTERM)[number % 2]
        kill(process, how)
        left = [path for path in Path("temporary").rglob("*") if path.is_file()]
        assert how == signal.SIGKILL or not left, left
    from def_hub.service.temporary import own_folder

    tempfile.tempdir = None
    with own_folder():
        pass
    left = [path for path in Path("temporary").rglob("*") if path.is_file()]
    assert not left, left
    return f"{kills} kills, a part of them before the page was there"


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder with a tiny model, which a fork makes: a process that has computed must not fork."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        number = os.fork()
        if not number:
            from tests.conftest import make_tiny_pipe

            make_tiny_pipe().save_pretrained("model")
            os._exit(0)
        assert ended(number) == 0
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*JOBS, "all"])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{free.getsockname()[1]}"
    os.environ |= {"HF_TOKEN": "hf_alice", "HF_HUB_DISABLE_XET": "1", "ACCELERATE_USE_CPU": "true"}
    import def_hub.cli.upscale
    import def_hub.reference.library
    import def_hub.training  # noqa: F401  (imported once, for all forks)

    ways = {"publish": interrupt_publish, "app": interrupt_app}
    for name in JOBS if options.what == "all" else [options.what]:
        with workplace():
            print(f"{name}: {ways.get(name, interrupt)(JOBS[name], options.kills, random.Random(options.seed))}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
