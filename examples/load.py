"""Visitors at the same time, against a real `def-hub app`: what they get, what they may not see, what it costs.

    python examples/load.py --minutes 10 --visitors 8

Each visitor uploads a picture of their own and a reference, waits for the result, and begins again. It is an error if a
result differs by a byte from the one that is computed alone, if a visitor is refused for another reason than a full
queue, if a visitor reads another's file by its exact path, or if memory grows by more than a megabyte a run once the
page is warm. The status is then 1.
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
WARM = 0.25  # share of the runs after which memory is expected to stay the same
LARGEST_SLOPE = 1.0  # MB for each run


class Server:
    """`def-hub app` in a process of its own."""

    def __init__(self, model: str | None) -> None:
        words = [sys.executable, "-c", "import sys; from def_hub.cli import main; sys.exit(main())", "app"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "GRADIO_SERVER_NAME": "127.0.0.1"}
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
        """MB in use by the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Visitor(threading.Thread):
    """Enlarges the same picture again and again.

    expected: the result computed alone. Afterwards: results, refusals by the full queue, wrong (what went wrong), and
    paths of the files that the server keeps.
    """

    def __init__(self, server: Server, photo: Path, reference: Path, expected: np.ndarray, until: float) -> None:
        super().__init__()
        self.server, self.photo, self.reference, self.expected, self.until = server, photo, reference, expected, until
        self.results, self.full, self.wrong = 0, 0, list[str]()
        self.seconds: list[float] = []
        self.memory: list[float] = []
        self.paths: set[str] = set()

    def run(self) -> None:
        client = Client(self.server.url, verbose=False)
        while time.monotonic() < self.until:
            begun = time.monotonic()
            given = {"photo": handle_file(str(self.photo)), "references": [handle_file(str(self.reference))]}
            try:
                picture, _ = client.predict(**given, **OPTIONS, seed=4, api_name="/upscale")
            except Exception as error:
                if "queue is full" in str(error).lower():
                    self.full += 1
                    time.sleep(1)
                    continue
                self.wrong.append(f"{type(error).__name__}: {error}")
                return
            self.results += 1
            self.seconds.append(time.monotonic() - begun)
            self.memory.append(self.server.memory())
            if not np.array_equal(np.asarray(Image.open(picture)), self.expected):
                self.wrong.append("a result differs from the one that is computed alone")


def others_files(server: Server, folder: Path) -> list[str]:
    """Files of visitors that a stranger reads by their exact path, and files that nobody may read."""
    read = []
    with httpx.Client(headers={"accept": "text/html"}, timeout=60) as stranger:
        shared = stranger.get(server.url).text  # the page names its examples
        for path in (p for p in folder.rglob("*") if p.is_file() and p.parent.name not in shared):
            if stranger.get(f"{server.url}/gradio_api/file={path}").status_code == 200:
                read.append(str(path))
        for path in (EXAMPLES / "load.py", Path("/etc/passwd")):
            if stranger.get(f"{server.url}/gradio_api/file={path}").status_code == 200:
                read.append(str(path))
    return read


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


def slope(memory: list[float]) -> float:
    """MB that each run adds, by least squares over the runs after the warm-up."""
    warm = memory[int(WARM * len(memory)) :]
    return float(np.polyfit(np.arange(len(warm)), warm, 1)[0]) if len(warm) > 2 else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--model", help="folder or Hub name (default: the embedded model)")
    options = parser.parse_args()
    pipe = DEFPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as place:
        os.environ["TMPDIR"] = place
        own = Path(place) / "visitors"
        own.mkdir()
        cases = [prepared(number, own, pipe) for number in range(options.visitors)]
        del pipe
        server = Server(options.model)
        try:
            until = time.monotonic() + 60 * options.minutes
            visitors = [Visitor(server, *case, until) for case in cases]
            for visitor in visitors:
                visitor.start()
            for visitor in visitors:
                visitor.join()
            (served,) = Path(place).glob("def_hub-served-*")
            leaked = others_files(server, served)
        finally:
            server.stop()
        left = [str(path) for path in Path(place).glob("def_hub-*")]
    return judged(visitors, leaked, left)


def judged(visitors: list[Visitor], leaked: list[str], left: list[str]) -> int:
    """Print what happened; 1 where something is wrong."""
    memory = [value for visitor in visitors for value in visitor.memory]
    seconds = [value for visitor in visitors for value in visitor.seconds]
    grown = slope(memory)
    wrong = [f"visitor {n}: {what}" for n, visitor in enumerate(visitors) for what in visitor.wrong]
    wrong += [f"a stranger read {path}" for path in leaked] + [f"left behind: {path}" for path in left]
    if not seconds:
        wrong.append("nobody got a result")
    if grown > LARGEST_SLOPE:
        wrong.append(f"memory grows by {grown:.2f} MB a run, expected at most {LARGEST_SLOPE:g}")
    print(
        f"{len(seconds)} results for {len(visitors)} visitors, {sum(v.full for v in visitors)} times the queue was full"
    )
    if seconds:
        print(f"a result takes {statistics.median(seconds):.1f} s (median), {max(seconds):.1f} s (longest)")
        print(f"memory {min(memory):.0f} to {max(memory):.0f} MB, {grown:+.2f} MB a run after the warm-up")
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
