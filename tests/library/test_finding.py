"""What a library finds, and what it chooses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from def_hub import ReferenceLibrary, images
from def_hub.reference.library import cells, embedding, nearest
from def_hub.reference.library.descriptors import Descriptors
from def_hub.reference.library.query import cleaned
from def_hub.reference.selection import Ranker, embedded_network
from tests.helpers.library import scene, scores, thumbnail


def described(numbers: range) -> Descriptors:
    """The local descriptors of scenes."""
    made = [cells.cells_of(scene(number)) for number in numbers]
    return Descriptors(
        torch.zeros(len(made), 1, 1).half(),
        torch.stack([kept for kept, _ in made]),
        torch.tensor([grid for _, grid in made], dtype=torch.int16),
    )


def noise(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_a_small_part_of_a_photo_finds_the_photo(here: Path) -> None:
    library = ReferenceLibrary("photos.def")
    for number in range(10):
        found = library.search(thumbnail(number))
        assert found[0].path.name == f"{number:03}.png" and len(found) == 10
        assert found[0].similarity > found[1].similarity + 0.1


def test_the_vectors_do_not_depend_on_the_precision_of_the_caller(here: Path) -> None:
    expected = load_file(next(Path("photos.def").glob("vectors-*")))
    torch.set_default_dtype(torch.float64)
    try:
        ReferenceLibrary.build("album", "again.def")
    finally:
        torch.set_default_dtype(torch.float32)
    again = load_file(next(Path("again.def").glob("vectors-*")))
    assert all(torch.equal(again[name], expected[name]) for name in ("regions", "cells", "grid"))
    regions, cells = expected["regions"], expected["cells"]
    assert regions.dtype == torch.float16 and cells.dtype == torch.int8
    assert torch.allclose(regions.float().norm(dim=2), torch.ones(regions.shape[:2]), atol=1e-3)


def test_the_query_is_cleaned_up(here: Path) -> None:
    """A thumbnail that was enlarged, and saved as a poor JPEG, still finds its photo."""
    small = thumbnail(4)
    large = torch.nn.functional.interpolate(small, scale_factor=3, mode="bicubic").clamp(0, 1)
    images.to_pil(large).save("worn.jpg", quality=40)
    found = ReferenceLibrary("photos.def").search("worn.jpg")
    assert found[0].path.name == "004.png"


def test_the_choice_gives_its_reasons(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores(monkeypatch, {"001.png": 0.5, "002.png": 0.3, "003.png": 0.2, "004.png": 0.07, "005.png": 0.04})
    for limit in ("MISSES", "FEWEST"):  # all are ranked
        monkeypatch.setattr(f"def_hub.reference.library.choice.{limit}", 20)
    choice = ReferenceLibrary("photos.def").choose(thumbnail(1), most=2)
    assert [f.name for f in choice.chosen] == ["sea/001.png", "sea/002.png"]
    assert choice.chosen[0].why == "serves 50 % of the image, likely to help"
    assert len(choice.others) == 8 and choice.others[0].name == "sea/003.png"
    assert choice.others[0].why == "serves 20 % of the image, less than the 2 chosen"
    assert choice.others[2].why == "shows too little of the image to help (under 0.05)"
    assert choice.lines(1) == [
        "0.500  sea/001.png: serves 50 % of the image, likely to help",
        "0.300  sea/002.png: serves 30 % of the image, likely to help",
        "0.200  sea/003.png: serves 20 % of the image, less than the 2 chosen",
    ]
    assert json.loads(json.dumps(choice.record()))["chosen"][0]["name"] == "sea/001.png"
    four = ReferenceLibrary("photos.def").choose(thumbnail(1), most=9)
    assert [f.name for f in four.chosen][-1] == "sea/004.png" and len(four.chosen) == 4  # 005 would not help
    with pytest.raises(ValueError, match="max_references must be at least 1"):
        ReferenceLibrary("photos.def").choose(thumbnail(1), most=0)


def test_ranking_ends_when_no_more_photos_are_likely_to_help(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ReferenceLibrary("photos.def")
    order = [found.path.name for found in library.search(thumbnail(1))]
    monkeypatch.setattr("def_hub.reference.library.choice.MISSES", 4)

    def ranked(helpful: dict[int, float]) -> int:
        scores(monkeypatch, {order[place]: score for place, score in helpful.items()})
        choice = library.choose(thumbnail(1))
        return len(choice.chosen) + len(choice.others)

    assert ranked({}) == 4 and ranked({3: 0.5}) == 7
    # one less for each that is likely to help, which one that may help is not
    assert ranked({0: 0.5}) == 4 and ranked({0: 0.5, 1: 0.07}) == 4 and ranked({0: 0.5, 4: 0.2}) == 4
    assert ranked({0: 0.5, 3: 0.2}) == 6
    assert ranked({0: 0.5, 1: 0.4, 2: 0.3}) == 5 and ranked({0: 0.5, 1: 0.4, 2: 0.3, 4: 0.6}) == 7  # at least two


def test_photos_are_ranked_by_turns_from_both_orders(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the search places last and the glance first is ranked second. A photo that cannot be read is reported."""
    library = ReferenceLibrary("photos.def")
    order = [found.path.name for found in library.search(thumbnail(1))]
    torn, last = order[4], order[-1]

    def glance(ranker: Ranker, candidate: Path) -> float:
        if candidate.name == torn:
            raise ValueError("torn")
        return float(candidate.name == last)

    scored: list[str] = []

    def score(ranker: Ranker, candidate: Path) -> float:
        scored.append(candidate.name)
        return 0.0

    monkeypatch.setattr(Ranker, "glance", glance)
    monkeypatch.setattr(Ranker, "score", score)
    choice = library.choose(thumbnail(1))
    assert scored == [order[0], last, *(name for name in order[1:-1] if name != torn)]
    assert len(choice.problems) == 1 and torn in choice.problems[0]


