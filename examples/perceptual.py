"""Compare presets by perceptual distance, PSNR and grid pattern.

    python examples/perceptual.py DATA/MultiView --vgg VGG19.safetensors [--model FOLDER] [--presets balanced detail]

Each picture is enlarged with its first reference. The distance is `def_hub.evaluation.metrics.feature_distance` on
VGG19's relu1_1, relu2_1 and relu3_1; lower is closer to the truth. The grid is `grid_pattern` of the same module: its
mean and its largest value over the pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm.auto import tqdm

from def_hub import DEFPipeline
from def_hub.evaluation.datasets import load_dataset
from def_hub.evaluation.methods import Bicubic, Pipeline, Restore
from def_hub.evaluation.metrics import Protocol, feature_distance, grid_pattern, psnr
from def_hub.reference.features import VGG19Features


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a data set, in a layout of `def-hub evaluate`")
    parser.add_argument("--vgg", type=Path, required=True, help="safetensors of VGG19 to relu3_1")
    parser.add_argument("--model", help="folder of a DEFPipeline; by default the embedded one")
    parser.add_argument("--presets", nargs="+", default=["balanced", "detail"])
    parser.add_argument("--every", type=int, default=1, help="measure only every N-th picture")
    options = parser.parse_args()

    features = VGG19Features.from_safetensors(options.vgg)
    pipe = DEFPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    dataset = load_dataset(options.dataset)
    indices = range(0, len(dataset.items), options.every)
    methods: list[Restore] = [Bicubic(), *(Pipeline(name, pipe, {"preset": name}) for name in options.presets)]
    print(f"{dataset.name}, {len(indices)} pictures, first reference; PSNR: {Protocol()}; distance: VGG19 relu1_1-3_1")
    print("| preset | PSNR | distance | grid, mean | most |\n|---|---:|---:|---:|---:|")
    for method in methods:
        scores, distances, grids = [], [], []
        for index in tqdm(indices, desc=method.name, disable=None, leave=False):
            truth, small = dataset.load_with_file(index)
            result = method(small, dataset.load_references(index, "first")).image
            scores.append(float(psnr(result, truth)))
            distances.append(float(feature_distance(result, truth, features)))
            grids.append(float(grid_pattern(result, truth)))
        means = (sum(scores) / len(scores), sum(distances) / len(distances), sum(grids) / len(grids))
        print("| {} | {:.2f} | {:.4f} | {:.2f} | {:.2f} |".format(method.name, *means, max(grids)), flush=True)


if __name__ == "__main__":
    main()
