"""Samples continuations of a batch of token ids, each row from random numbers of its own.

A loop of its own rather than ``model.generate``: rows stop one by one and leave the batch, log-probabilities are taken from
the very logits that were sampled from, and what a row draws depends on its seed alone and not on the rows beside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from swirl_env.agents.transformers.prefix_cache import PrefixCache
from swirl_env.sequences import common_prefix

_WORTH_SHARING = 16
"""Fewer ids than this that all rows begin with are read by each row for itself."""


class Request(NamedTuple):
    """One row to continue."""

    ids: Sequence[int]
    """What to continue, [S]."""
    limit: int
    """Most tokens to sample."""
    ended: Callable[[list[int]], bool]
    """Told the sampled ids after each one; True ends the row."""
    seed: int = 0


class Generation(NamedTuple):
    """What was sampled for one row."""

    ids: list[int]
    """[T]"""
    logprobs: list[float]
    """Log-probability (nats) of each id under the model's own distribution, temperature 1 and nothing cut off, [T]."""
    behaviour: list[float]
    """The same under the distribution that was sampled from, [T]; empty if that is the model's own."""


@torch.inference_mode()
def generate(
    model: Any, requests: Sequence[Request], temperature: float = 1.0, top_p: float = 1.0, kept: PrefixCache | None = None
) -> list[Generation]:
    """Continues all rows together.

    Args:
        model: a causal LM of transformers (or one wrapped by peft).
        requests: the rows, best of similar length: shorter ones are padded on the left.
        temperature: 0 takes the likeliest token.
        top_p: sample from the smallest set of tokens that has this probability.
        kept: what was read for the rows before these; gets what is read for them.
    """
    done = [Generation([], [], []) for _ in requests]
    alive = [i for i, request in enumerate(requests) if request.limit > 0]
    if not alive:
        return done
    steps = max(requests[i].limit for i in alive)
    tempered = temperature != 1 or top_p < 1
    # Samples of one state have one prompt: it is read once, and its cache and logits are handed to all of them.
    rows = list(dict.fromkeys(tuple(requests[i].ids) for i in alive))
    number = {row: i for i, row in enumerate(rows)}
    spread = torch.tensor([number[tuple(requests[i].ids)] for i in alive], device=model.device)  # [B]
    cache, read = _begin(model, rows, kept)
    cache_option = _cache_option(model)
    ids, mask = _pad_left(rows, read, steps, model.device)  # [U, S], [U, R + S + T]
    draws = torch.stack([_draws(requests[i].seed, steps) for i in alive]).to(model.device)  # [B, T]
    length = mask.shape[1] - steps
    position = mask[:, :length].cumsum(-1).sub_(1).clamp_(min=0)[:, -ids.shape[1] :]  # [U, S]
    for t in range(steps):
        out = model(
            input_ids=ids,
            attention_mask=mask[:, : length + t],
            position_ids=position,
            use_cache=True,
            logits_to_keep=1,
            **{cache_option: cache},
        )
        cache, logits = _cache_of(out), out.logits[:, -1]
        if t == 0 and len(rows) < len(alive):
            cache.batch_select_indices(spread)
            logits, mask, position = logits[spread], mask[spread], position[spread]
        tokens, logprobs, behaviour = choose(logits, draws[:, t], temperature, top_p)  # [B] each
        going = []
        columns = (alive, tokens.tolist(), logprobs.tolist(), behaviour.tolist())
        for row, (i, token, logprob, drawn) in enumerate(zip(*columns, strict=True)):
            done[i].ids.append(token)
            done[i].logprobs.append(logprob)
            if tempered:
                done[i].behaviour.append(drawn)
            if len(done[i].ids) < requests[i].limit and not requests[i].ended(done[i].ids):
                going.append(row)
            elif kept is not None:
                kept.keep((*requests[i].ids, *done[i].ids[:-1]), cache, row, mask[row, : length + t])
        if not going:
            break
        position = position[:, -1:] + 1
        ids = tokens[:, None]
        if len(going) < len(alive):
            keep = torch.tensor(going, device=model.device)
            cache.batch_select_indices(keep)
            ids, mask, position, draws = ids[keep], mask[keep], position[keep], draws[keep]
            alive = [alive[row] for row in going]
    return done


