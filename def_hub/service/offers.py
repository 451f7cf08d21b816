"""What a library of this server offers a visitor: its photos as if he had uploaded them."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from def_hub import images
from def_hub.reference.library import Choice, Found
from def_hub.service.uploads import Upload, check_reference

MOST = 3  # photos for one visitor's photograph
NEXT = 3  # photos of which is said why they were not chosen


def offer(choice: Choice, root: Path) -> tuple[list[Upload], list[str]]:
    """The chosen photos, copied into the visitor's folder `root`: they may change, or go, while he works.

    Returns them, and what there is to say: about those that cannot be taken, and why the next ones were not chosen.
    """
    uploads, said = [], []
    for found in choice.chosen:
        try:
            uploads.append(check_reference(str(_copied(found, root / "library"))))
        except (ValueError, OSError) as error:
            said.append(str(error))
    if not choice.chosen:
        best = f" The most similar one {choice.others[0].why}." if choice.others else ""
        said.append(f"The library has no photo that would help.{best}")
    elif choice.others:
        reasons = [f"{_name(found)} {found.why}" for found in choice.others[:NEXT]]
        said.append(f"The next photos were not chosen: {'; '.join(reasons)}.")
    return uploads, said


def _name(found: Found) -> str:
    """For visitors, who need not know the server's folders."""
    name = Path(found.entry.path).name
    return name if found.entry.frame is None else f"{name}-{found.entry.frame}.png"


def _copied(found: Found, folder: Path) -> Path:
    """A copy, in a folder of its own: two photos may have one name."""
    path = folder / found.entry.digest[:16] / _name(found)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = found.picture()
        if isinstance(picture, Tensor):
            images.save_image(picture, path)
        else:
            shutil.copyfile(found.path, path)
    return path
