"""Learn the whitening that a library of references compares photos with, of global and of local descriptors.

    python examples/def-mini/library_projection.py DATA/train

The training photographs, every third of `bsds` and every 24th reference of the pairs give one mean and one covariance
of each kind. The first directions, divided by the root of their variance (local descriptors: by its fourth root), are
written to `def_hub/weights/library.safetensors`. To be run again when the embedded extractor changes.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from def_hub import images
from def_hub.reference.library.cells import SIDE, patches
from def_hub.reference.library.embedding import PooledFeatures
from def_hub.reference.library.projection import PROJECTION

REGIONS, CELLS = 512, 48  # directions
SHRINKAGE = 0.1  # of the mean variance of these directions, added to each: the last ones are noise
EVERY = 7  # of the cells of a picture: neighbours are alike


class Moments:
    """Mean and covariance of vectors that are seen one after another."""

    def __init__(self) -> None:
        self.count, self.total, self.products = 0, torch.zeros(1), torch.zeros(1)

    def add(self, vectors: Tensor) -> None:
        vectors = vectors.double()
        self.count, self.total = self.count + len(vectors), self.total + vectors.sum(0)
        self.products = self.products + vectors.T @ vectors

    def whitening(self, directions: int, power: float) -> tuple[Tensor, Tensor]:
        """The mean, and the first directions divided by `power` of their variance."""
        mean = self.total / self.count
        variance, basis = torch.linalg.eigh(self.products / self.count - torch.outer(mean, mean))
        variance, basis = variance.flip(0)[:directions], basis.flip(1)[:, :directions]
        return mean, basis / (variance + SHRINKAGE * variance.mean()) ** power


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="folder with photos/, bsds/ and pairs160/ref/")
    parser.add_argument("-o", "--output", type=Path, default=PROJECTION)
    options = parser.parse_args()
    files = images.list_pictures(options.train / "photos") + images.list_pictures(options.train / "bsds")[::3]
    files += images.list_pictures(options.train / "pairs160" / "ref")[::24]

    embedder, regions, cells = PooledFeatures(whiten=False), Moments(), Moments()
    with torch.no_grad():
        for path in tqdm(files):
            picture = images.read_photo(path, shorter_side=embedder.side).over_white()
            regions.add(embedder.photo(picture))
            cells.add(patches(picture, SIDE)[0][::EVERY])
    stored = {}
    for name, moments, directions, power in (("regions", regions, REGIONS, 0.5), ("cells", cells, CELLS, 0.25)):
        mean, basis = moments.whitening(directions, power)
        stored |= {f"{name}.mean": mean.half(), f"{name}.basis": basis.half().contiguous()}
        print(f"{name}: {directions} directions of {moments.count} vectors of {len(files)} pictures")
    save_file(stored, options.output)


if __name__ == "__main__":
    main()
