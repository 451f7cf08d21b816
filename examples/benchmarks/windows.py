"""Measure how much the result changes if the prior sees windows of the picture instead of the whole.

    python examples/benchmarks/windows.py [--window 256] [--precision float32] [--names street banana robot]

The script enlarges the shipped examples, 128×128 → 512×512 with one reference, preset "balanced". It prints the largest
differences in 1/255. That of the enhanced image is caused by the windows alone. That of the result can be larger: where
two matches are almost equally good, a small difference can decide for the other one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from def_hub import DEFPipeline

EXAMPLES = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--window", type=int, default=256, help="side of a window, in pixels of the result")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--names", nargs="+", default=["street", "banana", "robot"])
    arguments = parser.parse_args()

    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    print(f"windows of {arguments.window}, {arguments.precision}; largest difference in 1/255")
    print(f"{'':12}{'enhanced':>10}{'result':>10}{'above 1':>12}")
    for name in arguments.names:
        outputs = []
        for window in (None, arguments.window):
            pipe.register_to_config(window=window)
            output = pipe(
                EXAMPLES / f"{name}_lr.png",
                EXAMPLES / f"{name}_ref1.jpg",
                precision=arguments.precision,
                generator=torch.Generator().manual_seed(0),
                output_type="pt",
            )
            outputs.append((output.enhanced[0], output.images[0]))
        enhanced, result = (255 * (whole - windowed).abs() for whole, windowed in zip(*outputs, strict=True))
        above = (result.amax(0) > 1).float().mean().item()
        print(f"{name:12}{enhanced.max():10.3f}{result.max():10.3f}{above:12.4%}", flush=True)


if __name__ == "__main__":
    main()
