"""Time and memory of the search, the transfer, the whole pipeline, and TTSR for comparison, in one table.

    python examples/benchmarks/run.py [--size 125] [--repeat 5] [--only NAME ...]

Each row is measured in a fresh process. Seconds are the median of `--repeat` calls after one to warm up. Megabytes are
the peak memory of the process, minus its memory before the first call.

The rows for TTSR are stand-ins, written from its paper with the same arithmetic: an unfolded search on relu3_1
features, and its main network, which is def-base's `Aggregator`. Their weights are random, which does not change the
time.

The last lines show how long importing and loading take, and how fast the diffusion network computes, compared with a
single wide convolution on this machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

EXAMPLES = Path(__file__).resolve().parents[1]
Run = Callable[[], object]


def unfolded_search(size: int) -> Run:
    """TTSR's search: the products of all patches of the reference and the input, in one matrix."""
    query, key = features(size), features(size, seed=1)

    def run() -> object:
        q, k = (F.normalize(F.unfold(x, 3, padding=1), dim=1) for x in (query, key))
        return torch.bmm(k.transpose(1, 2), q).max(dim=1)

    return run


def exact_search(size: int) -> Run:
    """Our search for every cell. It finds the same maxima as the unfolded search."""
    return own_search(size, every=1)


def sparse_search(size: int) -> Run:
    """Our search for one cell in sixteen."""
    from def_hub.reference.matching import EVERY

    return own_search(size, every=EVERY)


def own_search(size: int, every: int) -> Run:
    from def_hub.reference.matching import Views, match

    pictures = [torch.rand(1, 3, 4 * size, 4 * size) for _ in range(2)]
    of_picture = {id(p): features(size, seed=i) for i, p in enumerate(pictures)}
    views = [Views(p, p, p) for p in pictures]
    return lambda: match(views[0], views[1:], lambda p: (p, p, of_picture[id(p)]), "enhanced", every=every)


