"""Compare ways to match and to refine, on pairs of photographs of the same place.

    python examples/matching_table.py --data DATA/pairs160 [--vgg WEIGHTS.safetensors] [--enhance images]

"Detail" is the part of an image that downsampling loses. The columns of the first table:

- warped PSNR: of the reference's 4×4 blocks, copied to the cells that they match.
- correlation: of the copied detail with the true detail, over all pixels.
- surer half: the same, over the half of each image with the higher confidence.
- overlapped: the same over all pixels, where each pixel is the mean of nine predictions (`overlapped`).
- error taken: the share of the enhanced image's squared error that this detail can remove, with the best weight for
  each tenth of confidence.

The second table shows what the confidence means. For each tenth of confidence it gives the share of the cells and the
weight of the matched detail (against the enhanced image's own detail) with the least squared error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.evaluation.datasets import load_dataset
from def_hub.observation.downsample import Downsample
from def_hub.reference.features import FeatureExtractor, VGG19Features
from def_hub.reference.matching import CELL, EVERY, Correspondence, Views, align, match, match_coarse_to_fine, refine
from def_hub.reference.restoring.transfer import overlapped, spread, warp

OPERATOR = Downsample()
REFINED = "joint, refined: enhanced, reference, 12 px"
DEFAULT = "joint, from coarse to fine (the network's)"
Enhancer = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set, in a layout of `def-hub evaluate`")
    parser.add_argument("--pairs", type=int, default=60, help="number of pairs")
    parser.add_argument("--seed", type=int, default=0, help="decides which pairs are taken")
    parser.add_argument("--model", help="folder of a DEFPipeline; by default the embedded one")
    parser.add_argument("--vgg", help="match features of these VGG19 weights instead of the model's extractor")
    parser.add_argument(
        "--enhance",
        choices=("enhanced", "images"),
        default="enhanced",
        help="the enhanced image: the prior's output (enhanced), or the pipeline's result without references (images)",
    )
    options = parser.parse_args()

    pipe = DEFPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)

    def enhance(y: Tensor) -> Tensor:
        result = pipe(y, generator=torch.Generator().manual_seed(0), output_type="pt")
        return getattr(result, options.enhance)[0][None]

    extractor = VGG19Features.from_safetensors(options.vgg) if options.vgg else pipe.refsr.feature_extractor
    rows: dict[str, Row] = {}
    for truth, reference in pairs(options.data, options.pairs, options.seed):
        measure(rows, truth, reference, enhance, extractor)
    print(f"{options.pairs} pairs, seed {options.seed}, {type(extractor).__name__}")
    print(f"{'':52} warped PSNR  correlation  surer half  overlapped  error taken")
    for name, row in rows.items():
        print(f"{name:52} {row}")
    print("\nconfidence after alignment, share of the cells, how far to trust their detail")
    print(rows[DEFAULT].trust())


def pairs(folder: Path, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` pairs [1,3,H,W], evenly spaced over the sorted names, so that every group is represented."""
    dataset = load_dataset(folder)
    step = len(dataset.items) / count
    first = torch.rand((), generator=torch.Generator().manual_seed(seed)).item() * step
    for number in range(count):
        index = int(first + number * step)
        reference = dataset.load_references(index, "first")[0]
        height, width = (side - side % CELL for side in reference.shape[2:])
        yield dataset.load(index)[0], reference[..., :height, :width]


@torch.no_grad()
def measure(
    rows: dict[str, Row], truth: Tensor, reference: Tensor, enhance: Enhancer, extractor: FeatureExtractor
) -> None:
    """Add one pair to every row of the table."""

    def degraded(image: Tensor) -> tuple[Tensor, Tensor]:
        y = (OPERATOR.forward(image).clamp(0, 1) * 255).round() / 255
        return OPERATOR.upsample(y), enhance(y)

    bicubic, enhanced = degraded(truth)
    key = Views(*degraded(reference), reference)
    features: dict[int, tuple[Tensor, Sequence[Tensor]]] = {}  # by the id of the image, which is kept, too

    def extract(image: Tensor) -> Sequence[Tensor]:
        if id(image) not in features:
            features[id(image)] = image, extractor(image)
        return features[id(image)][1]

    def score(name: str, matches: Correspondence) -> None:
        rows.setdefault(name, Row()).add(truth, enhanced, reference, matches)

    # `match` compares views of the same name. To compare other images, they are passed under those names.
    one_to_sharp = partial(match, extractor=extract, matching_image="enhanced")
    one_to_one = partial(match, extractor=extract, matching_image="bicubic")
    ttsr = one_to_one(Views(bicubic, bicubic), [key])
    joint = match(Views(bicubic, enhanced), [key], extract, "joint")
    score("bicubic × down-up reference (TTSR)", ttsr)
    score("bicubic × reference", one_to_sharp(Views(bicubic, bicubic), [key]))
    score("enhanced × reference (the paper)", one_to_sharp(Views(enhanced, enhanced), [key]))
    score(
        "enhanced × degraded and enhanced reference",
        one_to_one(Views(enhanced, enhanced), [Views(key.enhanced, key.enhanced)]),
    )
    score("joint: sum of three", joint)
    score("truth × reference (oracle)", one_to_sharp(Views(truth, truth), [key]))

    by = partial(refine, query=enhanced, patch=12)
    score(REFINED, by(joint, references=[reference]))
    score("  against the degraded and enhanced reference", by(joint, references=[key.enhanced]))
    score("  the same, 16 px", by(joint, references=[key.enhanced], patch=16))
    score("  20 px", by(joint, references=[reference], patch=20))
    score("  8 px", by(joint, references=[reference], patch=8))
    score("  truth instead of the enhanced image (oracle)", by(joint, query=truth, references=[reference]))
    score("TTSR's index, refined: enhanced, reference, 12 px", by(ttsr, references=[reference]))
    score("TTSR's index, refined: bicubic, down-up reference", by(ttsr, query=bicubic, references=[key.bicubic]))

    refined = by(joint, references=[key.enhanced], patch=16)
    sparse = match(Views(bicubic, enhanced), [key], extract, "joint", every=EVERY)
    from_sparse = by(sparse, references=[key.enhanced], patch=16)
    score("joint, refined, aligned without neighbours", align(refined, enhanced, [key.enhanced], rounds=0))
    score("joint, refined, aligned", align(refined, enhanced, [key.enhanced]))
    score("  against the reference itself", align(refined, enhanced, [reference]))
    score("joint, one cell in 16 searched, refined, aligned", align(from_sparse, enhanced, [key.enhanced]))
    score("  not refined before", align(sparse, enhanced, [key.enhanced]))
    image = Views(bicubic, enhanced)
    score(DEFAULT, match_coarse_to_fine(image, [key], extract, "joint"))
    score("  only small sizes searched", match_coarse_to_fine(image, [key], extract, "joint", pairs=2**22))
    score("  enhanced × reference instead of joint", match_coarse_to_fine(image, [key], extract, "enhanced"))
    oracle = Views(bicubic, truth), [Views(key.bicubic, reference, reference)]
    score("  truth and reference as they are (oracle)", match_coarse_to_fine(*oracle, extract, "joint"))


