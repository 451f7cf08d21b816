"""Backbones of `transformers`, frames of videos, and what is said where an optional package is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from def_hub import ReferenceLibrary, images
from def_hub.reference.library import nearest
from tests.conftest import ROOT, Run, contents
from tests.helpers.hub_server import HubServer
from tests.helpers.library import scene, thumbnail, write_video


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny DINOv2 of random weights, as its name on the Hub would give it."""
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}).save_pretrained(folder)
    return str(folder)


def test_a_backbone_of_transformers(here: Path, backbone: str) -> None:
    library, changes = ReferenceLibrary.build("album", "dino.def", backbone=backbone)
    assert changes.added == 10 and library.index.descriptors.regions.shape == (10, 6, 32)
    found = library.search(scene(5)[..., :118, :158])
    assert found[0].name == "sea/005.png" and found[0].similarity > 0.9
    with pytest.raises(ValueError, match="name it as backbone if you trust it"):
        ReferenceLibrary("dino.def").search(thumbnail(0))
    with pytest.raises(ValueError, match="the library was made with"):
        ReferenceLibrary("photos.def", backbone=backbone).search(thumbnail(0))
    again, changes = ReferenceLibrary.build("album", "photos.def", backbone=backbone)
    assert again.index.embedder == backbone and again.index.descriptors.regions.shape == (10, 6, 32)
    assert (changes.renewed, changes.added) == (10, 0)


def test_the_backbone_is_dinov2_small_where_none_is_named(here: Path, backbone: str, hub: HubServer, run: Run) -> None:
    hub.put("facebook/dinov2-small", contents(Path(backbone)))
    status, out, err = run("library", "build", "album", "-o", "dino.def", "--backbone")
    assert (status, out) == (0, "dino.def: 10 photos; 10 added\n"), err
    library = ReferenceLibrary("dino.def")  # this model need not be named again
    assert library.index.embedder == "facebook/dinov2-small"
    assert library.search(scene(5)[..., :118, :158])[0].name == "sea/005.png"


def test_transformers_is_loaded_only_where_a_backbone_is_asked_for(here: Path) -> None:
    code = (
        "import sys; from def_hub import ReferenceLibrary; ReferenceLibrary.build('album', 'new.def');"
        "print([m for m in ('faiss', 'av', 'transformers.models.auto.modeling_auto') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_frames_of_a_video_are_references(here: Path) -> None:
    pytest.importorskip("av", reason="videos need PyAV")
    from def_hub.video import frame_at, sharp_frames

    write_video(here / "album" / "walk.mp4", 24, sharp={3, 13, 20})
    frames = list(sharp_frames(here / "album" / "walk.mp4", every=8))
    order = sorted(stamp for stamp, _ in frames)
    step = order[1] - order[0]
    assert [round(stamp * 10 / step) for stamp in order] == [3, 13, 20] if step else False
    for stamp, picture in frames:
        assert torch.equal(frame_at(here / "album" / "walk.mp4", stamp), picture)
    library = ReferenceLibrary("photos.def")
    changes = library.add("album/walk.mp4", every=8)
    info = library.info()
    assert (changes.added, info.photos, info.videos, info.frames) == (3, 10, 1, 3)
    found = library.search(images.shrink(frames[1][1][..., :96, :160]))
    assert found[0].name == f"walk.mp4#{frames[1][0]}"
    assert torch.equal(found[0].picture(), frames[1][1])
    with pytest.raises(ValueError, match="has no frame with the time stamp"):
        frame_at(here / "album" / "walk.mp4", 10**9)
    (here / "album" / "broken.mp4").write_bytes(b"no video")
    assert library.update().problems[0].startswith("broken.mp4: ")


def test_without_the_optional_packages_it_says_which(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "find_spec", lambda name: None)
    monkeypatch.setattr("def_hub.video.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'def-hub\[library\]'"):
        ReferenceLibrary("photos.def").search(thumbnail(0))
    (here / "album" / "walk.mp4").write_bytes(b"")
    changes = ReferenceLibrary("photos.def").update()
    assert len(changes.problems) == 1 and "pip install 'def-hub[library]'" in changes.problems[0]
