"""Fixtures of the tests of a library of references."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from def_hub import ReferenceLibrary
from def_hub.reference.library import embedding
from tests.helpers.library import photos


@pytest.fixture(autouse=True)
def needs_faiss() -> None:
    pytest.importorskip("faiss", reason="searching a library needs faiss-cpu")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten photos and their library; tests work on copies."""
    folder = tmp_path_factory.mktemp("library")
    photos(folder / "album" / "sea", range(6))
    photos(folder / "album" / "hills", range(6, 10))
    ReferenceLibrary.build(folder / "album", folder / "photos.def")
    return folder


@pytest.fixture
def here(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of `built`, times of the files included."""
    shutil.copytree(built, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos were really embedded: the length of the list."""
    done: list[int] = []
    photo = embedding.PooledFeatures.photo

    def counted(self: Any, picture: torch.Tensor) -> torch.Tensor:
        done.append(1)
        return photo(self, picture)

    monkeypatch.setattr(embedding.PooledFeatures, "photo", counted)
    return done
