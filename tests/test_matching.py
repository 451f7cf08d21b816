"""What must hold of the search and of its refinement."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from def_hub.reference.matching import (
    PAIRINGS,
    Correspondence,
    Views,
    align,
    match,
    match_coarse_to_fine,
    refine,
    supported,
)


def texture(*shape: int, seed: int = 0) -> torch.Tensor:
    """Noise smooth enough to be sampled between its pixels, in [0,1]."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool2d(F.avg_pool2d(noise, 3, 1, 1), 3, 1, 1)
    return (0.5 + 0.7 * smooth).clamp(0, 1)


def extract(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A stand-in for an extractor: the pixels of each cell, signed, on the grid of the LR image."""
    return image, image, F.pixel_unshuffle(image - 0.5, 4)


def views(seed: int, *shape: int) -> Views:
    return Views(*(texture(*shape, seed=10 * seed + n) for n in range(3)))


def slow(query: Views, keys: list[Views], matching_image: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Score and flat index over the union of the keys, patch by patch, for a batch of one."""
    scores = []
    for key in keys:
        total = 0
        for a, b in PAIRINGS[matching_image]:
            q = F.unfold(extract(getattr(query, a))[2], 3, padding=1)[0].T
            k = F.unfold(extract(getattr(key, b))[2], 3, padding=1)[0].T
            total = total + torch.stack([F.cosine_similarity(one[None], k) for one in q])
        scores.append(total)
    return torch.cat(scores, dim=1).max(1)


class LargestTensor(TorchDispatchMode):
    """Remembers the largest storage that any operation returned."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("matching_image", PAIRINGS)
@pytest.mark.parametrize("memory", [0, 20_000, 2**26])
def test_agrees_with_a_slow_double_loop(matching_image, memory):
    query = views(1, 1, 3, 20, 28)
    keys = [views(2, 1, 3, 24, 16), views(3, 1, 3, 12, 44), views(4, 1, 3, 4, 4)]
    found = match(query, keys, extract, matching_image, memory=memory)
    score, index = slow(query, keys, matching_image)
    widths, starts = torch.tensor([4, 11, 1]), torch.tensor([0, 24, 57])
    x, y = ((found.position[0] - 1.5) / 4).long().flatten(1)
    number = found.reference.flatten()
    assert torch.equal(starts[number] + y * widths[number] + x, index)
    torch.testing.assert_close(found.confidence.flatten(), (score / len(PAIRINGS[matching_image])).clamp(0, 1))


@pytest.mark.parametrize("memory", [2**26, 2**12])
@pytest.mark.parametrize("matching_image", ["enhanced", "joint"])
def test_searching_some_cells_finds_for_them_what_searching_all_does(matching_image, memory):
    query = views(1, 2, 3, 32, 40)
    keys = [views(2, 2, 3, 24, 36), views(3, 2, 3, 12, 44), views(4, 2, 3, 4, 4)]
    full = match(query, keys, extract, matching_image)
    some = match(query, keys, extract, matching_image, every=3, memory=memory)
    h, w = full.reference.shape[1:]
    rows, columns = torch.arange(1, h, 3), torch.arange(1, w, 3)
    for name in ("reference", "position", "confidence"):
        wanted, found = (getattr(f, name)[..., rows, :][..., columns] for f in (full, some))
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    # the others move with the nearest searched cell, and stay inside
    home = Correspondence.identity(1, h, w).position
    moved = (some.position - home)[:, :, 3:6, 3:6]
    inside = torch.tensor([(k.bicubic.shape[3], k.bicubic.shape[2]) for k in keys])[some.reference].movedim(-1, 1)
    assert (some.position >= 1.5).all() and (some.position <= inside - 2.5).all()
    assert ((moved == moved[:, :, 1:2, 1:2]).all(1) | on_the_border(some, inside)[:, 3:6, 3:6]).all()


def on_the_border(found, size):
    return ((found.position == 1.5) | (found.position == size - 2.5)).any(1)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("fast", [False, True])
def test_half_precision_only_preselects(monkeypatch, every, fast):
    """Features that are never negative resemble each other more than half precision can tell apart."""

    def alike(image):
        return image, image, F.relu(extract(image)[2]) + 1

    monkeypatch.setattr("def_hub.reference.matching.search.fast_bfloat16", lambda device: fast)
    query, key = views(1, 1, 3, 120, 96), views(2, 1, 3, 88, 104)
    found = match(query, [key], alike, "enhanced", every=every).confidence[
        0, 0, every // 2 :: every, every // 2 :: every
    ]
    q, k = (F.normalize(F.unfold(alike(v)[2], 3, padding=1)[0].double(), dim=0) for v in (query.enhanced, key.sharp))
    best = (q.T @ k).amax(1).view(30, 24)[every // 2 :: every, every // 2 :: every]
    assert best.std() < 0.02  # as much as a few steps of bfloat16
    assert (best - found < 1e-5).all()


def test_every_sample_of_a_batch_is_searched_alone():
    query, key = views(1, 3, 3, 16, 20), views(2, 3, 3, 12, 24)
    together = match(query, [key], extract)
    for b in range(3):

        def one(v, b=b):
            return Views(v.bicubic[b : b + 1], v.enhanced[b : b + 1], v.sharp[b : b + 1])

        alone = match(one(query), [one(key)], extract)
        assert torch.equal(together.position[b], alone.position[0])
        torch.testing.assert_close(together.confidence[b], alone.confidence[0])


@pytest.mark.parametrize("matching_image", PAIRINGS)
def test_an_image_against_its_own_shift_returns_the_shift(matching_image):
    scene = texture(1, 3, 72, 80)
    image, shifted = scene[:, :, :64, :64], scene[:, :, 8:72, 16:80]
    found = match(Views(shifted, shifted), [Views(image, image, image)], extract, matching_image)
    there = Correspondence.identity(1, 16, 16).position + torch.tensor([16.0, 8.0]).view(1, 2, 1, 1)
    # Away from the border, where the patches hold the same pixels.
    assert torch.equal(found.position[..., 1:13, 1:11], there[..., 1:13, 1:11])
    torch.testing.assert_close(found.confidence[..., 1:13, 1:11], torch.ones(1, 1, 12, 10))


def test_the_index_names_the_reference_that_holds_the_patch():
    left, right = texture(1, 3, 32, 24, seed=1), texture(1, 3, 32, 40, seed=2)
    both = torch.cat((left, right), dim=3)
    found = match(Views(both, both), [Views(x, x, x) for x in (left, right)], extract)
    assert (found.reference[:, :, 1:5] == 0).all() and (found.reference[:, :, 7:15] == 1).all()
    inside = Correspondence.identity(1, 8, 10).position
    assert torch.equal(found.position[:, :, 1:-1, 7:15], inside[:, :, 1:-1, 1:9])


def test_storage_stays_under_its_cap():
    query, key = views(1, 1, 3, 160, 160), views(2, 1, 3, 160, 320)
    image = 4 * 3 * 160 * 320 * 1.2  # bytes of the larger image or its features, with their padding
    cap = 2**20
    with LargestTensor() as largest:
        match(query, [key], extract, memory=cap)
    correlation = 4 * 40**2 * 40 * 80
    assert largest.bytes <= max(cap / 3, image) < correlation / 20
    with LargestTensor() as largest:
        refine(Correspondence.identity(1, 40, 40), query.enhanced, [key.sharp], memory=cap)
    regions = 4 * 40**2 * 20**2
    assert largest.bytes <= max(cap, image) < regions / 2


def test_refine_finds_a_shift_that_the_grid_cannot_express():
    scene = texture(1, 3, 96, 96)
    image, query = scene, scene[:, :, 9:73, 14:78]  # 5 rows and 2 columns off the grid
    rough = Correspondence.identity(1, 16, 16)
    rough = Correspondence(rough.reference, rough.position + torch.tensor([12.0, 8.0]).view(2, 1, 1), rough.confidence)
    found = refine(rough, query, [image])
    shift = found.position - Correspondence.identity(1, 16, 16).position
    inside = shift[..., 2:-2, 2:-2]  # patches at the border see pixels that the crop of the scene repeats
    assert (inside - torch.tensor([14.0, 9.0]).view(2, 1, 1)).abs().max() < 0.15
    assert found.confidence[..., 2:-2, 2:-2].min() > 0.99


def test_refine_measures_fractions_of_a_pixel():
    wide = F.interpolate(texture(1, 3, 40, 40), scale_factor=8, mode="bicubic", align_corners=False)
    image, query = wide[:, :, 4::4, 4::4], wide[:, :, 5::4, 5::4]  # a quarter of a pixel further
    query, image = query[:, :, :64, :64], image[:, :, :64, :64]
    found = refine(Correspondence.identity(1, 16, 16), query, [image])
    shift = (found.position - Correspondence.identity(1, 16, 16).position)[..., 1:-1, 1:-1]
    assert (shift - 0.25).abs().mean() < 0.25 / 2  # whole pixels would be 0.25 off everywhere
    assert (shift.mean((0, 2, 3)) - 0.25).abs().max() < 0.03


def test_neighbours_rescue_a_match_that_is_out_of_reach():
    left, right = texture(1, 3, 64, 64, seed=1), texture(1, 3, 64, 64, seed=2)
    rough = Correspondence.identity(1, 16, 16)
    position, reference = rough.position.clone(), rough.reference.clone()
    position[:, :, 8, 8] += 24  # far beyond any reach
    reference[:, 5, 4] = 1  # the wrong picture
    wrong = Correspondence(reference, position, rough.confidence)
    found = [align(wrong, left, [left, right], rounds=rounds) for rounds in (0, 1)]
    lost = [(f.position - rough.position).abs().amax(1)[0] > 0.5 for f in found]
    assert lost[0][8, 8] and found[0].reference[0, 5, 4] == 1
    assert not lost[1].any() and not found[1].reference.any()


def test_a_region_of_wrong_matches_is_healed_from_its_border():
    """As where a railing was matched one period too far: only the border of the region disagrees."""
    scene = texture(1, 3, 128, 128, seed=1)
    home = Correspondence.identity(1, 32, 32)
    position = home.position.clone()
    position[..., 9:23, 9:23] += 24
    wrong = Correspondence(home.reference, position, home.confidence)
    lost = [
        ((align(wrong, scene, [scene], rounds=rounds).position - home.position).abs().amax(1) > 0.5).sum()
        for rounds in (1, 3, 6)
    ]
    assert lost[0] > 2 * lost[1] and lost[2] == 0


def test_align_recovers_turn_scale_and_shift_in_the_sample_and_the_reference_that_are_named():
    scene, other = texture(2, 3, 160, 128, seed=3), texture(2, 3, 48, 48, seed=4)
    scene = F.avg_pool2d(scene, 5, stride=1, padding=2)  # as smooth as an enhanced image
    frame = torch.tensor([[1.12, 0.10], [-0.14, 0.93]])
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    x, y = 1.12 * x + 0.10 * y + 12.3, -0.14 * x + 0.93 * y + 40.6  # where the query's pixels lie in the scene
    grid = torch.stack(((2 * x + 1) / 128 - 1, (2 * y + 1) / 160 - 1), dim=-1)
    query = F.grid_sample(scene[1:], grid[None], align_corners=False)
    home = Correspondence.identity(1, 16, 20).position[0]
    true = torch.einsum("ij,jhw->ihw", frame, home) + torch.tensor([12.3, 40.6]).view(2, 1, 1)
    rough = Correspondence(torch.ones(2, 16, 20).long(), true.round().expand(2, -1, -1, -1), torch.ones(2, 1, 16, 20))
    found = align(rough, query.expand(2, -1, -1, -1), [other, scene])
    inside = (1, ..., slice(4, -4), slice(4, -4))
    assert (found.position[inside] - true[:, 4:-4, 4:-4]).norm(dim=0).quantile(0.95) < 0.1
    assert (found.frames[inside] - frame[:, :, None, None]).abs().quantile(0.95) < 0.02
    assert found.confidence[inside].quantile(0.05) > 0.95
    assert found.confidence[0].mean() < 0.3  # the other sample of the scene shows something else
    whole = align(rough, query.expand(2, -1, -1, -1), [other, scene], memory=1)  # cell by cell: the same
    off = (whole.position - found.position).abs()
    assert off[1].max() < 0.05
    # where nothing is right, rounding chooses among what is wrong: 2.3 % of the cells on a processor without AVX-512
    assert (off[0] > 0.05).float().mean() < 0.05


@pytest.mark.parametrize("pairs", [0, 2**25])
def test_from_coarse_to_fine_every_cell_finds_its_place(pairs):
    """Odd numbers of cells on every level, two references of other sizes, and a search at every level or at the
    smallest alone."""
    scene, other = texture(1, 3, 204, 180, seed=3), texture(1, 3, 84, 100, seed=4)
    scene = F.avg_pool2d(scene, 5, stride=1, padding=2)
    coarse = F.interpolate(texture(1, 3, 26, 23, seed=5), (204, 180), mode="bicubic")  # something large to see, too
    scene = (scene + coarse) / 2
    image = scene[..., 13 : 13 + 148, 30 : 30 + 132]
    keys = [Views(p, p, p) for p in (other, scene)]
    found = match_coarse_to_fine(Views(image, image), keys, extract, pairs=pairs)
    home = Correspondence.identity(1, 37, 33).position
    assert (found.reference == 1).float().mean() > 0.98
    away = (found.position - home - torch.tensor([30.0, 13.0]).view(1, 2, 1, 1)).norm(dim=1)
    assert away.quantile(0.98) < 0.1
    assert found.confidence.mean() > 0.95


def test_align_chooses_the_better_start_for_each_cell():
    scene = texture(1, 3, 64, 64, seed=1)
    home = Correspondence.identity(1, 16, 16)
    left, right = home.position.clone(), home.position.clone()
    left[..., 8:] += 20
    right[..., :8] += 20
    wrong = [Correspondence(home.reference, p, home.confidence) for p in (left, right)]
    found = align(wrong, scene, [scene], rounds=0)
    assert (found.position - home.position).abs().max() < 0.05


def test_what_lies_alone_is_not_trusted():
    scene = texture(1, 3, 64, 64, seed=1)
    home = Correspondence.identity(1, 16, 16)
    position = home.position.clone()
    position[:, :, 4, 9] = position[:, :, 12, 3]  # a perfect resemblance, elsewhere
    image = scene.clone()
    image[:, :, 16 - 12 : 20 + 12, 36 - 12 : 40 + 12] = scene[:, :, 48 - 12 : 52 + 12, 12 - 12 : 16 + 12]
    found = align(Correspondence(home.reference, position, home.confidence), image, [scene], rounds=0)
    whole = align(home, scene, [scene], rounds=0)
    assert whole.confidence.min() > 0.99  # at the border, too: neighbours that do not exist cannot disagree
    assert found.confidence[0, 0, 4, 9] == 0 and found.confidence[0, 0, 12, 12] > 0.99


def test_where_one_reference_ends_and_another_goes_on_both_are_trusted():
    scene = texture(1, 3, 64, 64, seed=1)
    home = Correspondence.identity(1, 16, 16)
    reference = home.reference.clone()
    reference[:, :, 8:] = 1
    found = align(Correspondence(reference, home.position, home.confidence), scene, [scene, scene.clone()], rounds=0)
    assert found.confidence.min() > 0.99
    reference[:, 4, 4] = 1  # alone among those that look elsewhere: nothing vouches for it
    found = align(Correspondence(reference, home.position, home.confidence), scene, [scene, scene.clone()], rounds=0)
    assert found.confidence[0, 0, 4, 4] == 0 and found.confidence[0, 0, 4, 5] > 0.99


def test_what_has_no_trusted_surroundings_is_not_trusted() -> None:
    """A region that matches keeps its confidence, what unrelated pictures have by chance loses it; none gains any."""
    chance = torch.rand(1, 1, 60, 80, generator=torch.Generator().manual_seed(0)) * 0.3
    assert supported(chance).mean() < 0.02
    region = chance.clone()
    region[..., :40, :40] = 0.8
    kept = supported(region)
    assert torch.equal(kept[..., 5:30, 5:30], region[..., 5:30, 5:30])
    assert kept[..., 50:, 60:].mean() < 0.02 and (kept <= region).all()
    assert torch.equal(supported(region[..., :3, :5]), region[..., :3, :5])  # smaller than the surroundings


def test_refine_uses_the_reference_and_the_sample_that_are_named():
    small, large = texture(2, 3, 24, 36, seed=1), texture(2, 3, 52, 44, seed=2)
    query = torch.stack((small[0, :, 1:21, 2:34], large[1, :, 3:23, 1:33]))
    rough = Correspondence.identity(2, 5, 8)
    reference = rough.reference.clone()
    reference[1] = 1
    found = refine(Correspondence(reference, rough.position, rough.confidence), query, [small, large])
    shift = (found.position - rough.position)[..., 2:-2, 2:-2]
    for b, expected in enumerate(((2.0, 1.0), (1.0, 3.0))):
        assert (shift[b] - torch.tensor(expected).view(2, 1, 1)).abs().max() < 0.15


def test_matches_stay_inside_their_reference():
    reference = texture(1, 3, 16, 20, seed=1)
    rough = Correspondence.identity(1, 8, 8)
    found = refine(rough, texture(1, 3, 32, 32, seed=2), [reference])
    assert found.position.min() >= 1.5
    assert found.position[:, 0].max() <= 20 - 2.5 and found.position[:, 1].max() <= 16 - 2.5


def test_flat_patches_are_not_sure_of_anything():
    flat = torch.full((1, 3, 32, 32), 0.5)
    noisy = flat + 1e-3 * texture(1, 3, 32, 32)
    assert refine(Correspondence.identity(1, 8, 8), noisy, [noisy]).confidence.max() < 0.5


def test_wrong_inputs_say_what_was_expected():
    image = texture(1, 3, 16, 16)
    with pytest.raises(ValueError, match="multiples of 4"):
        Views(texture(1, 3, 16, 18), texture(1, 3, 16, 18))
    with pytest.raises(ValueError, match="size of the bicubic view"):
        Views(image, texture(1, 3, 16, 20))
    with pytest.raises(TypeError, match="expected a tensor"):
        Views(image, [image])
    with pytest.raises(ValueError, match="matching_image: expected one of"):
        match(Views(image, image), [Views(image, image, image)], extract, "best")
    with pytest.raises(ValueError, match="at least one reference"):
        match(Views(image, image), [], extract)
    with pytest.raises(ValueError, match="needs the sharp view"):
        match(Views(image, image), [Views(image, image)], extract)
    with pytest.raises(ValueError, match="batch of 1"):
        match(Views(image, image), [Views(*[image.repeat(2, 1, 1, 1)] * 3)], extract)
    with pytest.raises(ValueError, match=r"Correspondence.position: expected \[1, 2, 4, 4\]"):
        Correspondence(torch.zeros(1, 4, 4).long(), torch.zeros(1, 4, 4), torch.zeros(1, 1, 4, 4))
    identity = Correspondence.identity(1, 4, 4)
    with pytest.raises(ValueError, match="query: expected"):
        refine(identity, texture(1, 3, 20, 16), [image])
    with pytest.raises(ValueError, match="even patch"):
        refine(identity, image, [image], patch=11)
    with pytest.raises(ValueError, match="rounds >= 0"):
        align(identity, image, [image], rounds=-1)
    with pytest.raises(ValueError, match="at least one correspondence, got none"):
        align([], image, [image])
    with pytest.raises(ValueError, match=r"Correspondence.frame: expected \[1, 2, 2, 4, 4\]"):
        Correspondence(identity.reference, identity.position, identity.confidence, torch.ones(1, 2, 4, 4))
    with pytest.raises(ValueError, match="that the correspondence names"):
        refine(Correspondence(identity.reference + 1, identity.position, identity.confidence), image, [image])
