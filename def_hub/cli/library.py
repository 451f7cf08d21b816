"""`def-hub library build | add | remove | update | info`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from def_hub.cli.console import say, warn
from def_hub.cli.options import whole_number

if TYPE_CHECKING:
    from def_hub.reference.library import Changes, ReferenceLibrary


def add_actions(actions: Any) -> None:
    """The parsers of the actions."""
    photos = {"type": Path, "nargs": "+", "metavar": "DIR"}
    build = actions.add_parser("build", help="make a library of folders; continues where an earlier run was stopped")
    build.add_argument("folders", **photos, help="folders of photos and videos, with the folders in them")
    build.add_argument("-o", "--output", type=Path, required=True, metavar="PHOTOS.def", help="folder of the library")
    add = actions.add_parser("add", help="take in more photos or folders")
    add.add_argument("library", type=Path, metavar="PHOTOS.def")
    add.add_argument("folders", **photos, help="in the folder that is the library's root")
    remove = actions.add_parser("remove", help="take photos or folders out; the files stay")
    remove.add_argument("library", type=Path, metavar="PHOTOS.def")
    remove.add_argument("paths", **(photos | {"metavar": "PATH"}), help="as `info --missing` and results name them")
    update = actions.add_parser("update", help="take in what is new, read again what changed, drop what is gone")
    info = actions.add_parser("info", help="say what a library holds, and what of it is missing or has changed")
    for command in (update, info):
        command.add_argument("library", type=Path, metavar="PHOTOS.def")
        command.add_argument("--root", type=Path, metavar="DIR", help="where the photos are now, if they were moved")
    for command in (build, add, update):
        command.add_argument(
            "--every", type=whole_number(1), default=30, metavar="N", help="sharpest of N frames of a video (30)"
        )
    for command in (build, add, update, info):
        command.add_argument(
            "--backbone",
            nargs="?",
            const="",
            metavar="NAME",
            help="compare photos by this vision model of transformers; without NAME by facebook/dinov2-small",
        )
    for name, command in {"build": build, "add": add, "remove": remove, "update": update, "info": info}.items():
        command.set_defaults(run=f"def_hub.cli.library:{name}")


def build(options: argparse.Namespace) -> int:
    """Make a library, or continue. Files that cannot be read are named, and make the status 1."""
    from def_hub.reference.library import ReferenceLibrary

    library, changes = ReferenceLibrary.build(
        options.folders, options.output, backbone=_backbone(options), every=options.every
    )
    return _tell(library, changes)


def add(options: argparse.Namespace) -> int:
    """Take in more."""
    library = _opened(options)
    return _tell(library, library.add(options.folders, options.every))


def remove(options: argparse.Namespace) -> int:
    """Take out."""
    library = _opened(options)
    return _tell(library, library.remove(options.paths))


def update(options: argparse.Namespace) -> int:
    """Bring up to date."""
    library = _opened(options)
    return _tell(library, library.update(options.every))


def info(options: argparse.Namespace) -> int:
    """Print what a library holds; status 1 where photos are missing or have changed."""
    found = _opened(options).info()
    say(f"{found.path}: {_content(found)}")
    say(f"root: {found.root}")
    say(f"embedding: {found.embedder}")
    held = found.photos + found.frames
    say(f"size: {found.bytes / 1e6:.1f} MB, {found.bytes // max(held, 1)} bytes for each picture")
    for name in found.missing:
        warn(f"{name}: is missing")
    for name in found.changed:
        warn(f"{name}: has changed")
    return int(bool(found.missing or found.changed))


def _opened(options: argparse.Namespace) -> ReferenceLibrary:
    from def_hub.reference.library import ReferenceLibrary

    return ReferenceLibrary(options.library, getattr(options, "root", None), _backbone(options))


def _backbone(options: argparse.Namespace) -> str | None:
    from def_hub.reference.library.embedding import DINO

    name: str | None = getattr(options, "backbone", None)
    return DINO if name == "" else name


def _tell(library: ReferenceLibrary, changes: Changes) -> int:
    from def_hub.sharing import Processes

    processes = Processes()
    if processes.first:
        say(f"{library.path}: {_content(library.info())}; {changes}")
        for problem in changes.problems:
            warn(problem)
    processes.end()
    return int(bool(changes.problems))


def _content(info: Any) -> str:
    photos = f"{info.photos} photo{'' if info.photos == 1 else 's'}"
    return photos if not info.videos else f"{photos}, {info.frames} frames of {info.videos} videos"
