"""Checkpoints without pickle: tensors as safetensors, all else as JSON.

    policy.safetensors      the trainable weights (of a policy with adapters: the adapters alone)
    optimizer.safetensors   moments and step counts of AdamW, float32 copies of bfloat16 weights
    trainer.json            counters, and the loss scale of fp16
    random-0.safetensors, random-0.json   states of the random generators, one pair per process

A folder that somebody sends can hold anything; nothing in these files is ever run. `seal` writes the size and the hash of
every file last, so that `is_whole` tells a damaged checkpoint from a sound one.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swirl_env.errors import StoreError

MANIFEST = "manifest.json"


def save_state(
    folder: Path, weights: Mapping[str, nn.Parameter], optimizer: Mapping[str, Tensor], counters: Mapping[str, Any]
) -> None:
    """Writes weights, optimizer and counters; one process does.

    Args:
        folder: is created.
        weights: trainable weights by name.
        optimizer: tensors of the optimizer of these weights.
        counters: JSON values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_plain(weights), folder / "policy.safetensors")
    save_file(_plain(optimizer), folder / "optimizer.safetensors")
    (folder / "trainer.json").write_text(json.dumps(dict(counters)) + "\n")


def read_counters(folder: Path) -> dict[str, Any]:
    """Returns the counters that `save_state` wrote."""
    counters: dict[str, Any] = json.loads((folder / "trainer.json").read_text())
    return counters


def load_state(folder: Path, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Puts the weights back as `save_state` wrote them; returns the tensors of the optimizer.

    Raises:
        StoreError: if the checkpoint is of another policy, or cannot be read.
    """
    try:
        restore_weights(weights, _read(folder / "policy.safetensors"))
    except ValueError as error:
        raise StoreError(
            f"{folder} is a checkpoint of another policy: {error}. Resume with the policy and the adapters that the run began "
            f"with."
        ) from error
    return _read(folder / "optimizer.safetensors")


@torch.no_grad()
def restore_weights(weights: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor]) -> None:
    """Copies saved weights into those of the same names.

    Raises:
        ValueError: if names or shapes differ.
    """
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    if {name: tuple(value.shape) for name, value in saved.items()} != shapes:
        raise ValueError(f"it has {len(saved)} trainable weights, this policy {len(weights)}, and names or shapes differ")
    for name, weight in weights.items():
        weight.copy_(saved[name])


def save_random(folder: Path, rank: int) -> None:
    """Writes the states of this process's global random generators (dropout draws from them)."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    save_file(tensors, folder / f"random-{rank}.safetensors")
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    states = {"python": [version, list(numbers), gauss], "numpy": [str(name), np.asarray(keys).tolist(), *rest]}
    (folder / f"random-{rank}.json").write_text(json.dumps(states) + "\n")


def load_random(folder: Path, rank: int) -> None:
    """Puts back what `save_random` wrote; a run that had fewer processes leaves the further ones as they are."""
    file = folder / f"random-{rank}.json"
    if not file.is_file():
        return
    tensors, states = _read(folder / f"random-{rank}.safetensors"), json.loads(file.read_text())
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))


def seal(folder: Path) -> None:
    """Writes the size and the hash of every file; the last thing that is written into a checkpoint."""
    entries = {file.name: _digest(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps(entries, indent=1) + "\n")


def is_whole(folder: Path) -> bool:
    """Whether every file of a checkpoint is as it was sealed."""
    try:
        entries = json.loads((folder / MANIFEST).read_text())
        return bool(entries) and all(
            Path(name).name == name and _digest(folder / name) == digest for name, digest in entries.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return f"{file.stat().st_size}-{hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()}"


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors as safetensors takes them: in memory of their own, one after the other."""
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{file} cannot be read: {error}.") from error
