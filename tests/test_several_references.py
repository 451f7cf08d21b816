"""Several references: what each adds, and that their order means nothing."""

from torch import Tensor

from def_hub import DEFPipeline
from def_hub.images import to_tensor

from .helpers.references import enlarged, street
from .test_pipeline import EXAMPLES


def test_the_order_of_references_means_nothing(pipe: DEFPipeline) -> None:
    original = street()
    references = [to_tensor(EXAMPLES / f"street_ref{number}.jpg")[..., :320, :400] for number in (1, 2)]
    unrelated = to_tensor(EXAMPLES / "banana_ref1.jpg")[..., :240, :240]
    one = enlarged(pipe, original, *references, unrelated)
    other = enlarged(pipe, original, unrelated, *reversed(references))
    off = (one.images[0] - other.images[0]).abs()
    assert off.max() < 2 / 255
    for here, there in ((2, 4), (3, 3), (4, 2)):  # the same reference in both
        assert (one.provenance[0][here] - other.provenance[0][there]).abs().mean() < 0.01


def test_references_of_different_parts_add_up(pipe: DEFPipeline) -> None:
    """Two halves that overlap a little: both together give more than either alone."""
    original = street()

    def error(*references: Tensor) -> float:
        return float((enlarged(pipe, original, *references).images[0] - original[0]).square().mean())

    left, right = original[..., :96], original[..., 64:]
    alone = min(error(left), error(right))
    assert error(left, right) < 0.5 * alone
