"""The reference that shows the place comes first."""


import pytest
import torch

from def_hub import DEFPipeline, rank_references
from def_hub.images import to_tensor
from tests.conftest import EXAMPLES

REFERENCES = ("street_ref1.jpg", "street_ref2.jpg", "robot_ref1.jpg", "robot_ref2.jpg", "banana_ref1.jpg")


@pytest.mark.parametrize("name", ["street", "robot", "banana"])
def test_references_of_the_scene_come_before_others(pipe: DEFPipeline, name: str) -> None:
    candidates = [to_tensor(EXAMPLES / reference) for reference in REFERENCES]
    ranked = rank_references(to_tensor(EXAMPLES / f"{name}_lr.png"), candidates, pipe.refsr.feature_extractor)
    own = [i for i, reference in enumerate(REFERENCES) if reference.startswith(name)]
    assert sorted(r.index for r in ranked) == list(range(5))
    assert sorted(r.index for r in ranked[: len(own)]) == own
    assert all(a.score >= b.score for a, b in zip(ranked, ranked[1:], strict=False))


def test_wrong_candidates_are_named(pipe: DEFPipeline) -> None:
    good = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"candidates\[1\]: expected \[1,3,H,W\]"):
        rank_references(good, [good, torch.rand(3, 16, 16)], pipe.refsr.feature_extractor)
