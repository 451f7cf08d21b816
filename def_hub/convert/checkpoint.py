"""Reading checkpoints that other projects saved."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

StateDict = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


def read_checkpoint(path: str | Path) -> StateDict:
    """The tensors of a file by name. They may be nested under "state_dict", "model", "params" or "ema".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds anything other than tensors. No code in it is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # safetensors raises a class of its own
            raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path}: expected a checkpoint that holds only tensors; no code in it was run ({reason})"
        ) from error
    for name in ("state_dict", "model", "params", "ema"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError(f"{path}: expected tensors by name, got {type(loaded).__name__}")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def take(state: StateDict, name: str, shape: Sequence[int] | None = None) -> Tensor:
    """The tensor called `name`. Raises ValueError if it is missing or has another shape."""
    if name not in state:
        raise ValueError(f"checkpoint: expected a tensor {name}, got {_some(state)}")
    if shape is not None and list(state[name].shape) != list(shape):
        raise ValueError(f"checkpoint: expected {name} of shape {list(shape)}, got {list(state[name].shape)}")
    return state[name]


def load_strictly(network: Network, path: str | Path, rename: Callable[[str], str] | None = None) -> Network:
    """Fill `network` with the tensors of a file, every one by its name; half precision becomes float32.

    Args:
        path: see `read_checkpoint`.
        rename: the file's name of a tensor → the network's, where the two differ.

    Returns:
        The same network, in evaluation mode.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where a tensor is missing, has another shape, or is left over. The network is unchanged then.
    """
    state = {rename(name) if rename else name: value.float() for name, value in read_checkpoint(path).items()}
    expected = {name: value.shape for name, value in network.state_dict().items()}
    problems = {
        "missing": sorted(set(expected) - set(state)),
        "left over": sorted(set(state) - set(expected)),
        "of another shape": [name for name, shape in expected.items() if name in state and state[name].shape != shape],
    }
    if any(problems.values()):
        parts = [f"{len(names)} {what} (such as {names[0]})" for what, names in problems.items() if names]
        raise ValueError(f"{path}: does not fit {type(network).__name__}: tensors {', '.join(parts)}")
    network.load_state_dict(state)
    return network.eval()


def _some(state: StateDict) -> str:
    names = sorted(state)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
