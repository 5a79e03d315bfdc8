"""Keys and values of a small model in one tensor, with room for what is still to come: a token more copies nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SmallCache:
    """The cache of `small_llama`.

    Args:
        whole: keys and values of each layer, [layers, 2, B, H, room, D].
        size: positions that are taken, from the first.
    """

    def __init__(self, whole: Tensor, size: int) -> None:
        self.whole, self.size = whole, size

    @classmethod
    def of_rows(cls, rows: Sequence[Tensor], room: int) -> SmallCache:
        """Returns a cache of rows, each [layers, 2, H, S_i, D], on the right of their padding, zeros.

        Args:
            rows: what was kept of them by `row`.
            room: positions in all.
        """
        layers, pair, heads, _, width = rows[0].shape
        size = max(row.shape[3] for row in rows)
        whole = rows[0].new_empty(layers, pair, len(rows), heads, max(room, size), width)
        for i, row in enumerate(rows):
            start = size - row.shape[3]
            if start:
                whole[:, :, i, :, :start] = 0.0
            whole[:, :, i, :, start:size] = row
        return cls(whole, size)

    @property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, each [B, H, size, D]."""
        return [(keys, values) for keys, values in self.whole[..., : self.size, :]]

    def row(self, row: int, places: Tensor) -> Tensor:
        """Returns a copy of what is held of a row at some positions, [layers, 2, H, S, D]."""
        return self.whole[:, :, row].index_select(3, places)

    def add(self, layer: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes keys and values [B, H, S, D] of a layer behind its first `start` positions; returns all that it has then."""
        end = start + keys.shape[2]
        held_keys, held_values = self.whole[layer]  # [B, H, room, D] each
        held_keys[:, :, start:end] = keys
        held_values[:, :, start:end] = values
        return held_keys[:, :, :end], held_values[:, :, :end]

    def reorder_cache(self, rows: Tensor) -> None:
        """Takes rows by their indices."""
        layers, pair, _, heads, room, width = self.whole.shape
        whole = self.whole.new_empty(layers, pair, len(rows), heads, room, width)
        torch.index_select(self.whole[..., : self.size, :], 2, rows, out=whole[..., : self.size, :])
        self.whole = whole
