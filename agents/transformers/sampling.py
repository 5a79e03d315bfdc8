"""Samples continuations of a batch of token ids, each row from random numbers of its own.

A loop of its own rather than ``model.generate``: rows stop one by one and leave the batch, log-probabilities are taken from
the very logits that were sampled from, and what a row draws depends on its seed alone, not on the other rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from swirl_env.agents.transformers.interfaces import CausalLM, unwrapped
from swirl_env.agents.transformers.prefix_cache import PrefixCache, holds_every_position
from swirl_env.agents.transformers.small_llama import small_llama
from swirl_env.kv_cache import attends_to_all, cache_of
from swirl_env.sequences import common_prefix

_WORTH_SHARING = 16
"""A common beginning of fewer ids than this is read by each row for itself."""


class Request(NamedTuple):
    """One row to continue."""

    ids: Sequence[int]
    """What to continue, [S]."""
    limit: int
    """Most tokens to sample."""
    ended: Callable[[list[int]], bool]
    """Gets the sampled ids after each one; True ends the row."""
    seed: int = 0
    stop: Sequence[str] = ()
    """Texts that end the row early if one of them is written: a hint for servers; `ended` decides."""


class Generation(NamedTuple):
    """What was sampled for one row."""

    ids: list[int]
    """[T]"""
    logprobs: list[float]
    """Log-probability (nats) of each id under the model's own distribution, temperature 1 and nothing cut off, [T]."""
    behaviour: list[float]
    """The same under the distribution that was sampled from, [T]; empty if that is the model's own."""
    truncated: bool = False
    """Whether the limit on tokens cut the row off before it ended."""


class Sampling(NamedTuple):
    """How tokens are drawn."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens that has this probability; 1 for all."""
    barred: Tensor | None = None
    """Tokens that are never drawn, [V] of booleans. The log-probs count them in, as those of training do."""


PLAIN = Sampling()
"""From the model's own distribution."""


class LMCache(Protocol):
    """Keys and values (or running states) of a batch, as transformers' models return them."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Takes rows by their indices."""
        ...


@torch.inference_mode()
def generate(
    model: CausalLM, requests: Sequence[Request], sampling: Sampling = PLAIN, prefixes: PrefixCache | None = None
) -> list[Generation]:
    """Continues all rows together.

    Args:
        model: a causal LM of transformers (or one wrapped by peft).
        requests: the rows, best of similar length: shorter ones are padded on the left.
        sampling: how tokens are drawn.
        prefixes: what was read for rows before these; gets what is read for them.
    """
    done = [Generation([], [], []) for _ in requests]
    alive = [i for i, request in enumerate(requests) if request.limit > 0]
    if not alive:
        return done
    steps = max(requests[i].limit for i in alive)
    tempered = sampling.temperature != 1 or sampling.top_p < 1
    # Samples of one state have one prompt: it is read once, and its cache and logits are handed to all of them.
    rows = list(dict.fromkeys(tuple(requests[i].ids) for i in alive))
    number = {row: i for i, row in enumerate(rows)}
    spread = torch.tensor([number[tuple(requests[i].ids)] for i in alive], device=model.device)  # [B]
    small = small_llama(model)
    cache, read = _begin(model, rows, prefixes, None if small is None else steps)
    ids, mask = _pad_left(rows, read, steps, model.device)  # [U, S], [U, R + S + T]
    draws = torch.stack([_draws(requests[i].seed, steps) for i in alive]).to(model.device)  # [B, T]
    length = mask.shape[1] - steps
    # Positions count the ids of a row alone: padding shifts where a row lies in the batch, not what the model sees of it.
    position = mask[:, :length].cumsum(-1).sub_(1).clamp_(min=0)[:, -ids.shape[1] :]  # [U, S]
    forward = _forward(model) if small is None else cast(Forward, small.up_to(mask.shape[1]))
    for t in range(steps):
        # The mask covers what the cache holds and the new ids; its columns for tokens to come are ones already, as padding is
        # on the left alone. After the first pass each row adds one id: what it drew in the step before.
        logits, cache = forward(ids, mask[:, : length + t], position, cache)  # [B, V]
        if t == 0 and len(rows) < len(alive):
            select_rows(cache, spread)
            logits, mask, position = logits[spread], mask[spread], position[spread]
        tokens, logprobs, behaviour = choose(logits, draws[:, t], sampling)  # [B] each
        going = []
        columns = (alive, tokens.tolist(), logprobs.tolist(), behaviour.tolist())
        for row, (i, token, logprob, drawn) in enumerate(zip(*columns, strict=True)):
            done[i].ids.append(token)
            done[i].logprobs.append(logprob)
            if tempered:
                done[i].behaviour.append(drawn)
            ended = requests[i].ended(done[i].ids)
            if not ended and len(done[i].ids) < requests[i].limit:
                going.append(row)
                continue
            done[i] = done[i]._replace(truncated=not ended)
            if prefixes is not None:
                # The last id was drawn and not read, so the cache ends with the one before it.
                prefixes.keep((*requests[i].ids, *done[i].ids[:-1]), cache, row, mask[row, : length + t])
        if not going:
            break
        position = position[:, -1:] + 1
        ids = tokens[:, None]
        if len(going) < len(alive):
            # Rows that ended leave the batch at once: what is left is work for rows that go on, and the draws stay each row's.
            rest = torch.tensor(going, device=model.device)
            select_rows(cache, rest)
            ids, mask, position, draws = ids[rest], mask[rest], position[rest], draws[rest]
            alive = [alive[row] for row in going]
    return done


