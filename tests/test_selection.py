"""Ranking: references that show the same scene come first."""

import random
from pathlib import Path

import pytest
import torch

from def_hub import DEFPipeline, rank_references
from def_hub.evaluation.datasets import load_dataset
from def_hub.images import shrink, to_tensor
from def_hub.reference.matching.pose import CERTAIN
from def_hub.reference.selection import UNLIKELY, Ranker
from tests.conftest import EXAMPLES

REFERENCES = ("street_ref1.jpg", "street_ref2.jpg", "robot_ref1.jpg", "robot_ref2.jpg", "banana_ref1.jpg")


@pytest.mark.parametrize(("name", "useful"), [("street", 2), ("robot", 1), ("banana", 1)])
def test_references_of_the_scene_come_before_others(pipe: DEFPipeline, name: str, useful: int) -> None:
    """The second robot shows its other side: it adds less than 0.01 dB, and may stand anywhere."""
    candidates = [to_tensor(EXAMPLES / reference) for reference in REFERENCES]
    ranked = rank_references(to_tensor(EXAMPLES / f"{name}_lr.png"), candidates, pipe.refsr.feature_extractor)
    own = [i for i, reference in enumerate(REFERENCES) if reference.startswith(name)][:useful]
    assert sorted(r.index for r in ranked) == list(range(5))
    assert sorted(r.index for r in ranked[: len(own)]) == own
    assert all(a.score >= b.score for a, b in zip(ranked, ranked[1:], strict=False))


def test_wrong_candidates_are_named(pipe: DEFPipeline) -> None:
    good = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"candidates\[1\]: expected a tensor \[3,H,W\]"):
        rank_references(good, [good, torch.rand(16, 16)], pipe.refsr.feature_extractor)


def test_true_references_come_before_unrelated_ones(pipe: DEFPipeline, shared_data: Path) -> None:
    """On every third photograph of the development set: each reference against three pictures of other scenes."""
    views = load_dataset(shared_data / "eval-dev" / "MultiView")
    items = views.items
    rng = random.Random(0)
    wins, pairs = 0, 0
    for number in range(0, len(items), 3):
        item, (_, small) = items[number], views.load(number)
        strange = [other.references[0] for other in items if other.scene != item.scene]
        candidates = [*item.references, *rng.sample(strange, 3)]
        ranked = rank_references(small, candidates, pipe.refsr.feature_extractor)
        places = {r.index: place for place, r in enumerate(ranked)}
        true = len(item.references)
        wins += sum(places[i] < places[j] for i in range(true) for j in range(true, len(candidates)))
        pairs += true * 3
    assert wins >= 0.95 * pairs


def test_files_and_the_embedded_model_are_enough(pipe: DEFPipeline) -> None:
    """Paths without an extractor give the same as tensors with the embedded model's extractor."""
    photo, references = EXAMPLES / "street_lr.png", [EXAMPLES / name for name in REFERENCES[1:3]]
    tensors = [to_tensor(path) for path in references]
    assert rank_references(photo, references) == rank_references(
        to_tensor(photo), tensors, pipe.refsr.feature_extractor
    )


def test_a_picture_covers_itself_wholly_and_its_half_in_part(pipe: DEFPipeline) -> None:
    sharp = to_tensor(EXAMPLES / "street_hr.webp")
    whole, half = rank_references(shrink(sharp), [sharp, sharp[..., :256]], pipe.refsr.feature_extractor)
    assert (whole.index, half.index) == (0, 1) and whole.score > 0.9 and whole.verdict == "likely"
    assert 0.35 < half.score < 0.7


def test_what_is_looked_for_upright_is_neither_turned_nor_mirrored(pipe: DEFPipeline) -> None:
    """An upright candidate scores the same; one that lies on its side is not found."""
    sharp, extractor = to_tensor(EXAMPLES / "street_hr.webp"), pipe.refsr.feature_extractor
    upright, every = (Ranker(shrink(sharp), extractor, upright=only) for only in (True, False))
    assert abs(upright.score(sharp) - every.score(sharp)) < 0.01
    turned = sharp.rot90(1, (2, 3))
    assert every.score(turned) > 0.9 and upright.score(turned) < UNLIKELY


def test_a_glance_tells_a_reference_from_other_scenes(pipe: DEFPipeline) -> None:
    ranker = Ranker(to_tensor(EXAMPLES / "street_lr.png"), pipe.refsr.feature_extractor, upright=True)
    street, *others = (ranker.glance(EXAMPLES / name) for name in REFERENCES if name != "street_ref2.jpg")
    assert street > CERTAIN and max(others) < CERTAIN
