"""Keys and values of states, kept from one step of an episode to the next: a state is read from where the one before it ended."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from swirl_env.sequences import common_prefix


class Kept(NamedTuple):
    """What was read of one row."""

    ids: tuple[int, ...]
    """[S]"""
    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer, each [H, S, D]."""


class PrefixCache:
    """What was read in the last call, for the rows of this one that begin alike.

    Rows need not continue one another: whatever part of its beginning a row shares with a kept one is not read again.

    Args:
        tokens: most tokens that are kept, over all rows; what does not fit is read anew.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.clear()

    def clear(self) -> None:
        """Lets go of everything."""
        self._last: list[Kept] = []
        self._next: list[Kept] = []
        self._room = self.tokens
        self._weights: list[Tensor] = []
        self._versions: list[int] = []

    def turn(self, model: Any) -> None:
        """Begins a call: what the last one kept can be found from now on, unless the weights have changed since."""
        weights = list(model.parameters())
        versions = [0 if weight.is_inference() else weight._version for weight in weights]  # each change in place adds one
        same = versions == self._versions and all(a is b for a, b in zip(weights, self._weights, strict=True))
        self._last = sorted(self._next, key=_ids) if same else []
        self._next, self._room, self._weights, self._versions = [], self.tokens, weights, versions

    def find(self, rows: Sequence[tuple[int, ...]], least: int) -> tuple[DynamicCache, list[int]] | None:
        """Returns a cache over all rows, each on the right of its padding, and how many ids of each it holds.

        None where no row would be spared as many as `least` ids. One id of a row is always left to read.
        """
        if not self._last:
            return None
        found = [self._longest(row) for row in rows]
        longest = max(count for _, count in found)
        if longest < least:
            return None
        past = DynamicCache()
        for layer, (keys, values) in enumerate(self._last[0].layers):
            parts = [(kept.layers[layer][0][:, :count], kept.layers[layer][1][:, :count]) for kept, count in found]
            past.update(_stack([k for k, _ in parts], longest, keys), _stack([v for _, v in parts], longest, values), layer)
        return past, [count for _, count in found]

    def keep(self, ids: tuple[int, ...], past: Any, row: int, mask: Tensor) -> None:
        """Keeps a row for the next call.

        Args:
            ids: what the row holds, [S].
            past: the cache of the batch, of P positions.
            row: which of its rows.
            mask: nonzero at the row's ids, zero at padding, [P].
        """
        if len(ids) > self._room or not _whole(past):
            return
        self._room -= len(ids)
        places = mask.nonzero()[:, 0]  # [S]
        self._next.append(Kept(ids, [(layer.keys[row][:, places], layer.values[row][:, places]) for layer in past.layers]))

    def _longest(self, row: tuple[int, ...]) -> tuple[Kept, int]:
        """Returns the kept row with the longest beginning in common, which stands beside it in their order, and its length."""
        place = bisect.bisect(self._last, row, key=_ids)
        beside = self._last[max(place - 1, 0) : place + 1]
        count, kept = max(((common_prefix(kept.ids, row), kept) for kept in beside), key=lambda pair: pair[0])
        return kept, min(count, len(row) - 1)


def _ids(kept: Kept) -> tuple[int, ...]:
    return kept.ids


def _stack(parts: Sequence[Tensor], length: int, like: Tensor) -> Tensor:
    """Returns parts [H, S_i, D] as one tensor [B, H, length, D], padded on the left."""
    whole = like.new_zeros(len(parts), like.shape[0], length, like.shape[2])
    for i, part in enumerate(parts):
        whole[i, :, length - part.shape[1] :] = part
    return whole


def _whole(past: Any) -> bool:
    """Returns whether a cache holds all keys and values of every position, one by one (no windows, no sharing of layers)."""
    return type(past) is DynamicCache and all(type(layer) is DynamicLayer and layer.is_initialized for layer in past.layers)
