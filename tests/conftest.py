"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the development sets, which may not be shipped: `DEF_SHARED` or `../shared/data`."""
    folder = Path(os.environ.get("DEF_SHARED", ROOT.parent / "shared" / "data"))
    if not (folder / "eval-dev").is_dir():
        pytest.skip(f"no development sets at {folder}; set DEF_SHARED to the folder that holds eval-dev/")
    return folder
