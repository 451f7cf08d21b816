"""Several references: what each adds, and that their order means nothing."""

import torch
import torch.nn.functional as F
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


def test_what_is_said_of_references_holds_through_turn_mirror_and_scale(pipe: DEFPipeline) -> None:
    """One shows the left part and lies on its side, one shows the right part mirrored and twice as large: shares and
    matches name the one that shows the place, and the place in it."""
    original = street()
    left, right = original[..., :96], original[..., 64:]
    lying, mirrored = left.rot90(1, (2, 3)), F.interpolate(right, scale_factor=2, mode="bicubic").clamp(0, 1).flip(3)
    output = enlarged(pipe, original, lying, mirrored)
    shares, (number, x, y), sure = output.provenance[0], output.correspondence[0], output.confidence[0] > 0.5
    row, column = torch.meshgrid(torch.arange(32), torch.arange(40), indexing="ij")
    expected = (  # rot90 takes (x, y) of 96 columns to (y, 95 - x); mirroring takes x of 192 columns to 191 - x
        torch.stack((4 * row + 1.5, 95 - (4 * column + 1.5))),
        torch.stack((191 - (2 * (4 * column + 2 - 64) - 0.5), 2 * (4 * row + 2) - 0.5)),
    )
    for index, part, scale in ((0, column < 16, 1), (1, column >= 24, 2)):
        here = part & sure
        assert here.sum() > 0.6 * part.sum()
        assert (number[here] == index).all()
        off = (torch.stack((x, y)) - expected[index]).norm(dim=0)[here]
        assert off.median() < 0.5 * scale
        pixels = part.repeat_interleave(4, 0).repeat_interleave(4, 1)
        assert shares[2 + index][pixels].mean() > 5 * shares[3 - index][pixels].mean()
