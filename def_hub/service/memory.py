"""What a run took goes back to the system."""

from __future__ import annotations

import ctypes
import gc
from functools import lru_cache
from typing import Any


def give_back() -> None:
    """Hand memory that nothing uses any more back to the system.

    The C library keeps freed blocks for later: after a run on large pictures, several hundred megabytes. glibc returns
    them when it is asked to; others return them by themselves, or cannot.
    """
    gc.collect()  # tensors that are held by a circle of objects
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    """glibc's function of that name; None where there is none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None
