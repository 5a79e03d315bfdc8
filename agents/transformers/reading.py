"""What is read of prompts before the first token is drawn: what is cached of a row, or all rows share, is not read again.

Of what is left, rows with alike many ids are read together, as the others are padded to the longest of them: next to a row
that begins an episode, one that goes on with a tool's reply would be read at several times its length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

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


_WORTH_SPLITTING = 64
"""Rows with fewer ids than this to read are read together, however few some of them have: a pass costs as much by itself."""


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
    model: CausalLM, small: SmallLlama | None, groups: Sequence[Sequence[Row]], room: int, prefixes: PrefixCache | None
) -> Read:
    """Reads the rows of all groups, each group at once.

    Args:
        model: the model.
        small: its passes, if it is a small one; they read one group.
        groups: the rows, none of them twice.
        room: most ids that are to come behind each row.
        prefixes: what was read for rows before these.
    """
    parts = [_read_group(model, small, rows, room, prefixes) for rows in groups]
    if len(parts) == 1:
        return parts[0]
    width = max(part.mask.shape[1] for part in parts)
    logits, caches, masks, positions = zip(*parts, strict=True)
    mask = torch.cat([pad(mask, (width - mask.shape[1], 0)) for mask in masks])
    return Read(torch.cat(logits), cast(LMCache, joined(caches)), mask, torch.cat(positions))


def alike(rows: Sequence[Row], prefixes: PrefixCache | None) -> list[list[Row]]:
    """Returns the rows in groups, so that none is padded to much over twice the ids that are left to read of it.

    Only rows of which something is cached are told apart: their caches can be joined again.
    """
    spared = None if prefixes is None else prefixes.spared(rows, _WORTH_SHARING)
    if spared is None:
        return [list(rows)]
    left = {row: len(row) - count for row, count in zip(rows, spared, strict=True)}
    groups: list[list[Row]] = []
    most = 0
    for row in sorted(rows, key=lambda row: left[row]):
        if left[row] > most:
            groups.append([])
            most = max(2 * left[row], _WORTH_SPLITTING)
        groups[-1].append(row)
    return groups


def _read_group(model: CausalLM, small: SmallLlama | None, rows: Sequence[Row], room: int, prefixes: PrefixCache | None) -> Read:
    cache, read = _begin(model, rows, prefixes, None if small is None else room)
    ids, mask = _pad_left(rows, read, room, model.device)  # [U, S], [U, P + T]
    length = mask.shape[1] - room
    position = mask[:, :length].cumsum(-1).sub_(1).clamp_(min=0)[:, -ids.shape[1] :]  # [U, S]
    forward = forward_of(model) if small is None else cast(Forward, small.up_to(mask.shape[1]))
    logits, cache = forward(ids, mask[:, :length], position, cache)
    return Read(logits, cache, mask, position[:, -1:])


def _begin(
    model: CausalLM, rows: Sequence[Row], prefixes: PrefixCache | None, small: int | None
) -> tuple[LMCache | None, list[int]]:
    """Returns a cache of what need not be read for each row, and how many ids of each it holds.

    For the passes of a small model it may be a small one, with room for `small` ids more than are to be read.

    None and zeros if that would not pay, or if the model looks back over a window or keeps a running state: the padding that
    would come to lie between the cached ids and the new ones would count as part of it.
    """
    nothing = None, [0] * len(rows)
    if not attends_to_all(model.config):
        return nothing
    if prefixes is not None and (cached := prefixes.lookup(rows, _WORTH_SHARING, small)) is not None:
        return cast(LMCache, cached[0]), cached[1]
    return _read_shared(model, rows) or nothing


def _read_shared(model: CausalLM, rows: Sequence[Row]) -> tuple[LMCache, list[int]] | None:
    """Reads the common beginning of all rows once instead of once per row; None if that would not pay.

    Prompts share their instructions, and samples of one state all of it: more than half of the reading, mostly.
    """
    # What the first and the last of them share, all share. One id must be left to read for each row.
    shared = min(common_prefix(min(rows), max(rows)), min(map(len, rows)) - 1)
    if len(rows) == 1 or shared < _WORTH_SHARING:
        return None
    out = model(input_ids=torch.tensor([rows[0][:shared]], device=model.device), use_cache=True, logits_to_keep=1)
    cache = cache_of(out)
    if not holds_every_position(cache):
        return None
    cache.batch_repeat_interleave(len(rows))
    return cast(LMCache, cache), [shared] * len(rows)


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
        out = model(**inputs, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], cache_of(out)

    return forward


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
