"""Telling a user's mistake from a fault of the program."""

import sys


def is_users(error: Exception) -> bool:
    """Whether an error comes from what was asked for, rather than from a fault of the program."""
    kinds = (ValueError, TypeError, OSError, MemoryError, ModuleNotFoundError, FloatingPointError)
    return isinstance(error, kinds) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def complain(error: Exception) -> None:
    """One line on stderr."""
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"def-hub: error: {text}", file=sys.stderr)
