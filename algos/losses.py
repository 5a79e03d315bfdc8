"""Losses over the sampled tokens of steps: pure functions of log-probabilities.

Shapes: T action tokens of N steps, flat. ``step`` [T] says which of the N steps a token belongs to. ``count`` is the number
N of valid steps of the *global* batch (not of the micro-batch at hand), so that sums over micro-batches, processes and packed
rows add up to the one loss

    L = - 1/N * sum_i A_i log pi(a_i | s_i) + beta * KL(pi || pi_ref),    log pi(a_i | s_i) = sum over a_i's sampled tokens.

Steps that are not valid have advantage 0 and are not counted. Passing the number of episodes as ``count`` instead gives the
gradient of the expected episode sum without the ratio bias of a random N.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Reduction = Literal["sum", "mean"]
KlEstimator = Literal["k1", "k2", "k3"]
CHUNK_VALUES = 1 << 23
"""Logits held at a time (32 MiB in float32): 32 positions of a vocabulary of 256k, all of a small one."""


def step_sums(values: Tensor, step: Tensor, n: int, reduction: Reduction = "sum") -> Tensor:
    """Returns the sum (or mean) of token values over each step.

    Args:
        values: [T].
        step: [T] index of the step, 0 to n - 1.
        n: number of steps.
        reduction: ``sum``, or ``mean`` over the step's tokens (a step without tokens gives 0).

    Returns:
        [n].
    """
    total = values.new_zeros(n).index_add(0, step, values)
    if reduction == "sum":
        return total
    tokens = torch.bincount(step, minlength=n).clamp(min=1)
    return total / tokens.to(total.dtype)


def policy_gradient(logprobs: Tensor, step: Tensor, advantages: Tensor, count: float, *, reduction: Reduction = "sum") -> Tensor:
    """L = - 1/count * sum_i A_i log pi(a_i | s_i) (REINFORCE, Williams 1992; SWiRL with A_i = R_i).

    Args:
        logprobs: [T] log pi of each sampled token (nats), with gradient.
        step: [T] step of each token.
        advantages: [N].
        count: valid steps of the global batch.
        reduction: token sum (the objective's own), or token mean.

    Returns:
        Scalar.
    """
    return -(advantages * step_sums(logprobs, step, len(advantages), reduction)).sum() / count


def ppo_clip(
    logprobs: Tensor,
    behaviour: Tensor,
    step: Tensor,
    advantages: Tensor,
    count: float,
    *,
    clip: float = 0.2,
    reduction: Reduction = "sum",
) -> Tensor:
    """L = - 1/count * sum over tokens of min(r A, clamp(r, 1 - clip, 1 + clip) A), r = pi / pi_behaviour a token.

    Source: Schulman et al. 2017, eq. 7, with the step's advantage for each of its tokens. At r = 1 its gradient is that of
    `policy_gradient`.

    Args:
        logprobs: [T] log pi now, with gradient.
        behaviour: [T] log-probs under which the tokens were sampled.
        step: [T].
        advantages: [N].
        count: valid steps of the global batch.
        clip: half-width of the trusted ratio.
        reduction: token sum or token mean within a step.

    Returns:
        Scalar.
    """
    ratio = torch.exp(logprobs - behaviour)
    gain = advantages[step]
    value = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    return -step_sums(value, step, len(advantages), reduction).sum() / count


def kl_penalty(
    logprobs: Tensor,
    reference: Tensor,
    step: Tensor,
    valid: Tensor,
    count: float,
    *,
    estimator: KlEstimator = "k2",
    reduction: Reduction = "sum",
) -> Tensor:
    """Estimates 1/count * sum_i KL(pi || pi_ref) at s_i from the sampled tokens.

    With d = log pi - log pi_ref a token (values: Schulman, "Approximating KL divergence", 2020):

    - ``k1``: d. Unbiased, but its gradient is zero on average.
    - ``k2``: d^2 / 2. Biased, but for on-policy tokens its gradient, d * grad log pi, is on average the gradient of the KL.
    - ``k3``: exp(-d) - 1 + d. Unbiased and never negative, but its gradient is that of the other direction, KL(pi_ref || pi).

    ``k2`` is the default because what a loss needs is the gradient.

    Args:
        logprobs: [T] log pi, with gradient.
        reference: [T] log pi_ref.
        step: [T].
        valid: [N] bool; other steps add nothing.
        count: valid steps of the global batch.
        estimator: see above.
        reduction: token sum or token mean within a step.

    Returns:
        Scalar, to be multiplied by beta.
    """
    d = logprobs - reference
    value = {"k1": lambda: d, "k2": lambda: d.square() / 2, "k3": lambda: torch.expm1(-d) + d}[estimator]()
    return (step_sums(value, step, len(valid), reduction) * valid).sum() / count


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

    Positions are taken in chunks, and the backward pass computes each chunk's logits anew: memory is chunk x V instead of
    T x V.

    Args:
        hidden: [T, H] last hidden states at the positions that predict the action tokens.
        weight: [V, H] output embedding.
        targets: [T] token ids.
        bias: [V] or None.
        softcap: c for c * tanh(logits / c) (Gemma 2), or None.
        scale: factor on the logits (e.g. 1 / temperature).
        chunk: positions a chunk; 0 takes as many as give `CHUNK_VALUES` logits.

    Returns:
        [T] log-probabilities in float32 (float64 for float64 inputs).
    """
    chunk = chunk or max(1, CHUNK_VALUES // len(weight))
    logp: Tensor = _ChunkedLogprobs.apply(hidden, weight, bias, targets, softcap, scale, chunk)  # type: ignore[no-untyped-call]
    return logp


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
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.rest = (softcap, scale, chunk)
        parts = []
        for start in range(0, len(hidden), chunk):
            t = targets[start : start + chunk]
            logits = _logits(hidden[start : start + chunk], weight, bias, softcap)
            logits = logits.mul_(scale) if scale != 1.0 else logits
            parts.append(logits.gather(-1, t[:, None]).squeeze(-1) - torch.logsumexp(logits, dim=-1))
        return torch.cat(parts) if parts else hidden.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        softcap, scale, chunk = ctx.rest
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.zeros_like(hidden) if to_hidden else None
        # Accumulated in float32 at least: many chunks add up in it.
        d_weight = torch.zeros_like(weight, dtype=grad.dtype) if to_weight else None
        d_bias = torch.zeros_like(bias, dtype=grad.dtype) if to_bias else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = _logits(hidden[part], weight, bias, softcap)
            # d log p_t / d logits = scale * (onehot_t - softmax)
            d_logits = torch.softmax(logits * scale if scale != 1.0 else logits, dim=-1).neg_()
            d_logits.scatter_add_(-1, targets[part, None], torch.ones_like(d_logits[:, :1]))
            d_logits.mul_((grad[part] * scale)[:, None])
            if softcap is not None:
                d_logits.mul_(1 - (logits / softcap).square())
            if d_hidden is not None:
                d_hidden[part] = (d_logits.to(weight.dtype) @ weight).to(hidden.dtype)
            if d_weight is not None:
                d_weight.addmm_(d_logits.T, hidden[part].to(grad.dtype))
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Returns logits in float32 (float64 for float64), soft-capped."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap
