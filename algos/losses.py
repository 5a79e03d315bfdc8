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
RatioLevel = Literal["token", "sequence"]
CHUNK_VALUES = 1 << 23
"""Logits in memory at a time (32 MiB in float32): 32 positions of a vocabulary of 256k, all of a small one."""


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


def policy_gradient(
    logprobs: Tensor,
    step: Tensor,
    advantages: Tensor,
    count: float,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "sum",
) -> Tensor:
    """L = - 1/count * sum_i A_i log pi(a_i | s_i) (REINFORCE, Williams 1992; SWiRL with A_i = R_i).

    Args:
        logprobs: [T] log pi of each sampled token (nats), with gradient.
        step: [T] step of each token.
        advantages: [N].
        count: valid steps of the global batch.
        weight: [T] factors on the tokens (see `truncated_weights`).
        reduction: token sum (the objective's own), or token mean.

    Returns:
        Scalar.
    """
    logprobs = logprobs if weight is None else weight * logprobs
    return -(advantages * step_sums(logprobs, step, len(advantages), reduction)).sum() / count


def ppo_clip(
    logprobs: Tensor,
    behaviour: Tensor,
    step: Tensor,
    advantages: Tensor,
    count: float,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    level: RatioLevel = "token",
    weight: Tensor | None = None,
    reduction: Reduction = "sum",
) -> Tensor:
    """L = - 1/count * sum over tokens of min(r A, clamp(r, 1 - clip, 1 + clip_high) A), r = pi / pi_behaviour.

    Source: Schulman et al. 2017, eq. 7, with the step's advantage for each of its tokens. At r = 1 its gradient is that of
    `policy_gradient`, at either level and with either reduction.

    Args:
        logprobs: [T] log pi now, with gradient.
        behaviour: [T] log-probs under which the tokens were sampled.
        step: [T].
        advantages: [N].
        count: valid steps of the global batch.
        clip: how far below 1 a ratio is trusted, and above 1 too unless `clip_high` says otherwise.
        clip_high: how far above 1 (clip-higher of DAPO, arXiv 2503.14476, section 3.1).
        level: see `importance_ratio`.
        weight: [T] factors on the tokens (see `truncated_weights`).
        reduction: token sum or token mean within a step.

    Returns:
        Scalar.
    """
    ratio = importance_ratio(logprobs, behaviour, step, len(advantages), level)
    gain = advantages[step]
    value = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * gain)
    value = value if weight is None else weight * value
    return -step_sums(value, step, len(advantages), reduction).sum() / count


def importance_ratio(logprobs: Tensor, behaviour: Tensor, step: Tensor, n: int, level: RatioLevel = "token") -> Tensor:
    """Returns pi / pi_behaviour for each token.

    Log-ratios are cut off at +-20, far outside any clip, so that no ratio overflows.

    Args:
        logprobs: [T] log pi.
        behaviour: [T] log-probs under which the tokens were sampled.
        step: [T].
        n: number of steps.
        level: ``token``: each token's own. ``sequence``: exp of the mean log-ratio of the step's tokens, for each of them
            (GSPO, arXiv 2507.18071, eq. 7).

    Returns:
        [T].
    """
    difference = logprobs - behaviour
    if level == "sequence":
        difference = step_sums(difference, step, n, "mean")[step]
    return difference.clamp(-20, 20).exp()


def truncated_weights(
    training: Tensor, generation: Tensor, step: Tensor, n: int, cap: float, level: RatioLevel = "token"
) -> Tensor:
    """Returns min(pi_training / pi_generation, cap) for each token, without gradient (truncated importance sampling).

    Corrects for an engine that generated with slightly other probabilities than training scores for the same weights.
    Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training".

    Args:
        training: [T] log-probs by the trainer, before the update.
        generation: [T] log-probs at generation.
        step: [T].
        n: number of steps.
        cap: largest weight.
        level: see `importance_ratio`.

    Returns:
        [T].
    """
    return importance_ratio(training.detach(), generation, step, n, level).clamp(max=cap)


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
    """Estimates 1/count * sum_i KL(pi || pi_ref) of the actions at s_i, token by token.

    The KL over actions is, by the chain rule, the sum of the KLs of the next-token distributions at the prefixes that pi
    samples. Each token adds one estimate of its own KL; with d = log pi - log pi_ref of the token (values: Schulman,
    "Approximating KL divergence", 2020):

    - ``k1``: d. Unbiased, but its gradient is zero on average.
    - ``k2``: d^2 / 2. Biased, but for on-policy tokens its gradient, d * grad log pi, is on average the gradient of the KL per
      token: the prefix is taken as it is, and what a token does to the KL of later ones is left out.
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


def entropy_bonus(entropies: Tensor, step: Tensor, n: int, count: float, *, reduction: Reduction = "sum") -> Tensor:
    """Returns 1/count * sum_i of the entropies of the next-token distributions along a_i, to be subtracted from the loss.

    Args:
        entropies: [T] entropy (nats) of the distribution that each token was drawn from, with gradient.
        step: [T].
        n: number of steps.
        count: valid steps of the global batch.
        reduction: token sum or token mean within a step.

    Returns:
        Scalar.
    """
    return step_sums(entropies, step, n, reduction).sum() / count


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
