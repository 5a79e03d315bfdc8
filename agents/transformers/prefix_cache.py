"""Keys and values of states, reused from one step of an episode to the next: only what is new in a state is read."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from swirl_env.agents.transformers.interfaces import CausalLM
from swirl_env.agents.transformers.small_cache import SmallCache
from swirl_env.sequences import common_prefix


class CachedRow(NamedTuple):
    """Keys and values of one row."""

    ids: tuple[int, ...]
    """[S]"""
    layers: list[tuple[Tensor, Tensor]] | Tensor
    """Keys and values of each layer, each [H, S, D]; if a small cache held them, in one tensor, [layers, 2, H, S, D]."""


class PrefixCache:
    """Keys and values from the last call, for the rows of this one that begin alike.

    Rows need not continue one another: whatever beginning a row shares with a cached one is not read again.

    Two generations share the room: rows of the last call, in the order of their ids so that the best match is a neighbour
    (`_last`), and rows of this call (`_next`). A row of the last call is of no more use once the batch that continues it has
    been read, so it makes room for a new one; what does not fit even then is read again in the next call.

    Args:
        tokens: most tokens that are kept at any time, over all rows.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._last: list[CachedRow] = []
        self._next: list[CachedRow] = []
        self._used: set[tuple[int, ...]] = set()
        self._room = self.tokens
        self._weights: list[Tensor] = []
        self._versions: list[int] = []

    @property
    def size(self) -> int:
        """How many tokens are kept."""
        return self.tokens - self._room

    def start_call(self, model: CausalLM) -> None:
        """Begins a call: rows of the last one can be looked up from now on, unless the weights have changed since."""
        weights: list[Tensor] = list(model.parameters())
        versions = [0 if weight.is_inference() else weight._version for weight in weights]  # each change in place adds one
        same = versions == self._versions and all(a is b for a, b in zip(weights, self._weights, strict=True))
        self._last = sorted(self._next, key=_ids) if same else []
        self._next, self._used, self._weights, self._versions = [], set(), weights, versions
        self._room = self.tokens - sum(len(row.ids) for row in self._last)

    def spares(self, rows: Sequence[tuple[int, ...]], least: int) -> bool:
        """Returns whether some row would be spared as many as `least` ids; looks no further than the first."""
        return bool(self._last) and any(self._longest(row)[1] >= least for row in rows)

    def left(self, rows: Sequence[tuple[int, ...]]) -> list[int]:
        """Returns how many ids of each row are left to read if what is kept is used."""
        return [len(row) - (self._longest(row)[1] if self._last else 0) for row in rows]

    def lookup(
        self, rows: Sequence[tuple[int, ...]], least: int, small: int | None = None
    ) -> tuple[DynamicCache | SmallCache, list[int]] | None:
        """Returns a cache over all rows, each on the right of its padding, and how many ids of each it holds.

        None if no row would be spared as many as `least` ids. One id of a row is always left to read.

        Args:
            rows: the rows.
            least: ids.
            small: None for a cache of transformers; else a small one may come, with room for so many ids after the rows.
        """
        if not self._last:
            return None
        matches = [self._longest(row) for row in rows]
        longest = max(count for _, count in matches)
        if longest < least:
            return None
        self._used.update(cached.ids for cached, _ in matches)
        counts = [count for _, count in matches]
        wholes = [cached.layers[..., :count, :] for cached, count in matches if isinstance(cached.layers, Tensor)]
        if small is not None and len(wholes) == len(rows):
            left = max(len(row) - count for row, count in zip(rows, counts, strict=True))
            return SmallCache.of_rows(wholes, longest + left + small), counts
        past = DynamicCache()
        for layer, (keys, values) in enumerate(self._last[0].layers):
            parts = [(cached.layers[layer][0][:, :count], cached.layers[layer][1][:, :count]) for cached, count in matches]
            past.update(_stack([k for k, _ in parts], longest, keys), _stack([v for _, v in parts], longest, values), layer)
        return past, counts

    def keep(self, ids: tuple[int, ...], past: object, row: int, mask: Tensor) -> None:
        """Keeps a row for the next call.

        Args:
            ids: the row's ids, [S].
            past: the cache of the batch, of P positions.
            row: its index in the batch.
            mask: nonzero at the row's ids, zero at padding, [P].
        """
        if not (isinstance(past, SmallCache) or holds_every_position(past)) or not self._make_room(len(ids)):
            return
        self._room -= len(ids)
        places = mask.nonzero()[:, 0]  # [S]
        if isinstance(past, SmallCache):
            self._next.append(CachedRow(ids, past.row(row, places)))
            return
        layers: list[Any] = past.layers  # those of `holds_every_position`, which have keys and values
        self._next.append(CachedRow(ids, [(layer.keys[row][:, places], layer.values[row][:, places]) for layer in layers]))

    def _make_room(self, count: int) -> bool:
        """Drops rows of the last call that a batch has continued, until `count` tokens fit; returns whether they do."""
        if count > self._room and self._used:
            rest = []
            for cached in self._last:
                if count > self._room and cached.ids in self._used:
                    self._room += len(cached.ids)
                else:
                    rest.append(cached)
            self._last = rest
        return count <= self._room

    def _longest(self, row: tuple[int, ...]) -> tuple[CachedRow, int]:
        """Returns the cached row with the longest common beginning, one of the two neighbours in their order, and its length."""
        place = bisect.bisect(self._last, row, key=_ids)
        neighbours = self._last[max(place - 1, 0) : place + 1]
        count, cached = max(((common_prefix(cached.ids, row), cached) for cached in neighbours), key=lambda pair: pair[0])
        return cached, min(count, len(row) - 1)


def holds_every_position(past: Any) -> TypeGuard[DynamicCache]:
    """Returns whether a cache holds keys and values of all positions, one by one (no windows, running states, shared layers)."""
    return type(past) is DynamicCache and all(type(layer) is DynamicLayer and layer.is_initialized for layer in past.layers)


def joined(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Returns one cache over the rows of several that hold every position; their padding comes to lie on the left."""
    whole = DynamicCache()
    length = max(int(cache.get_seq_length()) for cache in caches)
    for number in range(len(caches[0].layers)):
        layers: list[Any] = [cache.layers[number] for cache in caches]
        keys = [row for layer in layers for row in layer.keys]
        values = [row for layer in layers for row in layer.values]
        whole.update(_stack(keys, length, layers[0].keys), _stack(values, length, layers[0].values), number)
    return whole


def _ids(cached: CachedRow) -> tuple[int, ...]:
    return cached.ids


def _stack(parts: Sequence[Tensor], length: int, like: Tensor) -> Tensor:
    """Returns parts [H, S_i, D] as one tensor [B, H, length, D], padded on the left."""
    whole = like.new_zeros(len(parts), like.shape[-3], length, like.shape[-1])
    for i, part in enumerate(parts):
        whole[i, :, length - part.shape[1] :] = part
    return whole
