"""Put what training on a lent GPU needs into one small folder: `python examples/gpu/pack.py DATA TEACHER OUT`.

DATA has `photos` and `pairs160`, TEACHER is HiT-SRF as safetensors. Photographs are stored again as WebP and get two
thirds of the space, evenly chosen pairs the rest; `start` holds the weights that training starts from.
"""

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

EMBEDDED = Path(__file__).resolve().parents[2] / "def_hub/weights/def-mini"
QUALITY = 92


def pack_photos(source: Path, target: Path, limit: float) -> float:
    """Store photographs until `limit` bytes are used; returns how many were."""
    target.mkdir(parents=True)
    used = 0.0
    for path in sorted(source.iterdir()):
        packed = target / f"{path.stem}.webp"
        Image.open(path).convert("RGB").save(packed, quality=QUALITY)
        used += packed.stat().st_size
        if used > limit:
            packed.unlink()
            return used
    return used


def pack_pairs(source: Path, target: Path, limit: float) -> None:
    """Copy as many evenly chosen pairs as `limit` bytes hold, and the table of their groups."""
    names = sorted(p.name for p in (source / "input").iterdir())
    size = sum(p.stat().st_size for p in _both(source, names))
    for folder in ("input", "ref"):
        (target / folder).mkdir(parents=True)
    step = max(size / max(limit, 1.0), 1.0)
    chosen = [names[int(i * step)] for i in range(int(len(names) / step))]
    for path in _both(source, chosen):
        shutil.copy(path, target / path.parent.name)
    if (source / "pairs.tsv").exists():
        shutil.copy(source / "pairs.tsv", target)


def pack_start(prior: Path, trunk: Path, target: Path) -> None:
    """The weights that training starts from."""
    for folder, parts in ((prior, ("unet", "scheduler")), (trunk, ("refsr",))):
        for part in parts:
            shutil.copytree(folder / part, target / part)


def _both(source: Path, names: Iterable[str]) -> list[Path]:
    return [source / folder / name for name in names for folder in ("input", "ref")]


def main() -> None:
    """Pack, and say how large it became."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=float, default=26, help="for photographs and pairs (default: 26)")
    parser.add_argument("--prior", type=Path, default=EMBEDDED, help="folder to start the prior from")
    parser.add_argument("--trunk", type=Path, default=EMBEDDED, help="folder to start Ref-SR from")
    options = parser.parse_args()
    limit = options.megabytes * 1e6
    used = pack_photos(options.data / "photos", options.out / "photos", limit * 2 / 3)
    pack_pairs(options.data / "pairs160", options.out / "pairs160", limit - used)
    pack_start(options.prior, options.trunk, options.out / "start")
    shutil.copy(options.teacher, options.out / "teacher.safetensors")
    files = [p for p in options.out.rglob("*") if p.is_file()]
    print(f"{len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.1f} MB in {options.out}")


if __name__ == "__main__":
    main()
