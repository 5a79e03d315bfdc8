"""What is read of prompts before the first token is drawn: what is cached of a row, or all rows share, is not read again.

Of what is left, rows with alike many ids are read together, as the others are padded to the longest of them: next to a row
that begins an episode, one that goes on with a tool's reply would be read at several times its length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from swirl_env.agents.transformers.interfaces import CausalLM, unwrapped
from swirl_env.agents.transformers.prefix_cache import PrefixCache, holds_every_position, joined
from swirl_env.agents.transformers.small_llama import SmallLlama
from swirl_env.kv_cache import attends_to_all, cache_of
from swirl_env.sequences import common_prefix

_WORTH_SHARING = 16
"""A common beginning of fewer ids than this is read by each row for itself."""
_PASS = 256
"""Ids that could be read in the time that a forward pass takes however few it reads; on a CPU fewer, on a GPU more."""


class LMCache(Protocol):
    """Keys and values (or running states) of a batch, as transformers' models return them."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Takes rows by their indices."""
        ...


Row = tuple[int, ...]
"""Ids of a prompt, [S]."""
Forward = Callable[[Tensor, Tensor, Tensor, LMCache | None], tuple[Tensor, LMCache]]
"""A model as a function of ids, mask, positions and cache that gives the last logits, [B, V], and the cache."""


class Read(NamedTuple):
    """Rows that were read to their last id."""

    logits: Tensor
    """Behind the last id of each, [U, V]."""
    cache: LMCache
    """Of P positions."""
    mask: Tensor
    """Over these and the T that are to come, [U, P + T]: zero at padding, which is on the left alone, else one."""
    position: Tensor
    """Of the last id in its row, [U, 1]: padding shifts where a row lies in the batch, not what the model sees of it."""


def read_rows(
    model: CausalLM, small: SmallLlama | None, rows: Sequence[Row], room: int, prefixes: PrefixCache | None
) -> tuple[list[Row], Read]:
    """Reads rows; returns them in the order in which they stand in what was read, and that.

    Args:
        model: the model.
        small: its passes, if it is a small one.
        rows: none of them twice.
        room: most ids that are to come behind each row.
        prefixes: what was read for rows before these.
    """
    held = _held(model, rows, prefixes)
    # Caches with beginnings of rows can be joined; and nothing is gained where padding costs next to nothing.
    groups = [rows] if held is None or small is not None else [[rows[i] for i in group] for group in alike(held.left(rows))]
    parts = [_read_group(model, small, group, room, held) for group in groups]
    order = [row for group in groups for row in group]
    if len(parts) == 1:
        return order, parts[0]
    width = max(part.mask.shape[1] for part in parts)
    logits, caches, masks, positions = zip(*parts, strict=True)
    mask = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])
    return order, Read(torch.cat(logits), cast(LMCache, joined(caches)), mask, torch.cat(positions))


def alike(left: Sequence[int]) -> list[list[int]]:
    """Returns which rows are best read together: with the fewest ids in all, padding included, and `_PASS` for each pass.

    Args:
        left: how many ids are to be read of each row.
    """
    order = sorted(range(len(left)), key=left.__getitem__)
    costs, starts = [0], [0]  # of the first n rows in this order; where the last of their groups begins
    for end in range(1, len(order) + 1):
        widest = left[order[end - 1]]
        cost, start = min((costs[start] + (end - start) * widest, start) for start in range(end))
        costs.append(cost + _PASS)
        starts.append(start)
    groups, end = [], len(order)
    while end:
        groups.append(order[starts[end] : end])
        end = starts[end]
    return groups[::-1]


def _read_group(model: CausalLM, small: SmallLlama | None, rows: Sequence[Row], room: int, held: PrefixCache | None) -> Read:
    found = None if held is None else held.lookup(rows, 1, None if small is None else room)
    cache, read = (None, [0] * len(rows)) if found is None else (cast(LMCache, found[0]), found[1])
    ids, mask = _pad_left(rows, read, room, model.device)  # [U, S], [U, P + T]
    length = mask.shape[1] - room
    position = mask[:, :length].cumsum(-1).sub_(1).clamp_(min=0)[:, -ids.shape[1] :]  # [U, S]
    forward = forward_of(model) if small is None else cast(Forward, small.up_to(mask.shape[1]))
    logits, cache = forward(ids, mask[:, :length], position, cache)
    return Read(logits, cache, mask, position[:, -1:])


