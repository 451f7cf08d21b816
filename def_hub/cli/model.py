"""The pipeline that the options name, and the commit of the code."""

import argparse
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from def_hub.pipeline import DEFPipeline


def device_of(options: argparse.Namespace) -> "torch.device":
    """What `--device` names; else a graphics card where there is one."""
    import torch

    name = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name}: not available here ({str(error).splitlines()[0]})") from error
    return device


def check_name(model: str | None) -> None:
    """Raise `FileNotFoundError` where `--model` names neither a folder nor what may be a repository."""
    if model and not Path(model).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise FileNotFoundError(f"--model {model}: neither a folder nor a Hub name like user/model")


def load(options: argparse.Namespace) -> "DEFPipeline":
    """The pipeline that `--model` and `--device` name."""
    from def_hub.pipeline import DEFPipeline

    device = device_of(options)
    check_name(options.model)
    try:
        return DEFPipeline.from_pretrained(options.model).to(device)
    except (OSError, ValueError) as error:
        raise ValueError(f"--model {options.model or 'embedded default'}: {error}") from error


def commit() -> str | None:
    """Commit of the code that runs, with "+" where files differ from it; None where it is no clone."""
    folder = Path(__file__).resolve().parents[2]
    try:
        git = ["git", "-C", str(folder)]
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", "def_hub"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.strip() + ("+" if changed.strip() else "")