class Row:
    """One line of the table: sums over pairs."""

    def __init__(self) -> None:
        self.psnr: list[float] = []
        self.moments = torch.zeros(3, 6, dtype=torch.float64)  # for all pixels, the surer half, and overlapped
        self.cells = torch.zeros(10, 3, dtype=torch.float64)  # by tenth of confidence: count, gain × true gain, gain²
        self.error = 0.0  # squared error of the enhanced image's own detail

    def add(self, truth: Tensor, enhanced: Tensor, reference: Tensor, matches: Correspondence) -> None:
        """Add one pair of images, each `[1, 3, H, W]`, to the sums."""
        copied = warp([reference], matches, stride=1)
        self.psnr.append(float(-10 * (copied - truth).square().mean().log10()))
        blocks, true = warp([detail(reference)], matches, stride=1).double(), detail(truth).double()
        smooth = detail(overlapped([reference], matches)).double()
        sure = spread(matches.confidence >= matches.confidence.median(), 1).expand_as(true)
        for moments, a, b in zip(self.moments, (blocks, blocks[sure], smooth), (true, true[sure], true), strict=True):
            moments += torch.stack([torch.ones_like(a).sum(), *(x.sum() for x in (a, b, a * a, b * b, a * b))])

        level = (matches.confidence.flatten() * 10).long().clamp_max(9)
        own = detail(enhanced).double()
        gain, wanted = smooth - own, true - own
        self.error += float(wanted.square().mean(1).sum())
        for column, product in enumerate((torch.ones_like(gain), gain * wanted, gain * gain)):
            per_cell = F.avg_pool2d(product.mean(1, keepdim=True), 4).flatten()
            self.cells[:, column].index_add_(0, level, per_cell)

    def __str__(self) -> str:
        correlations = "".join(f"{value:12.3f}" for value in self.correlations())
        return f"{self.mean_psnr():11.2f}{correlations}{self.taken():10.1f} %"

    def mean_psnr(self) -> float:
        """Mean PSNR of the copied blocks, in dB."""
        return sum(self.psnr) / len(self.psnr)

    def correlations(self) -> list[float]:
        """Correlation of the matched with the true detail: over all pixels, over the surer half, and overlapped."""
        n, a, b, aa, bb, ab = self.moments.unbind(1)
        return ((ab - a * b / n) / ((aa - a * a / n) * (bb - b * b / n)).sqrt()).tolist()

    def taken(self) -> float:
        """Percentage of the enhanced image's squared error that the matched detail can remove, with the best weight for
        each tenth of confidence. It measures the matches and their confidence together."""
        _, product, energy = self.cells.unbind(1)
        best = (product.clamp_min(0).square() / energy.clamp_min(1e-12)).sum()  # sums over pixels of means of cells
        return 100 * CELL**2 * float(best) / self.error

    def trust(self) -> str:
        """For each tenth of confidence a line with the share of the cells and the best weight of their detail."""
        count, product, energy = self.cells.unbind(1)
        worth = product / energy.clamp_min(1e-12)
        shares = count / count.sum()
        return "\n".join(f"{k / 10:.1f} {shares[k]:7.3f} {worth[k]:7.3f}" for k in range(10))


def detail(image: Tensor) -> Tensor:
    """The part of an image that downsampling and bicubic enlargement lose."""
    return image - OPERATOR.upsample(OPERATOR.forward(image))


if __name__ == "__main__":
    main()