def _held(model: CausalLM, rows: Sequence[Row], prefixes: PrefixCache | None) -> PrefixCache | None:
    """Returns what holds beginnings of rows that need not be read.

    None if that would not pay, or if the model looks back over a window or keeps a running state: the padding that would come
    to lie between the cached ids and the new ones would count as part of it.
    """
    if not attends_to_all(model.config):
        return None
    if prefixes is not None and prefixes.spares(rows, _WORTH_SHARING):
        return prefixes
    return _read_shared(model, rows)


def _read_shared(model: CausalLM, rows: Sequence[Row]) -> PrefixCache | None:
    """Reads the common beginning of all rows once instead of once per row; None if that would not pay.

    Prompts share their instructions, and samples of one state all of it: more than half of the reading, mostly.
    """
    # What the first and the last of them share, all share. One id must be left to read for each row.
    shared = min(common_prefix(min(rows), max(rows)), min(map(len, rows)) - 1)
    if len(rows) == 1 or shared < _WORTH_SHARING:
        return None
    beginning = torch.tensor([rows[0][:shared]], device=model.device)
    cache = cache_of(model(input_ids=beginning, use_cache=True, logits_to_keep=1))
    if not holds_every_position(cache):
        return None
    held = PrefixCache(shared)
    held.start_call(model)
    held.keep(rows[0][:shared], cache, 0, torch.ones_like(beginning[0]))
    held.start_call(model)
    return held


def forward_of(model: CausalLM) -> Forward:
    """Returns the model as a function of ids, mask, positions and cache that gives the last logits, [B, V], and the cache."""
    base = unwrapped(model)
    accepted = inspect.signature(type(base).forward).parameters
    cache_option = "cache" if "cache" in accepted else "past_key_values"  # newer transformers renamed it
    if "past_key_values" not in accepted and "cache_params" in accepted:  # the Mamba family
        cache_option = "cache_params"
    takes_positions = "position_ids" in accepted
    stateful = bool(getattr(base, "_is_stateful", False))

    def forward(ids: Tensor, mask: Tensor, position: Tensor, cache: LMCache | None) -> tuple[Tensor, LMCache]:
        inputs: dict[str, object] = {"input_ids": ids, "attention_mask": mask, cache_option: cache}
        if takes_positions:
            inputs["position_ids"] = position
        if stateful and len(ids) == 1:  # no padding: some of these models cannot take a mask longer than the new ids
            del inputs["attention_mask"]
        with _copied_input(base):
            out = model(**inputs, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], cache_of(out)

    return forward


@contextmanager
def _copied_input(base: Any) -> Iterator[None]:
    """Hands the output layer a copy of the last positions, where the library hands it a view of all.

    For such a view, torch copies the weights of a layer that is not trained (all of them, with an adapter) once per row: over
    half of the time of an episode of a 0.5B model with an adapter.
    """
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda module, inputs: tuple(value.contiguous() for value in inputs))
    try:
        yield
    finally:
        handle.remove()


def _pad_left(rows: Sequence[Sequence[int]], read: Sequence[int], after: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns what is left to read of rows after the first `read` ids of each, padded on the left, and the mask over all.

    Returns:
        Ids, [B, S], and the mask, [B, R + S + after], zero at the padding alone; R is the most ids that were read of a row.
    """
    before, length = max(read), max(len(row) - count for row, count in zip(rows, read, strict=True))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.ones(len(rows), before + length + after, dtype=torch.long)
    for i, (row, count) in enumerate(zip(rows, read, strict=True)):
        start = length - (len(row) - count)
        ids[i, start:] = torch.tensor(row[count:], dtype=torch.long)
        mask[i, : before - count] = 0
        mask[i, before : before + start] = 0
    return ids.to(device), mask.to(device)
