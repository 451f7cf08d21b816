"""Visitors at the same time, against a real `def-hub app`: what they get, what they may not see, what it costs.

    python examples/load.py --minutes 10 --visitors 8

Each visitor uploads a picture of their own and a reference, waits for the result, and begins again. In the middle one
more visitor gives a reference of 24 megapixels. It is an error if a result differs by a byte from the one that is
computed alone, if a visitor is refused for another reason than a full queue, if a visitor reads another's file by its
exact path, if memory grows by more than a megabyte a run once the page is warm, or stays up after the large reference.
The status is then 1.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from gradio_client import Client, handle_file
from PIL import Image

from def_hub import DEFPipeline

EXAMPLES = Path(__file__).resolve().parent
OPTIONS = {"preset": "fast", "steps": 2}
LARGE = (6000, 4000)
WARM = 0.25  # share of the runs after which memory is expected to stay the same
LARGEST_SLOPE = 1.0  # MB for each run
LARGEST_REST = 64.0  # MB that are left of the large reference, at most
PATIENCE = {"timeout": 300}  # seconds, on a machine with other work


class Server:
    """`def-hub app` in a process of its own."""

    def __init__(self, model: str | None, temporary: str) -> None:
        words = [sys.executable, "-c", "import sys; from def_hub.cli import main; sys.exit(main())", "app"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "GRADIO_SERVER_NAME": "127.0.0.1", "TMPDIR": temporary}
        words += ["--model", model] if model else []
        self.process = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.log: list[str] = []
        for line in self.process.stdout:
            self.log.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self.url = found[0]
                break
        else:
            raise RuntimeError("the page did not start:\n" + "".join(self.log))
        threading.Thread(target=lambda: self.log.extend(self.process.stdout or ()), daemon=True).start()

    def memory(self) -> float:
        """MB in use by the server and by the process that computes for it. What both share counts twice."""
        number = self.process.pid
        others = " ".join(path.read_text() for path in Path(f"/proc/{number}/task").glob("*/children")).split()
        texts = [Path(f"/proc/{one}/status").read_text() for one in (number, *others)]
        return sum(int(found) for text in texts for found in re.findall(r"VmRSS:\s+(\d+) kB", text)) / 1024

    def failures(self) -> list[str]:
        """Lines of the log that say that something failed."""
        return [line.strip() for line in self.log if re.search(r"Error\b|Traceback|a request failed", line)]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@dataclass(frozen=True)
class Done:
    """A result: when it came and after how many seconds, and the memory of the server at that moment, in MB."""

    moment: float
    seconds: float
    memory: float


class Visitor(threading.Thread):
    """Enlarges the same picture again and again, and checks each result.

    case: photo, reference and the result computed alone. Afterwards: done, how often the queue was full, and wrong
    (what went wrong).
    """

    def __init__(self, server: Server, case: tuple[Path, Path, np.ndarray], until: float, home: Path) -> None:
        super().__init__()
        self.server, self.until, self.home = server, until, home
        self.photo, self.reference, self.expected = case
        self.full, self.done, self.wrong = 0, list[Done](), list[str]()
        self.client = Client(server.url, verbose=False, httpx_kwargs=dict(PATIENCE), download_files=home)

    def run(self) -> None:
        while time.monotonic() < self.until:
            try:
                self.ask()
            except Exception as error:
                if "queue is full" in str(error).lower():
                    self.full += 1
                else:
                    self.wrong.append(f"{type(error).__name__}: {error}")
                time.sleep(1)

    def ask(self) -> None:
        begun = time.monotonic()
        given = {"photo": handle_file(str(self.photo)), "references": [handle_file(str(self.reference))]}
        picture, _ = self.client.predict(**given, **OPTIONS, seed=4, api_name="/upscale")
        now = time.monotonic()
        self.done.append(Done(now, now - begun, self.server.memory()))
        if not np.array_equal(np.asarray(Image.open(picture)), self.expected):
            self.wrong.append("a result differs from the one that is computed alone")

    def reads(self, path: Path) -> bool:
        """Whether the server gives this visitor a file of which they know the exact path."""
        address = f"{self.server.url}/gradio_api/file={path}"
        return httpx.get(address, cookies=self.client.cookies, **PATIENCE).status_code == 200

    def others_files(self, paths: list[Path]) -> list[str]:
        """What is wrong with the files that this visitor can read, among all that the server keeps."""
        given = [self.photo.read_bytes(), self.reference.read_bytes()]
        own = {*given, *(path.read_bytes() for path in self.home.rglob("*.png"))}
        read = {path for path in paths if self.reads(path)}
        wrong = [f"reads {path}, which is not theirs" for path in read if path.read_bytes() not in own]
        there = {path.read_bytes() for path in read}
        return wrong + (["cannot read their own files"] if self.done and not set(given) <= there else [])


def kept(server: Server, folder: Path) -> list[Path]:
    """Files of visitors that the server keeps, and two that nobody may read. The page's examples are everyone's."""
    shared = httpx.get(server.url, headers={"accept": "text/html"}, **PATIENCE).text
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name not in shared]
    return [*files, EXAMPLES / "load.py", Path("/etc/passwd")]


def prepared(number: int, folder: Path, pipe: DEFPipeline) -> tuple[Path, Path, np.ndarray]:
    """A picture of a visitor's own, its reference, and what the pipeline makes of them."""
    photo, reference = folder / f"photo{number}.png", folder / f"reference{number}.png"
    left, top = 8 * (number % 8), 6 * (number % 5)
    Image.open(EXAMPLES / "street_lr.png").crop((left, top, left + 32, top + 24)).save(photo)
    box = (4 * left, 4 * top, 4 * left + 160, 4 * top + 128)
    Image.open(EXAMPLES / "street_ref1.jpg").crop(box).save(reference)
    options: dict[str, Any] = {"preset": OPTIONS["preset"], "num_inference_steps": OPTIONS["steps"]}
    generator = torch.Generator().manual_seed(4)
    return photo, reference, np.asarray(pipe(photo, reference, generator=generator, **options).images[0])


