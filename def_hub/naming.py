"""Names for results, one for each of several files, also where a file system takes two names for the same."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def distinct(paths: Sequence[Path]) -> list[Path]:
    """Names of the results without suffix: the stem, or the whole name where the stem is not the only one, numbered
    where a file system might take even these for the same.
    """
    names = [path.with_suffix("") for path in paths]
    for _ in range(2):  # a whole name may be another one's stem
        count = Counter(map(_key, names))
        names = [name if count[_key(name)] == 1 else path for name, path in zip(names, paths, strict=True)]
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        seen[_key(name)] += 1
        if (times := seen[_key(name)]) > 1:
            names[number] = name.with_name(f"{name.name}-{times}")
    return names


def _key(path: Path) -> str:
    """One name for all that some file system takes for the same: capitals, composed and decomposed letters."""
    return unicodedata.normalize("NFC", str(path)).casefold()
