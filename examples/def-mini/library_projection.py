"""Learn the projection that a library of references compares photos with: mean and whitening of pooled features.

    python examples/def-mini/library_projection.py DATA/train

Statistics of the training photographs, of every third of `bsds` and of every 24th reference of the pairs go into one
mean and one covariance; its first directions, divided by the root of their variance, become
`def_hub/weights/library.safetensors`. To be run again when the embedded extractor changes.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from def_hub import images
from def_hub.reference.library.embedding import PROJECTION, PooledFeatures

DIRECTIONS = 512
SHRINKAGE = 0.1  # of the mean variance of these directions, added to each: the last ones are noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="folder with photos/, bsds/ and pairs160/ref/")
    parser.add_argument("-o", "--output", type=Path, default=PROJECTION)
    options = parser.parse_args()
    files = images.list_pictures(options.train / "photos") + images.list_pictures(options.train / "bsds")[::3]
    files += images.list_pictures(options.train / "pairs160" / "ref")[::24]

    embedder = PooledFeatures(whiten=False)
    count, total, products = 0, torch.zeros(1), torch.zeros(1)
    for path in tqdm(files):
        vectors = embedder.photo(images.read_photo(path, shorter_side=embedder.side).over_white()).double()
        count, total, products = count + len(vectors), total + vectors.sum(0), products + vectors.T @ vectors
    mean = total / count
    variance, directions = torch.linalg.eigh(products / count - torch.outer(mean, mean))
    variance, directions = variance.flip(0)[:DIRECTIONS], directions.flip(1)[:, :DIRECTIONS]
    basis = directions / (variance + SHRINKAGE * variance.mean()).sqrt()
    save_file({"mean": mean.half(), "basis": basis.half().contiguous()}, options.output)
    print(f"{options.output}: {count} vectors of {len(files)} pictures")


if __name__ == "__main__":
    main()
