"""What is said to the user: results on stdout, complaints on stderr. Saying never decides how a command ends."""

import logging
import os
import sys
from typing import TextIO


class Warnings(logging.Handler):
    """Says on stderr what the package logs as a warning: which frame of an animation was taken, for one."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def shown(path: object) -> str:
    """A path as one line that a terminal does not take for commands: control characters are escaped."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in str(path))


def say(text: str) -> None:
    """One line on stdout."""
    _write(text, sys.stdout)


def warn(text: str) -> None:
    """One line on stderr."""
    _write(f"def-hub: {text}", sys.stderr)


def complain(error: Exception) -> None:
    """One line on stderr about what went wrong."""
    warn(f"error: {shown(' '.join(str(error).split())) or type(error).__name__}")


def is_users(error: Exception) -> bool:
    """Whether an error comes from what was asked for, rather than from a fault of the program."""
    kinds = (ValueError, TypeError, OSError, MemoryError, ModuleNotFoundError, FloatingPointError)
    return isinstance(error, kinds) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _write(text: str, stream: TextIO) -> None:
    """Characters that the stream's encoding lacks are escaped; a reader that has gone, or a full disk, is ignored."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:
        # else the interpreter would try once more when it ends, and end with an error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
