"""Samples continuations of a batch of token ids, each row from random numbers of its own.

A loop of its own rather than ``model.generate``: rows stop one by one and leave the batch, log-probabilities are taken from
the very logits that were sampled from, and what a row draws depends on its seed alone, not on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from swirl_env.agents.transformers.interfaces import CausalLM
from swirl_env.agents.transformers.prefix_cache import PrefixCache
from swirl_env.agents.transformers.reading import Forward, LMCache, forward_of, read_rows
from swirl_env.agents.transformers.small_llama import small_llama


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
    small = small_llama(model)
    rows, (logits, cache, mask, position) = read_rows(model, small, rows, steps, prefixes)
    number = {row: place for place, row in enumerate(rows)}
    alive.sort(key=lambda i: number[tuple(requests[i].ids)])
    length = mask.shape[1] - steps
    if len(rows) < len(alive):
        spread = torch.tensor([number[tuple(requests[i].ids)] for i in alive], device=model.device)  # [B]
        select_rows(cache, spread)
        logits, mask, position = logits[spread], mask[spread], position[spread]
    draws = torch.stack([_draws(requests[i].seed, steps) for i in alive]).to(model.device)  # [B, T]
    forward = forward_of(model) if small is None else cast(Forward, small)
    for t in range(steps):
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
        ids = tokens[:, None]
        if len(going) < len(alive):
            # Rows that ended leave the batch at once: what is left is work for rows that go on, and the draws stay each row's.
            rest = torch.tensor(going, device=model.device)
            select_rows(cache, rest)
            ids, mask, position, draws = ids[rest], mask[rest], position[rest], draws[rest]
            alive = [alive[row] for row in going]
        position = position + 1
        logits, cache = forward(ids, mask[:, : length + t + 1], position, cache)  # [B, V]
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
