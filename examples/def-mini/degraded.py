"""How far a trunk has come: `python examples/def-mini/degraded.py DATA PRIOR TRUNK … [--every N]`.

DATA is a folder of originals (`NNN_0.webp` as in MultiView, or any pictures), PRIOR a folder with `unet` and
`scheduler`, each TRUNK one with `refsr`. Prints the mean gain over bicubic in dB (PSNR on Y, no border, 8 bit), without
a reference, for each named degradation, told exactly what it is. What the pipeline adds to this (several
orientations, the projection onto what a JPEG says) is left out, so it compares weights and nothing else.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from def_hub.diffusion.enhancer import DetailEnhancer
from def_hub.evaluation.metrics import psnr
from def_hub.images import to_tensor
from def_hub.reference.network import ReferenceNetwork
from def_hub.training.given import OPERATOR, WATCHED, degraded, given
from def_hub.training.prior import load_enhancer

NAMES = ("clean", "jpeg90", *WATCHED, "lanczos")


def restored(network: ReferenceNetwork, prior: DetailEnhancer, batch: dict[str, Tensor]) -> Tensor:
    """What network and prior make of a degraded picture, `[1, 3, H, W]`."""
    of = given(batch, prior.denoiser.known)
    loop = DetailEnhancer(prior.denoiser, of, window=prior.window, smallest=prior.denoiser.multiple)
    enhanced = loop(of.seen, num_inference_steps=1, generator=torch.Generator().manual_seed(0)).clamp(0, 1)
    of = given(batch, network.config.known)
    return of.project(network.estimate(of.seen, enhanced).once, of.y)


@torch.no_grad()
def main() -> None:
    """Print one row for each trunk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("prior")
    parser.add_argument("trunks", nargs="+")
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    files = sorted(f for f in options.data.iterdir() if f.stem.endswith("_0")) or sorted(options.data.iterdir())
    prior = load_enhancer(options.prior)
    print(" " * 24, *(f"{name:>9}" for name in NAMES))
    for trunk in options.trunks:
        network = ReferenceNetwork.from_pretrained(trunk, subfolder="refsr")
        gains = []
        for name in NAMES:
            total = 0.0
            pictures = files[:: options.every]
            for file in pictures:
                truth = to_tensor(str(file))
                truth = truth[..., : truth.shape[-2] // 4 * 4, : truth.shape[-1] // 4 * 4]
                batch = degraded(truth, name)
                result = restored(network, prior, batch)
                total += float(psnr(result, truth)) - float(psnr(OPERATOR.upsample(batch["y"]), truth))
            gains.append(total / len(pictures))
        print(f"{trunk[-24:]:24}", *(f"{gain:9.2f}" for gain in gains), flush=True)


if __name__ == "__main__":
    main()
