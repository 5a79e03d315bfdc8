"""Hashes of weights: a judge with a model of its own is named by them, so that other weights never share its verdicts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def weights_fingerprint(model: nn.Module) -> str:
    """Returns the hash of all parameters and buffers, with their names and types; adapters count too."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    named: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in sorted(named.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
