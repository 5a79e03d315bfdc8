"""Losses over the sampled tokens of steps: pure functions of log-probabilities.

Shapes: T action tokens of N steps, flat. ``step`` [T] says which of the N steps a token belongs to. ``count`` is the number
N of valid steps of the *global* batch (not of the micro-batch at hand), so that sums over micro-batches, processes and packed
rows add up to the one loss

    L = - 1/N * sum_i A_i log pi(a_i | s_i) + beta * KL(pi || pi_ref),    log pi(a_i | s_i) = sum over a_i's sampled tokens.

Steps that are not valid have advantage 0 and are not counted. Passing the number of episodes as ``count`` instead gives the
gradient of the expected episode sum without the ratio bias of a random N.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["sum", "mean"]
KlEstimator = Literal["k1", "k2", "k3"]
RatioLevel = Literal["token", "sequence"]


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