def large_reference(folder: Path) -> Path:
    path = folder / "large.jpg"
    Image.open(EXAMPLES / "street_ref1.jpg").resize(LARGE, Image.Resampling.BICUBIC).save(path, quality=85)
    return path


@dataclass(frozen=True)
class Memory:
    """Of the server, in MB. slope: what each run adds, by least squares over the runs after the warm-up. before,
    largest, after: medians before and after the large reference, and the largest value while it was computed."""

    slope: float
    before: float
    largest: float
    after: float


class Large(threading.Thread):
    """One request with a large reference, in the middle of the others'; watches the memory meanwhile."""

    def __init__(self, server: Server, photo: Path, reference: Path, at: float) -> None:
        super().__init__()
        self.server, self.photo, self.reference, self.at = server, photo, reference, at
        self.begun = self.ended = self.largest = 0.0
        self.wrong: list[str] = []

    def run(self) -> None:
        time.sleep(max(self.at - time.monotonic(), 0))
        self.begun = time.monotonic()
        client = Client(self.server.url, verbose=False, httpx_kwargs=dict(PATIENCE))
        given = {"photo": handle_file(str(self.photo)), "references": [handle_file(str(self.reference))]}
        job = client.submit(**given, **OPTIONS, seed=4, api_name="/upscale")
        while not job.done():
            self.largest = max(self.largest, self.server.memory())
            time.sleep(0.2)
        if (error := job.exception()) is not None:
            self.wrong.append(f"the large reference: {error}")
        self.ended = time.monotonic()

    def compared(self, done: list[Done]) -> Memory:
        """done: all results of the others, in order."""
        warm = [d for d in done[int(WARM * len(done)) :] if not self.begun <= d.moment <= self.ended]
        grown = np.polyfit(np.arange(len(warm)), [d.memory for d in warm], 1)[0] if len(warm) > 2 else 0.0
        sides = [[d.memory for d in warm if (d.moment > self.ended) is later] for later in (False, True)]
        before, after = (statistics.median(side) if side else float("nan") for side in sides)
        return Memory(float(grown), before, self.largest, after)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--model", help="folder or Hub name (default: the embedded model)")
    parser.add_argument("--series", type=Path, help="write moment, seconds and memory of each result here, as CSV")
    options = parser.parse_args()
    pipe = DEFPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as place:
        own = Path(place) / "visitors"
        own.mkdir()
        cases = [prepared(number, own, pipe) for number in range(options.visitors)]
        del pipe
        server = Server(options.model, place)
        try:
            now, seconds = time.monotonic(), 60 * options.minutes
            visitors = [Visitor(server, case, now + seconds, own / str(n)) for n, case in enumerate(cases)]
            large = Large(server, cases[0][0], large_reference(own), now + seconds / 2)
            for thread in (*visitors, large):
                thread.start()
            for thread in (*visitors, large):
                thread.join()
            (served,) = Path(place).glob("def_hub-served-*")
            paths = kept(server, served)
            for visitor in visitors:
                visitor.wrong += visitor.others_files(paths)
        finally:
            server.stop()
        left = [f"left behind: {path}" for path in Path(place).glob("def_hub-*")]
    done = sorted((done for visitor in visitors for done in visitor.done), key=lambda d: d.moment)
    if options.series:
        rows = [f"{d.moment - now:.1f},{d.seconds:.1f},{d.memory:.1f}\n" for d in done]
        options.series.write_text("moment,seconds,memory\n" + "".join(rows))
    return judged(visitors, done, large, len(paths), left + [f"the log: {line}" for line in server.failures()])


def judged(visitors: list[Visitor], done: list[Done], large: Large, files: int, more: list[str]) -> int:
    """Print what happened; 1 where something is wrong."""
    memory = large.compared(done)
    wrong = [f"visitor {n}: {what}" for n, visitor in enumerate(visitors) for what in visitor.wrong]
    wrong += large.wrong + more + ([] if done else ["nobody got a result"])
    if memory.slope > LARGEST_SLOPE:
        wrong.append(f"memory grows by {memory.slope:.2f} MB a run, expected at most {LARGEST_SLOPE:g}")
    if memory.after - memory.before > LARGEST_REST:
        wrong.append(f"memory is {memory.after - memory.before:.0f} MB more after a large reference")
    seconds = [d.seconds for d in done] or [float("nan")]
    table = {
        "visitors": len(visitors),
        "results, each as computed alone": len(done),
        "times the queue was full": sum(visitor.full for visitor in visitors),
        "seconds to a result, median and longest": f"{statistics.median(seconds):.1f}, {max(seconds):.1f}",
        "MB that a run adds after the warm-up": f"{memory.slope:+.2f}",
        "MB before, during and after a large reference": f"{memory.before:.0f}, {memory.largest:.0f}, "
        f"{memory.after:.0f}",
        "files that each visitor tried to read": files,
        "wrong": len(wrong),
    }
    for name, value in table.items():
        print(f"| {name} | {value} |")
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
