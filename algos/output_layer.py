"""Log-probabilities and entropies from last hidden states; the logits of a whole sequence never exist at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_VALUES = 1 << 23
"""Logits in memory at a time (32 MiB in float32): 32 positions of a vocabulary of 256k, all of a small one."""


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int = 0,
) -> Tensor:
    """Returns log softmax(scale * hidden @ weight.T + bias)[target] for each position, never holding all logits.

    Positions are taken in chunks, and the backward pass computes each chunk's logits again: memory is chunk x V instead of
    T x V. The products are taken in the weight's dtype, or in autocast's if it is on; all else in float32 at least.

    Args:
        hidden: [T, H] last hidden states at the positions that predict the action tokens.
        weight: [V, H] output embedding.
        targets: [T] token ids.
        bias: [V] or None.
        softcap: c for c * tanh(logits / c) (Gemma 2), or None.
        scale: factor on the logits (e.g. 1 / temperature).
        chunk: positions per chunk; 0 takes as many as give `CHUNK_VALUES` logits.

    Returns:
        [T] log-probabilities in float32 (float64 for a float64 weight).
    """
    return _chunked(hidden, weight, targets, bias, softcap, scale, chunk, entropy=False)[0]


def token_entropies(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int = 0,
) -> tuple[Tensor, Tensor]:
    """Returns what `token_logprobs` returns, and the entropy (nats) of each position's distribution, [T] each."""
    return _chunked(hidden, weight, targets, bias, softcap, scale, chunk, entropy=True)


def _chunked(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    scale: float,
    chunk: int,
    *,
    entropy: bool,
) -> tuple[Tensor, Tensor]:
    """Returns log-probs [T] and entropies ([T], or [0] if they are not asked for)."""
    device = weight.device.type
    autocast = torch.is_autocast_enabled(device) and weight.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype
    hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    chunk = chunk or max(1, CHUNK_VALUES // len(weight))
    outputs: tuple[Tensor, Tensor]
    outputs = _ChunkedLogprobs.apply(hidden, weight, bias, targets, softcap, scale, chunk, entropy)  # type: ignore[no-untyped-call]
    return outputs


class _ChunkedLogprobs(torch.autograd.Function):
    """Log-probs in chunks of positions; the backward pass computes each chunk's logits again instead of keeping them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        scale: float,
        chunk: int,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.rest = (softcap, scale, chunk, entropy)
        head = _Head(weight, bias, softcap, scale, rows=min(chunk, len(hidden)))
        logp = hidden.new_empty(len(hidden), dtype=head.dtype)
        entropies = hidden.new_empty(len(hidden) if entropy else 0, dtype=head.dtype)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = head.logits(hidden[part])
            target_logit = logits.gather(-1, targets[part, None])
            if entropy:
                entropies[part] = torch.special.entr(torch.softmax(logits, -1)).sum(-1)
            top = logits.amax(-1, keepdim=True)
            norm = logits.sub_(top).exp_().sum(-1, keepdim=True).log_().add_(top)
            logp[part] = (target_logit - norm).squeeze(-1)
        return logp, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, entropy_grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        softcap, scale, chunk, entropy = ctx.rest
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        head = _Head(weight, bias, softcap, scale, rows=min(chunk, len(hidden)))
        softmax = torch.empty_like(head.wide)
        d_hidden = torch.empty_like(hidden) if to_hidden else None
        # Many chunks add up in float32 at least; a single one is one product, rounded once.
        dtype = head.dtype if len(hidden) > chunk else weight.dtype
        d_weight = torch.zeros_like(weight, dtype=dtype) if to_weight else None
        d_bias = torch.zeros_like(bias, dtype=head.dtype) if to_bias else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = head.logits(hidden[part])
            # d log p_t / d logits = scale * (onehot_t - softmax)
            d_logits = torch.softmax(logits, -1, out=softmax[: len(logits)]).neg_()
            d_logits.scatter_add_(-1, targets[part, None], torch.ones_like(d_logits[:, :1]))
            d_logits.mul_((grad[part] * scale)[:, None])
            if entropy:  # d H / d logits = -scale * p (log p + H)
                p = torch.softmax(logits, -1)
                negative = torch.special.xlogy(p, p)
                d_logits.addcmul_(negative - p * negative.sum(-1, keepdim=True), -(entropy_grad[part] * scale)[:, None])
            if softcap is not None:
                d_logits.mul_(logits.div_(scale * softcap).square_().neg_().add_(1))  # 1 - tanh^2
            if d_bias is not None:
                d_bias += d_logits.sum(0)
            low = head.narrowed(d_logits)
            if d_hidden is not None:
                torch.mm(low, weight, out=d_hidden[part])
            if d_weight is not None:
                d_weight.addmm_((low if dtype == low.dtype else d_logits).T, hidden[part].to(dtype))
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None, None


class _Head:
    """The output layer, a chunk of positions at a time, in buffers that the next chunk overwrites.

    Fresh tensors for every chunk would do the same sums, but an allocator need not reuse blocks of this size once they are
    freed: with the C library's, resident memory grew to a multiple of them. Besides, autocast leaves products into a given
    buffer alone, so that the backward pass computes the same logits as the forward pass, be it on or off by then.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, softcap: float | None, scale: float, rows: int) -> None:
        self.weight, self.bias, self.softcap, self.scale = weight, bias, softcap, scale
        self.dtype = torch.promote_types(weight.dtype, torch.float32)
        self.wide = weight.new_empty(rows, len(weight), dtype=self.dtype)
        self.narrow = self.wide if weight.dtype == self.dtype else torch.empty_like(self.wide, dtype=weight.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns logits [rows, V] in float32 (float64 for float64), soft-capped, then scaled."""
        product = torch.mm(hidden, self.weight.T, out=self.narrow[: len(hidden)])
        logits = product if self.narrow is self.wide else self.wide[: len(hidden)].copy_(product)
        if self.bias is not None:
            logits.add_(self.bias)
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits.mul_(self.scale) if self.scale != 1.0 else logits

    def narrowed(self, values: Tensor) -> Tensor:
        """Returns values [rows, V] in the weight's dtype."""
        return values if self.narrow is self.wide else self.narrow[: len(values)].copy_(values)