def choose(logits: Tensor, draws: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Picks a token per row by inverting the cumulative distribution at a uniform draw.

    Args:
        logits: [B, V].
        draws: uniform in [0, 1), [B].
        temperature: 0 takes the likeliest token.
        top_p: sample from the smallest set of tokens that has this probability.

    Returns:
        Tokens, [B]; their log-probabilities at temperature 1 without a cut, [B]; and those under the distribution that was
        sampled from, [B].
    """
    logits = logits.float()
    logp = torch.log_softmax(logits, dim=-1)  # [B, V]
    if temperature == 0:
        tokens = logp.argmax(-1)
        return tokens, _pick(logp, tokens), torch.zeros_like(tokens, dtype=logp.dtype)  # nothing else could be drawn
    p = logp.exp() if temperature == 1 else torch.softmax(logits / temperature, dim=-1)
    if top_p < 1:
        p = _nucleus(p, top_p)
    tokens = _invert(p, draws)
    logprobs = _pick(logp, tokens)
    if temperature == 1 and top_p == 1:
        return tokens, logprobs, logprobs
    return tokens, logprobs, _pick(p, tokens).log() - p.sum(-1).log()


def _pick(values: Tensor, tokens: Tensor) -> Tensor:
    """Returns each row's value at its token, [B]."""
    return values.gather(-1, tokens[:, None]).squeeze(-1)


def _invert(p: Tensor, draws: Tensor) -> Tensor:
    """Returns the first token at which the cumulative sum of `p` [B, V] exceeds the draw [B] of its total."""
    # In blocks: the running sum over a whole vocabulary in float32 would lose the rare tokens at its end.
    size = 256
    p = torch.nn.functional.pad(p, (0, -p.shape[-1] % size)).reshape(len(p), -1, size)  # [B, N, 256]
    blocks = p.sum(-1).cumsum(-1)  # [B, N]
    target = draws.to(p.dtype)[:, None] * blocks[:, -1:]  # [B, 1]
    block = torch.searchsorted(blocks, target, right=True).clamp_(max=blocks.shape[-1] - 1)  # [B, 1]
    before = torch.where(block > 0, blocks.gather(-1, (block - 1).clamp(min=0)), 0.0)
    inside = p.gather(1, block[..., None].expand(-1, 1, size)).squeeze(1)  # [B, 256]
    offset = torch.searchsorted(inside.cumsum(-1), target - before, right=True)  # [B, 1]
    # Rounding can carry the target past the block's end: the last token of the block that has any probability.
    last = (inside > 0).long().mul(torch.arange(size, device=p.device)).argmax(-1, keepdim=True)
    return (block * size + torch.minimum(offset, last)).squeeze(-1)


def _nucleus(p: Tensor, top_p: float) -> Tensor:
    ranked, order = p.sort(dim=-1, descending=True)  # [B, V]
    # A token stays as long as those before it have less than top_p: the first always does.
    ranked[ranked.cumsum(-1) - ranked >= top_p] = 0.0
    return torch.zeros_like(p).scatter_(-1, order, ranked)


def _draws(seed: int, n: int) -> Tensor:
    """Returns n uniform numbers, [T]; drawn on the CPU, so that every device samples alike."""
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def _begin(model: Any, rows: Sequence[tuple[int, ...]], kept: PrefixCache | None) -> tuple[Any, list[int]]:
    """Returns a cache over the rows, of what need not be read for each of them, and how many ids of each it holds.

    None and zeros where that would not pay, or where the model looks back over a window: the padding that comes to stand
    between would count as part of it.
    """
    nothing = None, [0] * len(rows)
    if not _looks_back_on_all(model.config):
        return nothing
    if kept is not None and (found := kept.find(rows, _WORTH_SHARING)) is not None:
        return found
    return _read_shared(model, rows) or nothing


def _read_shared(model: Any, rows: Sequence[tuple[int, ...]]) -> tuple[Any, list[int]] | None:
    """Reads what all rows begin with once instead of once a row; None where that would not pay.

    Prompts share their instructions, and samples of one state all of it: more than half of the reading, mostly.
    """
    # What the first and the last of them share, all share. One id must be left to read for each row.
    shared = min(common_prefix(min(rows), max(rows)), min(map(len, rows)) - 1)
    if len(rows) == 1 or shared < _WORTH_SHARING:
        return None
    out = model(input_ids=torch.tensor([rows[0][:shared]], device=model.device), use_cache=True, logits_to_keep=1)
    cache = _cache_of(out)
    if type(cache) is not DynamicCache:
        return None
    cache.batch_repeat_interleave(len(rows))
    return cache, [shared] * len(rows)


def _cache_option(model: Any) -> str:
    """Returns the name under which the model's forward takes keys and values: newer transformers renamed it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # what peft wrapped
    return "cache" if "cache" in inspect.signature(type(base).forward).parameters else "past_key_values"


def _cache_of(out: Any) -> Any:
    """Returns the keys and values of a forward pass, whichever name this version of transformers gives them."""
    return out.cache if hasattr(out, "cache") else out.past_key_values


def _looks_back_on_all(config: Any) -> bool:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    kinds = getattr(text, "layer_types", None)
    if kinds is not None:
        return all(kind == "full_attention" for kind in kinds)
    return getattr(text, "sliding_window", None) is None


def _pad_left(rows: Sequence[Sequence[int]], read: Sequence[int], after: int, device: Any) -> tuple[Tensor, Tensor]:
    """Returns what is left to read of rows of which `read` ids each were, on the left of it padding, of the ids read too.

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