def test_both_stages_choose_the_photo_that_shows_the_image(here: Path) -> None:
    choice = ReferenceLibrary("photos.def").choose(thumbnail(3))
    assert choice.chosen[0].name == "sea/003.png" and not choice.problems
    assert all(f.score < choice.chosen[0].score / 2 for f in (*choice.chosen[1:], *choice.others))


def test_search_is_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all pairs, with vectors enough that faiss finds only some of them."""
    random = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(500, 4, 32, generator=random), dim=2).half()
    query = embedding.Query(
        torch.nn.functional.normalize(vectors[77, :3].float() + 0.1 * torch.randn(3, 32, generator=random), dim=1),
        torch.tensor([0.5, 0.3, 0.2]),
    )
    found = nearest.Nearest(vectors)(query, 5)
    every = query.weights @ torch.einsum("qd,nrd->qnr", query.vectors, vectors.float()).amax(2)
    assert [n for n, _ in found][0] == 77 == int(every.argmax())
    assert all(abs(similarity - float(every[n])) < 1e-5 for n, similarity in found)
    assert nearest.Nearest(vectors[:0])(query, 5) == []


def test_cells_agree_where_a_photo_shows_the_place(here: Path) -> None:
    """At whatever size, down to a third of its sides; and nowhere in a photo of something else."""
    for part in (slice(0, 120), slice(20, 100), slice(40, 84)):
        shown = scene(3)[..., part, :][..., part.start + 20 : part.stop + 20]
        shares = cells.shares(shown, described(range(10))).amax(1)
        assert int(shares.argmax()) == 3
        assert shares[3] > 2 * shares[[n for n in range(10) if n != 3]].max()


def test_only_small_images_are_enlarged_for_the_search() -> None:
    """From `ENOUGH` pixels on, a clean image is compared as it is."""
    network, picture = embedded_network(), scene(3, 120, 160)
    for height, width, enlarged in ((96, 96, False), (64, 120, True)):
        image = picture[..., :height, :width]
        found = cleaned(image, network, "clean")
        assert torch.equal(found.small, image)
        assert found.large.shape[2:] == ((4 * height, 4 * width) if enlarged else (height, width))


def test_local_descriptors_order_what_global_ones_find(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ReferenceLibrary("photos.def").search(thumbnail(4))
    assert [f.evidence for f in found] == sorted((f.evidence for f in found), reverse=True) != [0] * 10
    monkeypatch.setattr("def_hub.reference.library.library.SIMILAR", 3)
    fewer = ReferenceLibrary("photos.def").search(thumbnail(4))
    assert fewer[0].name == "sea/004.png" and len(fewer) == 10
    assert all(f.evidence == 0 for f in fewer[3:])
    assert [f.similarity for f in fewer[3:]] == sorted((f.similarity for f in fewer[3:]), reverse=True)


def test_photos_of_any_shape_are_described() -> None:
    for height, width in ((8, 8), (8, 2000), (3000, 9), (700, 401)):
        kept, (rows, columns) = cells.cells_of(
            scene(1, height, width) if min(height, width) > 40 else noise(height, width)
        )
        assert kept.shape[0] == cells.MOST and 0 < rows * columns <= cells.MOST
        assert kept[rows * columns :].abs().sum() == 0 and kept[: rows * columns].abs().sum(1).min() > 0
        assert float(kept.abs().max()) <= 127
