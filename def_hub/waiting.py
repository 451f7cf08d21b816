"""How long OpenMP's threads wait by spinning. It counts if it is set before torch is imported."""

from __future__ import annotations

import os

SPINS = 2_000
"""Looks at whether there is work, before a thread sleeps: about a tenth of a millisecond. The pauses between the loops
of a network are shorter, so alone a call is not slowed by waking threads. A thread of a busy machine, however, gives up
its core soon: libgomp's own 300,000 looks take it for whole time slices. `examples/benchmarks/company.py` measures
both."""


def share_cores() -> None:
    """Let waiting threads sleep soon, unless the user has said how they wait. No result depends on it."""
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}.isdisjoint(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)  # GNU's OpenMP, in the wheels of torch for Linux
        os.environ["KMP_BLOCKTIME"] = "1"  # Intel's and LLVM's, in milliseconds