def choose(logits: Tensor, draws: Tensor, sampling: Sampling = PLAIN) -> tuple[Tensor, Tensor, Tensor]:
    """Picks a token per row by inverting the cumulative distribution at a uniform draw.

    Args:
        logits: [B, V].
        draws: uniform in [0, 1), [B].
        sampling: how tokens are drawn.

    Returns:
        Tokens, [B]; their log-probabilities at temperature 1 without a cut, [B]; and those under the distribution that was
        sampled from, [B].
    """
    temperature, top_p, barred = sampling
    logits = logits.float()
    logp = torch.log_softmax(logits, dim=-1)  # [B, V]
    open_logits = logits if barred is None else logits.masked_fill(barred, -torch.inf)
    if temperature == 0:
        tokens = open_logits.argmax(-1)
        return tokens, _pick(logp, tokens), torch.zeros_like(tokens, dtype=logp.dtype)  # nothing else could be drawn
    if barred is None and temperature == 1:
        p = logp.exp()
    else:
        p = torch.softmax(open_logits / temperature, dim=-1)
    if top_p < 1:
        p = _nucleus(p, top_p)
    tokens = _invert(p, draws)
    logprobs = _pick(logp, tokens)
    if top_p < 1:
        return tokens, logprobs, _pick(p, tokens).log() - p.sum(-1).log()
    return tokens, logprobs, logprobs if temperature == 1 else _pick(torch.log_softmax(logits / temperature, -1), tokens)


def select_rows(cache: LMCache, rows: Tensor) -> None:
    """Keeps the rows of a cache that `rows` [B'] names, in this order; in place.

    By `reorder_cache`, as layers with running states have no ``batch_select_indices``.
    """
    cache.reorder_cache(rows)


def _pick(values: Tensor, tokens: Tensor) -> Tensor:
    """Returns each row's value at its token, [B]."""
    return values.gather(-1, tokens[:, None]).squeeze(-1)


def _invert(p: Tensor, draws: Tensor) -> Tensor:
    """Returns the first token at which the cumulative sum of `p` [B, V] exceeds the draw [B] of its total."""
    # In blocks: the running sum over a whole vocabulary in float32 would lose the rare tokens at its end.
    size = 256
    if p.shape[-1] % size:
        p = torch.nn.functional.pad(p, (0, -p.shape[-1] % size))
    p = p.reshape(len(p), -1, size)  # [B, N, 256]
    blocks = p.sum(-1).cumsum(-1)  # [B, N]
    target = draws.to(p.dtype)[:, None] * blocks[:, -1:]  # [B, 1]
    block = torch.searchsorted(blocks, target, right=True).clamp_(max=blocks.shape[-1] - 1)  # [B, 1]
    before = torch.nn.functional.pad(blocks, (1, 0)).gather(-1, block)  # [B, 1]: the sum of the blocks before
    inside = p.gather(1, block[..., None].expand(-1, 1, size)).squeeze(1)  # [B, 256]
    offset = torch.searchsorted(inside.cumsum(-1), target - before, right=True)  # [B, 1]
    if bool((offset == size).any()):
        # Rounding can carry the target past the block's end: the last token of the block that has any probability.
        last = (inside > 0).long().mul(torch.arange(size, device=p.device)).argmax(-1, keepdim=True)
        offset = torch.minimum(offset, last)
    return (block * size + offset).squeeze(-1)


def _nucleus(p: Tensor, top_p: float) -> Tensor:
    ranked, order = p.sort(dim=-1, descending=True)  # [B, V]
    # A token stays as long as those before it have less than top_p: the first always does.
    ranked[ranked.cumsum(-1) - ranked >= top_p] = 0.0
    return torch.zeros_like(p).scatter_(-1, order, ranked)


def _draws(seed: int, n: int) -> Tensor:
    """Returns n uniform numbers, [T]; drawn on the CPU, so that every device samples alike."""
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def _begin(
    model: CausalLM, rows: Sequence[tuple[int, ...]], prefixes: PrefixCache | None, small: int | None
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


def _read_shared(model: CausalLM, rows: Sequence[tuple[int, ...]]) -> tuple[LMCache, list[int]] | None:
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


Forward = Callable[[Tensor, Tensor, Tensor, "LMCache | None"], tuple[Tensor, LMCache]]


def _forward(model: CausalLM) -> Forward:
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
