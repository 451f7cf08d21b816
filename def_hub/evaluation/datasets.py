"""Data sets as people have them on their disks: folders, recognised by their layout.

A picture without its reference, a file without its partner and a file that is not a picture are listed in `problems`;
the rest of the data set is measured.
"""

import csv
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args
from zlib import crc32

import numpy as np
from torch import Tensor

from def_hub import images
from def_hub.observation.degradation import Degradation, Degraded, degrade
from def_hub.observation.downsample import SCALE

Layout = Literal["plain", "CUFED5", "WR-SR", "Sun80", "Manga109", "RealSR"]
References = Literal["first", "all", "none", "unrelated", "1", "2", "3", "4", "5"]

JPEG = b"\xff\xd8"
"""How such a file begins."""
SEED = 0
"""Of the pages that are drawn from a volume of Manga109."""
GIVEN = (("lr", "hr"), ("lq", "gt"), ("lq", "hq"), ("low", "high"))
"""Names of two folders, the first of which holds LR pictures that nobody made from the second."""
REFERENCED = (("input", "ref"), ("hr", "ref"), ("groundtruth", "scenematches"))
"""Names, or ends of names, of two folders: pictures and their references."""


@dataclass(frozen=True)
class Item:
    """One picture to enlarge.

    Attributes:
        image: the truth.
        references: the most similar first.
        scene: shared by items that show the same place.
        given: the LR picture, where it is a photograph of its own and not the truth made smaller.
    """

    name: str
    image: Path
    references: tuple[Path, ...] = ()
    scene: str = ""
    given: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """Pictures with references. In the layout "plain" (Urban100) the reference is the LR picture itself.

    `problems` says, one line each, what of the folder cannot be measured. `degradation` makes the LR pictures, except
    those that are given; `called` is the name by which it was asked for.
    """

    name: str
    layout: Layout
    items: tuple[Item, ...]
    problems: tuple[str, ...] = ()
    degradation: Degradation = Degradation()
    called: str = "clean"

    @property
    def title(self) -> str:
        """What tables call it: the name, and the degradation where the LR pictures are not Pillow's bicubic."""
        return self.name if self.degradation == Degradation() else f"{self.name}+{self.called}"

    def degraded(self, name: str) -> "Dataset":
        """The same pictures with other LR pictures, made as `name` says, see `Degradation.parse`. A data set that gives
        its LR pictures stays as it is.
        """
        degradation = Degradation.parse(name)
        return self if self.layout == "RealSR" else replace(self, degradation=degradation, called=name)

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """Truth `[1,3,H,W]` and the pixels of the LR picture `[1,3,H/4,W/4]`. See `load_with_file`."""
        truth, small = self.load_with_file(index)
        return truth, small.picture

    def load_with_file(self, index: int) -> tuple[Tensor, Degraded]:
        """Truth `[1,3,H,W]`, cropped to multiples of 4, and the LR picture with its file where that is a JPEG.

        Raises:
            ValueError: for an unreadable picture, and a given LR picture that is not a quarter of the truth.
        """
        item = self.items[index]
        truth = images.to_tensor(item.image)
        if item.given is not None:
            small = images.to_tensor(item.given)
            if [SCALE * side for side in small.shape[-2:]] != list(truth.shape[-2:]):
                raise ValueError(f"{item.given.name}: {_size(small)} is not a quarter of {_size(truth)}")
            file = item.given.read_bytes()
            return truth, Degraded(small, file if file.startswith(JPEG) else None)
        height, width = (side - side % SCALE for side in truth.shape[-2:])
        truth = truth[..., :height, :width].contiguous()
        # every picture draws from a seed of its own: the order of work must not change the data
        rng = np.random.default_rng(crc32(f"{self.name}/{item.name}".encode()))
        return truth, degrade(truth, self.degradation, SCALE, rng)

    def offers(self, references: References) -> bool:
        """Whether the data set has what the mode asks for, for every item."""
        if references == "none" or self.layout == "plain":
            return references in ("none", "first", "all", "1", "unrelated")
        fewest = min(len(item.references) for item in self.items)
        return fewest >= (int(references) if references.isdecimal() else 1)

    def load_references(self, index: int, references: References) -> list[Tensor]:
        """The references `[1,3,Hr,Wr]` that the mode gives to item `index`.

        Args:
            references: "first" or a number, counted from 1; "all"; "none", for which the list is empty; "unrelated",
                the first reference of another scene.
        """
        if references == "none":
            return []
        owner = self.unrelated(index) if references == "unrelated" else index
        if self.layout == "plain":
            return [self.load(owner)[1]]
        return [images.to_tensor(path) for path in choose(self.items[owner].references, references)]

    def unrelated(self, index: int) -> int:
        """The item half the list away, or the next after it, that shows another scene.

        Raises `ValueError` where every item shows the same scene.
        """
        count = len(self.items)
        for step in range(count):
            other = (index + count // 2 + step) % count
            if self.items[other].scene != self.items[index].scene:
                return other
        raise ValueError(f"data set {self.name}: no item shows another scene than {self.items[index].name}")


def choose(paths: tuple[Path, ...], references: References) -> tuple[Path, ...]:
    """Those of an item's references that a mode names."""
    if references == "all":
        return paths
    number = int(references) if references.isdecimal() else 1
    return paths[number - 1 : number]


def load_dataset(folder: str | Path, layout: Layout | None = None, seed: int = SEED) -> Dataset:
    """Recognise a folder, unless `layout` says what it is.

    - CUFED5: `NNN_0` with its references `NNN_1`, `NNN_2` …, in one folder. A `groups.tsv` beside them (columns `group`
      and `scene`) says which groups show one scene.
    - WR-SR: `input/` and `ref/`, in which `NNN` has the reference `NNN_ref` or one of its own name.
    - Sun80: `…groundtruth/` and `…scenematches/`, in which a folder for each picture holds its references.
    - Manga109: a folder for each volume; one page is drawn with `seed` and another as its reference. A flat folder
      whose name starts with "manga109" is one volume of which every page is enlarged.
    - RealSR: `LR/` and `HR/`, or two folders called alike; both are photographs, nothing is made smaller.
    - plain (Urban100, Set5 …): pictures.

    Files are opened by content, whatever their suffix.

    Raises:
        FileNotFoundError: for a missing folder.
        ValueError: for a folder in which nothing fits a layout.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"data set {folder}: no such folder")
    if layout is not None and layout not in get_args(Layout):
        raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    layout = layout or _recognise(folder)
    problems: list[str] = []
    if layout == "RealSR":
        items = _given(*_expected(folder, GIVEN), problems)
    elif layout in ("WR-SR", "Sun80"):
        items = _referenced(*_expected(folder, REFERENCED), problems)
    elif layout == "CUFED5":
        items = _grouped(folder, problems)
    elif layout == "Manga109":
        items = _volumes(folder, seed, problems)
    else:
        items = [Item(path.stem, path, scene=path.stem) for path in images.list_pictures(folder)]
    if not items:
        found = f" ({'; '.join(problems)})" if problems else ""
        raise ValueError(
            f"data set {folder}: expected pictures, or NNN_0 with NNN_1 …, or the folders input/ and ref/, or LR/ and "
            f"HR/{found}"
        )
    return Dataset(folder.resolve().name, layout, tuple(items), tuple(problems))


def load_pair(lr: str | Path, hr: str | Path) -> Dataset:
    """Two folders of any name: LR pictures that are taken as they are, and what they should become.

    Raises FileNotFoundError for a missing folder and ValueError where no file of one has a partner in the other.
    """
    lr, hr = Path(lr), Path(hr)
    for folder in (lr, hr):
        if not folder.is_dir():
            raise FileNotFoundError(f"data set {folder}: no such folder")
    problems: list[str] = []
    items = _given(lr, hr, problems)
    if not items:
        raise ValueError(f"data set {lr}: no picture has a partner in {hr}")
    return Dataset(lr.resolve().name, "RealSR", tuple(items), tuple(problems))


def match_files(left: Iterable[Path], right: Iterable[Path]) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Files of two folders that belong together, and those without a partner.

    The same name without its suffix; where only one of the two has it, also the same name without the endings that
    mark LR, HR or the factor (`Canon_001_LR4`, `baboon_x4`).
    """
    by_name = {path.stem: path for path in right}
    by_root: dict[str, list[Path]] = {}
    for path in by_name.values():
        by_root.setdefault(_root(path.stem), []).append(path)
    pairs, alone, taken = [], [], set()
    for path in left:
        same_root = by_root.get(_root(path.stem), [])
        partner = by_name.get(path.stem) or (same_root[0] if len(same_root) == 1 else None)
        if partner is None or partner in taken:
            alone.append(path)
        else:
            pairs.append((path, partner))
            taken.add(partner)
    return pairs, alone + [path for path in by_name.values() if path not in taken]


def _recognise(folder: Path) -> Layout:
    if _two_folders(folder, GIVEN):
        return "RealSR"
    if pair := _two_folders(folder, REFERENCED):
        return "Sun80" if any(path.is_dir() for path in pair[1].iterdir()) else "WR-SR"
    pictures = images.list_pictures(folder)
    if any(_group(path) for path in pictures):
        return "CUFED5"
    if folder.resolve().name.lower().startswith("manga109") or (not pictures and _volume_folders(folder)):
        return "Manga109"
    return "plain"


def _expected(folder: Path, names: tuple[tuple[str, str], ...]) -> tuple[Path, Path]:
    """As `_two_folders`. Raises ValueError where they are not there."""
    if pair := _two_folders(folder, names):
        return pair
    expected = " or ".join(f"{first}/ and {second}/" for first, second in names)
    raise ValueError(f"data set {folder}: expected {expected}")


def _two_folders(folder: Path, names: tuple[tuple[str, str], ...]) -> tuple[Path, Path] | None:
    """The two folders inside that are called, or whose names end, as one of the pairs says."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    for pair in names:
        found = [[path for path in inside if re.search(rf"(^|_){name}$", path.name.lower())] for name in pair]
        if all(len(paths) == 1 for paths in found):
            return found[0][0], found[1][0]
    return None


def _given(lr: Path, hr: Path, problems: list[str]) -> list[Item]:
    pairs, alone = match_files(images.list_pictures(lr), images.list_pictures(hr))
    problems += [f"{path.parent.name}/{path.name} has no partner" for path in alone]
    return [Item(small.stem, truth, scene=small.stem, given=small) for small, truth in pairs]


def _referenced(inputs: Path, references: Path, problems: list[str]) -> list[Item]:
    files = {path.stem: path for path in images.list_pictures(references)}
    folders = {Path(path.name).stem: path for path in references.iterdir() if path.is_dir()}
    items = []
    for path in images.list_pictures(inputs):
        single = files.get(f"{path.stem}_ref") or files.get(path.stem)
        several = tuple(images.list_pictures(folders[path.stem])) if path.stem in folders else ()
        own = several or ((single,) if single else ())
        if own:
            items.append(Item(path.stem, path, own, scene=path.stem))
        else:
            problems.append(f"{path.name} has no reference {path.stem}_ref in {references.name}/")
    return items


def _grouped(folder: Path, problems: list[str]) -> list[Item]:
    groups: dict[str, dict[int, Path]] = {}
    for path in images.list_pictures(folder):
        if match := _group(path):
            groups.setdefault(match[1], {})[int(match[2])] = path
        else:
            problems.append(f"{path.name} is no NNN_N")
    scenes = _scenes(folder / "groups.tsv")
    items = []
    for name, members in sorted(groups.items()):
        if 0 not in members or len(members) < 2:
            problems.append(f"group {name} needs {name}_0 and at least {name}_1")
            continue
        references = tuple(members[number] for number in sorted(members) if number > 0)
        items.append(Item(name, members[0], references, scene=scenes.get(name, name)))
    return items


def _volumes(folder: Path, seed: int, problems: list[str]) -> list[Item]:
    draw = random.Random(seed)
    volumes = _volume_folders(folder)
    if not volumes:
        pages = images.list_pictures(folder)
        if len(pages) < 2:
            return []
        # the scene is the page: a mode "unrelated" has nothing else to offer within one volume
        return [Item(p.stem, p, (draw.choice([o for o in pages if o != p]),), scene=p.stem) for p in pages]
    items = []
    for volume in volumes:
        pages = images.list_pictures(volume)
        if len(pages) < 2:
            problems.append(f"volume {volume.name} has {len(pages)} page, two are needed")
            continue
        page, other = draw.sample(pages, 2)
        items.append(Item(f"{volume.name}_{page.stem}", page, (other,), scene=volume.name))
    return items


def _volume_folders(folder: Path) -> list[Path]:
    """The folders with pictures in a folder, or in its `images/` as Manga109 comes."""
    inside = folder / "images" if (folder / "images").is_dir() else folder
    return [path for path in sorted(inside.iterdir()) if path.is_dir() and images.list_pictures(path)]


def _group(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"(\d+)_(\d+)", path.stem)


def _scenes(table: Path) -> dict[str, str]:
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        return {line["group"]: line["scene"] for line in csv.DictReader(file, delimiter="\t")}


def _root(stem: str) -> str:
    return re.sub(r"([_-]?(lr|hr)\d*|[_-]?x\d)+$", "", stem, flags=re.IGNORECASE) or stem


def _size(picture: Tensor) -> str:
    return f"{picture.shape[-1]}×{picture.shape[-2]}"
