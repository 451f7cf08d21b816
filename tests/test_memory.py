"""What a run on large pictures leaves behind."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from def_hub import DEFPipeline
from def_hub.observation.downsample import Downsample
from def_hub.service.call import RunOptions
from def_hub.service.memory import _malloc_trim
from def_hub.service.runner import Runner
from def_hub.service.session import Session
from def_hub.service.uploads import check_photo, check_references
from tests.conftest import EXAMPLES, ROOT


def test_of_large_references_nothing_is_kept(tiny_pipe: DEFPipeline, tmp_path: Path) -> None:
    """Not their pixels, and not what was computed from them: the result is files, and two small tensors."""
    Image.open(EXAMPLES / "street_lr.png").convert("RGB").crop((0, 0, 32, 24)).save(tmp_path / "small.png")
    Image.open(EXAMPLES / "street_ref1.jpg").crop((0, 0, 400, 300)).save(tmp_path / "large.jpg")
    session, runner = Session(), Runner(tiny_pipe)
    session.set_photo(check_photo(tmp_path / "small.png"))
    session.set_uploads(check_references([str(tmp_path / "large.jpg")]))
    before = large_tensors()
    for _ in range(2):
        for _ in runner.run(session, RunOptions.of("fast")):
            pass  # and nothing is held here
    assert session.result is not None and session.result.picture("matches") is not None
    assert not large_tensors() - before


def large_tensors(least: int = 128 * 96) -> set[int]:
    """Addresses of the tensors with as many values as a plane of the result, or more."""
    gc.collect()
    return {o.data_ptr() for o in gc.get_objects() if issubclass(type(o), torch.Tensor) and o.numel() >= least}


def test_the_matrices_of_large_pictures_are_kept_without_their_zeros() -> None:
    matrix = Downsample()._matrix("pinv", 1000, Downsample().factors[0], torch.empty(0))
    kept = sum(values.untyped_storage().nbytes() for _, _, values in matrix.blocks)
    assert kept < 0.1 * 4 * 1000 * 4000


@pytest.mark.skipif(_malloc_trim() is None, reason="the C library has no malloc_trim")
def test_freed_memory_goes_back_to_the_system() -> None:
    """Blocks that are too small to be mapped one by one stay in the heap when the last one of them is in use."""
    code = """
import torch
from def_hub.service.memory import give_back

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1000

blocks = [torch.ones(20_000) for _ in range(2500)]
last = blocks.pop()
del blocks
before = resident()
give_back()
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 100  # of 200 MB
