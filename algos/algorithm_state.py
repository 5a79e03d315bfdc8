"""State of an algorithm in checkpoints: tensors as safetensors, all else as JSON; nothing in the files is ever run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from swirl_env.errors import ConfigError, StoreError
from swirl_env.store.codec import decode_trajectory, encode_trajectory
from swirl_env.types import Trajectory

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
"""What a piece of state may be called: the name becomes a file's."""
_DEEPEST = 40


class Stateful(Protocol):
    """What can be kept in checkpoints: modules and optimizers of torch, a `Trainer`, objects of one's own."""

    def state_dict(self) -> Any:
        """Returns the state: tensors, arrays, JSON values, trajectories; in lists, tuples and dicts with str or int keys."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Goes on from a state that `state_dict` returned; tensors come on the CPU."""
        ...


S = TypeVar("S", bound=Stateful)


def write_state(folder: Path, name: str, state: object) -> None:
    """Writes what a thing's `state_dict` returned as ``state-NAME.json`` and ``state-NAME.safetensors``.

    Raises:
        ConfigError: if the state holds something that cannot be stored.
    """
    tensors: dict[str, Tensor] = {}
    tree = _encode(state, name, tensors, 0)
    save_file(tensors, _files(folder, name)[1])
    _files(folder, name)[0].write_text(json.dumps(tree, allow_nan=False) + "\n", encoding="utf-8")


def read_state(folder: Path, name: str, thing: Stateful) -> None:
    """Lets a thing go on from the state that `write_state` wrote.

    Raises:
        StoreError: if there is none, or it is damaged or of another kind of thing.
    """
    plain, tensors = _files(folder, name)
    if not plain.is_file():
        raise StoreError(
            f"{folder} has no state of {name!r}: another algorithm, or another version of this one, wrote it. Resume with the "
            f"algorithm that the run began with."
        )
    try:
        state = _decode(json.loads(plain.read_text(encoding="utf-8")), load_file(tensors))
        thing.load_state_dict(state)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, RuntimeError, RecursionError) as error:
        raise StoreError(f"The state of {name!r} in {folder} does not fit this {type(thing).__name__}: {error}") from error


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"state-{name}.json", folder / f"state-{name}.safetensors"


def _encode(value: object, place: str, tensors: dict[str, Tensor], depth: int) -> object:
    """Returns a value as JSON: itself if JSON has it, else a mapping of its kind to what it holds."""
    if depth > _DEEPEST:
        raise ConfigError(f"The state {place:.60} is nested more than {_DEEPEST} deep; give state_dict a flatter result.")
    if value is None or isinstance(value, str | bool) or type(value) is int:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Tensor):
        tensors[key := str(len(tensors))] = value.detach().cpu().clone().contiguous()
        return {"tensor": key}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        tensors[key := str(len(tensors))] = torch.from_numpy(np.array(value, order="C"))
        return {"array": key}
    if isinstance(value, np.generic):
        return _encode(value.item(), place, tensors, depth + 1)
    if isinstance(value, Trajectory):
        return {"trajectory": encode_trajectory(value).decode()}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(inner, f"{place}[{i}]", tensors, depth + 1) for i, inner in enumerate(value)]}
    if isinstance(value, Mapping) and all(type(key) in (str, int) for key in value):
        return {"dict": [[key, _encode(inner, f"{place}.{key}", tensors, depth + 1)] for key, inner in value.items()]}
    raise ConfigError(
        f"{place} is a {type(value).__name__}, which a checkpoint cannot hold. state_dict gives tensors, arrays of numbers, JSON "
        f"values and trajectories, in lists, tuples and dicts with str or int keys."
    )


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    readers: dict[str, Callable[[], Any]] = {
        "float": lambda: float(inside),
        "tensor": lambda: tensors[inside],
        "array": lambda: tensors[inside].numpy(),
        "trajectory": lambda: decode_trajectory(inside.encode()),
        "list": lambda: [_decode(inner, tensors) for inner in inside],
        "tuple": lambda: tuple(_decode(inner, tensors) for inner in inside),
        "dict": lambda: {key: _decode(inner, tensors) for key, inner in inside},
    }
    return readers[kind]()
