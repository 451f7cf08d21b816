"""`def-hub compare`: is A better than B, and how sure is that?"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_arguments(add: Callable[..., Any]) -> None:
    """The options of the command."""
    where = "folder that evaluate --output wrote, or FOLDER:METHOD[:REFERENCES] where it holds several"
    add("a", metavar="A", help=where)
    add("b", metavar="B", help="likewise")
    add("--metric", default="psnr", metavar="NAME", help="psnr, ssim, lpips, consistency, seconds … (default: psnr)")
    add("--confidence", type=float, default=0.95, metavar="SHARE", help="of the interval (default: 0.95)")


def compare(options: argparse.Namespace) -> int:
    """Print the differences, picture by picture paired. Raises ValueError for two that were measured differently."""
    from def_hub.evaluation.compare import compare as differences
    from def_hub.evaluation.compare import markdown

    (a, protocol), (b, other) = _measured(options.a), _measured(options.b)
    if protocol != other:
        raise ValueError(f"{options.a} was measured as {protocol}; {options.b} as {other}: not comparable")
    print(markdown(differences(a, b, options.metric, options.confidence), options.a, options.b, protocol))
    return 0


def _measured(name: str) -> tuple[list[Any], str]:
    """The rows that `FOLDER:METHOD:REFERENCES` names, and their protocol in words.

    A method may hold colons itself, as `def:fast` does.
    """
    from def_hub.evaluation.rows import read_rows

    if Path(name).is_dir():
        folder, selection = name, ""
    else:
        folder, _, selection = name.partition(":")
    path = Path(folder) / "rows.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{name}: {path} is not there; give a folder that evaluate --output wrote")
    rows = list(read_rows(path))
    kinds = list(dict.fromkeys((row.method, row.references) for row in rows))
    chosen = [k for k in kinds if selection in (k[0], f"{k[0]}:{k[1]}")] if selection else kinds
    if not selection and len(chosen) > 1:
        chosen = [kind for kind in kinds if kind[0] != "bicubic"]
    if len(chosen) != 1:
        known = ", ".join(f"{folder}:{method}:{references}" for method, references in kinds)
        raise ValueError(f"{name}: expected one of {known}")
    settings = path.with_name("settings.json")
    protocol = json.loads(settings.read_text())["protocol"] if settings.is_file() else "an unknown protocol"
    return [row for row in rows if (row.method, row.references) == chosen[0]], protocol