def main_network(size: int) -> Run:
    """TTSR's main network: 64 channels, 16 + 16 + 8 + 4 blocks on three scales."""
    from def_hub.reference.restoring.aggregation import STRIDES, Aggregator, Texture

    network = Aggregator((256, 128, 64), (64, 64, 64), (16, 16, 8, 4)).eval()
    sides = [4 * size // stride for stride in STRIDES]
    transferred = [torch.rand(1, c, side, side) for c, side in zip((256, 128, 64), sides, strict=True)]
    texture = Texture(transferred, [torch.rand(1, 1, side, side) for side in sides])
    y, enhanced = torch.rand(1, 3, size, size), torch.rand(1, 3, 4 * size, 4 * size)
    return lambda: network(y, enhanced, texture)


def whole_pipeline(preset: str) -> Callable[[int], Run]:
    """The embedded default with a photograph and its reference."""

    def prepare(size: int) -> Run:
        from PIL import Image

        from def_hub import DEFPipeline, images

        pipe = DEFPipeline.from_pretrained()
        pipe.set_progress_bar_config(disable=True)
        image = images.open_rgb(EXAMPLES / "street_lr.png").resize((size, size), Image.Resampling.BICUBIC)
        reference = images.open_rgb(EXAMPLES / "street_ref1.jpg").resize((4 * size, 4 * size), Image.Resampling.LANCZOS)
        return lambda: pipe(image, reference, preset=preset, generator=torch.Generator().manual_seed(0))

    return prepare


def transfer(size: int) -> Run:
    """The deformable transfer of 64 channels at half the result's resolution, without gradients."""
    from def_hub.reference.matching import Correspondence
    from def_hub.reference.restoring.transfer import DeformableTransfer

    module, stride = DeformableTransfer(64, 64, 64), 2
    reference, guide = (channels_last(4 * size // stride, seed) for seed in range(2))
    return lambda: module([reference], guide, Correspondence.identity(1, size, size), stride)


def deformable(size: int) -> Run:
    """The deformable convolution alone, with given places and weights of its nine taps, as torchvision's operator."""
    from def_hub.reference.restoring.deformable import TAPS, Reader

    side = 2 * size
    map_, weight = channels_last(side), torch.rand(64, 64, 3, 3)
    x, y, share = (torch.rand(side * side, TAPS) for _ in range(3))
    tap, pixel = torch.arange(TAPS), torch.arange(side * side)[:, None]
    x, y = x + pixel % side + tap % 3 - 1, y + pixel // side + tap // 3 - 1
    reference = torch.zeros(1, side, side, dtype=torch.long)
    return lambda: Reader([map_], reference).convolved(x, y, share, weight)


def convolution(size: int) -> Run:
    """A plain 3×3 convolution of the same shape, to compare the transfer with."""
    module, x = torch.nn.Conv2d(64, 64, 3, padding=1), channels_last(2 * size)
    return lambda: module(x)


def channels_last(side: int, seed: int = 0) -> Tensor:
    """Features with 64 channels, in the memory layout that the pipeline uses."""
    return features(side, 64, seed).contiguous(memory_format=torch.channels_last)


def features(size: int, channels: int = 256, seed: int = 0) -> Tensor:
    """Random features like relu3_1 of a photograph: smooth, sparse, and correlated between channels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, channels // 4, size, size, generator=generator)
    mixed = F.conv2d(F.avg_pool2d(noise, 3, 1, 1), torch.randn(channels, channels // 4, 1, 1, generator=generator))
    return F.relu(mixed)


CASES: dict[str, Callable[[int], Run]] = {
    "TTSR: unfolded search": unfolded_search,
    "TTSR: main network": main_network,
    "ours: exact search, 256 channels": exact_search,
    "ours: sparse search, 256 channels": sparse_search,
    "a plain 3x3 convolution": convolution,
    "ours: deformable convolution": deformable,
    "ours: deformable transfer": transfer,
    "ours: whole pipeline, fast": whole_pipeline("fast"),
    "ours: whole pipeline, balanced": whole_pipeline("balanced"),
}


@torch.no_grad()
def measure(name: str, size: int, repeat: int) -> dict[str, float]:
    """Seconds (median) and MB of one case, in this process."""
    run = CASES[name](size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(seconds), "megabytes": (after - before) / 1024}


START = {
    "import def_hub": "import def_hub",
    "from diffusers import DiffusionPipeline, UNet2DModel": "from diffusers import DiffusionPipeline, UNet2DModel",
    "from def_hub import DEFPipeline": "from def_hub import DEFPipeline",
    "load the embedded default": "DEFPipeline.from_pretrained()",
}


def start(repeat: int) -> None:
    """Print the seconds of each statement of `START` in fresh processes."""
    for name, statement in START.items():
        before = "from def_hub import DEFPipeline" if statement.startswith("DEF") else "pass"
        code = f"{before}\nimport time; s = time.perf_counter()\n{statement}\nprint(time.perf_counter() - s)"
        seconds = []
        for _ in range(repeat):
            answer = subprocess.run(
                [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            seconds.append(float(answer.stdout.split()[-1]))
        print(f"{name:54} {statistics.median(seconds):7.3f} s", flush=True)


@torch.no_grad()
def share_of_limit(size: int, repeat: int) -> None:
    """Print the operations per second of the embedded prior, and of a wide convolution, the fastest of its layers."""
    from torch.utils.flop_counter import FlopCounterMode

    from def_hub import DEFPipeline
    from def_hub.precision import compute_in

    unet = DEFPipeline.from_pretrained().unet
    x = torch.rand(1, unet.config.in_channels, 4 * (size // 4), 4 * (size // 4))
    wide, probe = torch.nn.Conv2d(256, 256, 3, padding=1), torch.rand(1, 256, 64, 64)
    rates = []
    for network, inputs in ((lambda t: unet(t, 999), x), (wide, probe)):
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with FlopCounterMode(display=False) as counter:
            network(inputs)
        with compute_in("auto", x.device):
            network(inputs)
            seconds = []
            for _ in range(repeat):
                began = time.perf_counter()
                network(inputs)
                seconds.append(time.perf_counter() - began)
        rates.append(counter.get_total_flops() / statistics.median(seconds) / 1e9)
    print(
        f"diffusion network: {rates[0]:.0f} GFLOP/s, {rates[0] / rates[1]:.0%} of a wide convolution's {rates[1]:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=125, help="side of the LR image")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=tuple(CASES))
    parser.add_argument("--here", action="store_true", help="measure --only in this process and print JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps({name: measure(name, options.size, options.repeat) for name in options.only}))
        return

    print(f"{options.size}x{options.size} → ×4, median of {options.repeat}, {torch.get_num_threads()} threads")
    print(f"{'':36} seconds      MB  to TTSR's search + network")
    results = {}
    for name in options.only:
        command = [sys.executable, __file__, "--here", "--only", name]
        command += ["--size", str(options.size), "--repeat", str(options.repeat)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        results |= json.loads(answer.stdout.splitlines()[-1])
        peer = sum(r["seconds"] for n, r in results.items() if n.startswith("TTSR"))
        ratio = f"{results[name]['seconds'] / peer:8.3f}" if peer else ""
        print(f"{name:36} {results[name]['seconds']:7.3f} {results[name]['megabytes']:7.0f} {ratio}", flush=True)
    if len(options.only) == len(CASES):
        print()
        start(options.repeat)
        share_of_limit(options.size, options.repeat)


if __name__ == "__main__":
    main()
