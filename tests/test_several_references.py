"""Several references: what each adds, and that their order means nothing."""

import pytest
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.images import to_tensor
from def_hub.observation.downsample import Downsample
from def_hub.pipeline import DEFOutput

from .helpers.pictures import generator
from .test_pipeline import EXAMPLES


@pytest.fixture(scope="module")
def street() -> Tensor:
    return to_tensor(EXAMPLES / "street_hr.webp")[..., 96:224, 128:288]


def enlarged(pipe: DEFPipeline, street: Tensor, *references: Tensor) -> DEFOutput:
    y = Downsample().forward(street).clamp(0, 1)
    options = {"preset": "fast", "precision": "float32", "generator": generator(), "output_type": "pt"}
    return pipe(y, list(references), **options)


def test_the_order_of_references_means_nothing(pipe: DEFPipeline, street: Tensor) -> None:
    references = [to_tensor(EXAMPLES / f"street_ref{number}.jpg")[..., :320, :400] for number in (1, 2)]
    unrelated = to_tensor(EXAMPLES / "banana_ref1.jpg")[..., :240, :240]
    one = enlarged(pipe, street, *references, unrelated)
    other = enlarged(pipe, street, unrelated, *reversed(references))
    off = (one.images[0] - other.images[0]).abs()
    assert off.max() < 2 / 255
    for here, there in ((2, 4), (3, 3), (4, 2)):  # the same reference in both
        assert (one.provenance[0][here] - other.provenance[0][there]).abs().mean() < 0.01


def test_references_of_different_parts_add_up(pipe: DEFPipeline, street: Tensor) -> None:
    """Two halves that overlap a little: both together give more than either alone."""

    def error(*references: Tensor) -> float:
        return float((enlarged(pipe, street, *references).images[0] - street[0]).square().mean())

    left, right = street[..., :96], street[..., 64:]
    alone = min(error(left), error(right))
    assert error(left, right) < 0.5 * alone
