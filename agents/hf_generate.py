"""Samples continuations of a batch of token ids, each row from random numbers of its own.

A loop of its own rather than ``model.generate``: rows stop one by one and leave the batch, log-probabilities are taken from
the very logits that were sampled from, and what a row draws depends on its seed alone and not on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


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


@torch.inference_mode()
def generate(model: Any, requests: Sequence[Request], temperature: float = 1.0, top_p: float = 1.0) -> list[Generation]:
    """Continues all rows together.

    Args:
        model: a causal LM of transformers (or one wrapped by peft).
        requests: the rows, best of similar length: shorter ones are padded on the left.
        temperature: 0 takes the likeliest token.
        top_p: sample from the smallest set of tokens that has this probability.
    """
    done = [Generation([], []) for _ in requests]
    alive = [i for i, request in enumerate(requests) if request.limit > 0]
    if not alive:
        return done
    steps = max(requests[i].limit for i in alive)
    ids, mask = _pad_left([requests[i].ids for i in alive], steps, model.device)  # [B, S], [B, S + T]
    draws = torch.stack([_draws(requests[i].seed, steps) for i in alive]).to(model.device)  # [B, T]
    length = ids.shape[1]
    position = mask[:, :length].long().cumsum(-1).sub_(1).clamp_(min=0)  # [B, S]
    cache = None
    for t in range(steps):
        out = model(
            input_ids=ids,
            attention_mask=mask[:, : length + t],
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        tokens, logprobs = choose(out.logits[:, -1], draws[:, t], temperature, top_p)  # [B], [B]
        going = []
        for row, (i, token, logprob) in enumerate(zip(alive, tokens.tolist(), logprobs.tolist(), strict=True)):
            done[i].ids.append(token)
            done[i].logprobs.append(logprob)
            if len(done[i].ids) < requests[i].limit and not requests[i].ended(done[i].ids):
                going.append(row)
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


def choose(logits: Tensor, draws: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Picks a token a row by inverting the cumulative distribution at a uniform draw.

    Args:
        logits: [B, V].
        draws: uniform in [0, 1), [B].
        temperature: 0 takes the likeliest token.
        top_p: sample from the smallest set of tokens that has this probability.

    Returns:
        Tokens, [B], and their log-probabilities at temperature 1 without a cut, [B].
    """
    logits = logits.float()
    logp = torch.log_softmax(logits, dim=-1)  # [B, V]
    if temperature == 0:
        tokens = logp.argmax(-1)
    else:
        p = logp.exp() if temperature == 1 else torch.softmax(logits / temperature, dim=-1)
        tokens = _invert(_nucleus(p, top_p) if top_p < 1 else p, draws)
    return tokens, logp.gather(-1, tokens[:, None]).squeeze(-1)


def _invert(p: Tensor, draws: Tensor) -> Tensor:
    """Returns the first token at which the cumulative sum of `p` [B, V] exceeds the draw [B] of its total."""
    # In blocks: the running sum over a whole vocabulary in float32 would lose the rare tokens at its end.
    size = 256
    p = torch.nn.functional.pad(p, (0, -p.shape[-1] % size)).unflatten(-1, (-1, size))  # [B, N, 256]
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


def _pad_left(rows: Sequence[Sequence[int]], more: int, device: Any) -> tuple[Tensor, Tensor]:
    """Returns ids [B, S] padded on the left, and the mask [B, S + more] with ones for all that follows."""
    length = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.ones(len(rows), length + more, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, length - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, : length - len(row)] = 0
    return ids.to(device), mask.to(device)
