"""How far a picture that the prior sees through windows differs from one that it sees whole.

    python examples/benchmarks/windows.py [--window 256] [--precision float32] [--names street banana robot]

The shipped examples, 128×128 → 512×512 with one reference, preset "balanced". Differences are in 1/255: of the enhanced
image, which is what the windows make; and of the result, where a match that was nearly a tie may fall otherwise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from def_hub import DEFPipeline

EXAMPLES = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--window", type=int, default=256, help="side in pixels of the result")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--names", nargs="+", default=["street", "banana", "robot"])
    arguments = parser.parse_args()

    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    print(f"windows of {arguments.window}, {arguments.precision}; largest difference in 1/255")
    print(f"{'':12}{'enhanced':>10}{'result':>10}{'above 1':>12}")
    for name in arguments.names:
        seen = []
        for window in (None, arguments.window):
            pipe.register_to_config(window=window)
            output = pipe(
                EXAMPLES / f"{name}_lr.png",
                EXAMPLES / f"{name}_ref1.jpg",
                precision=arguments.precision,
                generator=torch.Generator().manual_seed(0),
                output_type="pt",
            )
            seen.append((output.enhanced[0], output.images[0]))
        enhanced, result = (255 * (one - other).abs() for one, other in zip(*seen, strict=True))
        above = (result.amax(0) > 1).float().mean().item()
        print(f"{name:12}{enhanced.max():10.3f}{result.max():10.3f}{above:12.4%}", flush=True)


if __name__ == "__main__":
    main()
