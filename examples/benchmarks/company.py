"""How a call slows down in company: one, two and three processes at the same time, with each way of waiting.

    python examples/benchmarks/company.py

Each process enlarges a 96×96 picture with one reference, a few times. The table has the seconds of one call: the
median over all processes. Fair is what grows in proportion to the processes for each core; fast is the first column.
Measure on a machine that does nothing else.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from def_hub.waiting import SPINS

EXAMPLES = Path(__file__).resolve().parents[1]
WAYS: dict[str, dict[str, str]] = {
    "libgomp's own": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    **{f"{spins:,} spins": {"GOMP_SPINCOUNT": str(spins)} for spins in (100, 1_000, SPINS, 100_000)},
}
CALL = """
import sys, time
from PIL import Image
import torch
from def_hub import DEFPipeline
pipe = DEFPipeline.from_pretrained()
pipe.set_progress_bar_config(disable=True)
side = int(sys.argv[4])
picture = Image.open(sys.argv[1]).convert("RGB").crop((0, 0, side, side))
reference = Image.open(sys.argv[2]).convert("RGB").crop((0, 0, 4 * side, 4 * side))
pipe(picture, reference)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    begun = time.perf_counter()
    pipe(picture, reference, generator=torch.Generator().manual_seed(0))
    print(time.perf_counter() - begun, flush=True)
"""


def seconds(processes: int, calls: int, side: int, waiting: dict[str, str]) -> float:
    """Of one call, where so many processes call at the same time. All are warm before the first begins."""
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "KMP_BLOCKTIME")
    kept = {k: v for k, v in os.environ.items() if k not in ours}
    pictures = [str(EXAMPLES / name) for name in ("street_lr.png", "street_ref1.jpg")]
    words = [sys.executable, "-c", CALL, *pictures, str(calls), str(side)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(words, env=kept | waiting, **pipes) for _ in range(processes)]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return statistics.median(float(line) for process in running for line in process.communicate()[0].splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5, help="of each process")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--side", type=int, default=96, help="of the picture, in pixels")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="of waiting")
    options = parser.parse_args()
    print(f"| waiting | {' | '.join(f'{n} at a time' for n in options.processes)} |")
    print(f"|---|{'---|' * len(options.processes)}")
    for name in options.ways:
        print(f"| {name} |", end="", flush=True)
        for processes in options.processes:
            print(f" {seconds(processes, options.calls, options.side, WAYS[name]):.2f} s |", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
