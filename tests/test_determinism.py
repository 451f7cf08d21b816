"""The same call gives the same bytes: in two processes, in a batch and alone, before and after other calls, in threads.

With another number of threads, sums over channels are added up in another order: there the last bits may differ, by far
less than one step of 8 bits before rounding. `TOLERANCE` is what is promised.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from def_hub import DEFPipeline, images

from .conftest import ROOT
from .helpers.pictures import generator, picture, small

pytestmark = pytest.mark.usefixtures("each_precision")
TOLERANCE = {"float32": 1e-4, "bfloat16": 8 / 255}
"""Largest difference, in [0, 1], between results with different numbers of threads. bfloat16 has 8 bits: a last bit
that differs early in a network can move a value by several steps of the picture."""
OPTIONS = {"num_inference_steps": 2, "output_type": "np"}
SCRIPT = """
import sys, numpy, torch
torch.set_num_threads(int(sys.argv[4]))
from def_hub import DEFPipeline
pipe = DEFPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
options = dict(num_inference_steps=2, output_type="np", precision=sys.argv[5])
result = pipe(sys.argv[2], sys.argv[3], generator=torch.Generator().manual_seed(0), **options)
numpy.save(sys.argv[6], result.images[0])
"""


def call(pipe: DEFPipeline, image: torch.Tensor, *references: torch.Tensor) -> np.ndarray:
    return pipe(image, list(references) or None, generator=generator(), **OPTIONS).images[0]


def in_a_process(model: Path, folder: Path, threads: int, precision: str) -> np.ndarray:
    words = [sys.executable, "-c", SCRIPT, model, folder / "a.png", folder / "b.png", threads, precision]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    output = folder / f"{threads}-{len(list(folder.iterdir()))}.npy"
    subprocess.run([*map(str, words), str(output)], env=environment, check=True, capture_output=True)
    return np.load(output)


@pytest.mark.slow
def test_processes_and_threads(tiny_model: Path, tmp_path: Path, each_precision: str) -> None:
    images.save_image(small(11, 13), tmp_path / "a.png")
    images.save_image(picture(44, 52), tmp_path / "b.png")
    first, again, other = (in_a_process(tiny_model, tmp_path, threads, each_precision) for threads in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() <= TOLERANCE[each_precision]


def test_before_and_after_other_calls(tiny_pipe: DEFPipeline) -> None:
    """Neither other sizes, nor other references, nor a call that failed leave a trace."""
    before = call(tiny_pipe, small(11, 13), picture(44, 52))
    call(tiny_pipe, small(16, 9))
    call(tiny_pipe, small(11, 13), picture(60, 44))
    with pytest.raises(ValueError, match="at least 8×8"):
        call(tiny_pipe, torch.zeros(3, 4, 4))
    with pytest.raises(RuntimeError, match="stop"):
        tiny_pipe(small(11, 13), callback_on_step_end=_stop, num_inference_steps=2)
    torch.rand(7)
    assert np.array_equal(call(tiny_pipe, small(11, 13), picture(44, 52)), before)


def _stop(*_: object) -> None:
    raise RuntimeError("stop")


def test_in_a_batch_and_alone(tiny_pipe: DEFPipeline) -> None:
    """Images of a list are computed one after the other, each with its own generator."""
    given = [small(11, 13), small(9, 16), small(11, 13).flip(-1)]
    alone = [call(tiny_pipe, image, picture(44, 52)) for image in given]
    generators = [generator() for _ in given]
    batch = tiny_pipe(given, picture(44, 52), generator=generators, **OPTIONS).images
    assert all(np.array_equal(a, b) for a, b in zip(alone, batch, strict=True))


def test_threads_that_call_one_pipeline(tiny_pipe: DEFPipeline) -> None:
    """At the same time, with other pictures and references: each gets what it gets alone."""
    given = [(small(9 + n, 11), picture(36 + 4 * n, 40)) for n in range(4)]
    alone = [call(tiny_pipe, *pair) for pair in given]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: call(tiny_pipe, *pair), given))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_without_a_generator_results_follow_the_global_seed_also_in_threads(tiny_pipe: DEFPipeline) -> None:
    """The caller's state advances and is not reseeded."""
    torch.manual_seed(5)
    first, next_ = torch.rand(1), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), first)
    call(tiny_pipe, small(9, 9))  # has its own generator
    assert torch.equal(torch.rand(1), next_)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(tiny_pipe(small(9, 9), eta=1.0, **OPTIONS).images[0])
    assert np.array_equal(*results)
