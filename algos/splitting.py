"""Tensors that are split over processes, as whole ones and back."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(value: Tensor) -> Tensor:
    """Returns a tensor that may be split, whole; every process calls it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def split_like(value: Tensor, other: Tensor) -> Tensor:
    """Returns a whole tensor split as another one of its shape is; every process calls it."""
    if not isinstance(other, DTensor):
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
