"""Credit rules that every textbook has: rewards and outcomes with their baselines, returns, shaping, filters."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from swirl_env.algos.credit.arrays import (
    EPS,
    Bools,
    Credit,
    Floats,
    as_valid,
    discount,
    first_steps,
    joint,
    mean,
    normalised,
    others_mean,
)

MISSING = ("invalid", "skip")
"""What may be done about steps without a verdict by rules that sum over steps (see `return_to_go`)."""


def step_reward(rewards: ArrayLike, valid: ArrayLike) -> Floats:
    """A_i = R_i: the reward of the step itself (SWiRL, arXiv 2504.04736, stage 2; no return-to-go, no baseline).

    Unbiased for J = E_{s ~ T, a ~ pi(s)}[R(a | s)] when the actions were sampled from pi at the states of T.

    Args:
        rewards: [N] reward of each step; anything (NaN too) if not valid.
        valid: [N] bool, whether the step was scored.

    Returns:
        [N] advantages, 0 if not valid.
    """
    r, v = as_valid(rewards, valid)
    return np.where(v, r, 0.0)


def leave_one_out(rewards: ArrayLike, valid: ArrayLike, state: ArrayLike) -> Floats:
    """A_i = R_i - mean of the other valid rewards at the same state (RLOO; Kool et al. 2019, Ahmadian et al. 2024, eq. 7).

    The baseline does not depend on a_i, so the rule stays unbiased for the objective of `step_reward`. A sample without
    others has no baseline: A_i = R_i.

    Args:
        rewards: [N].
        valid: [N] bool.
        state: [N] which state each action was sampled at.

    Returns:
        [N] advantages, 0 if not valid.
    """
    r, v = as_valid(rewards, valid)
    return np.where(v, r - others_mean(r, v, np.asarray(state)), 0.0)


def outcome(
    outcomes: ArrayLike,
    valid: ArrayLike,
    episode: ArrayLike,
    *,
    baseline: str = "leave_one_out",
    group: ArrayLike | None = None,
) -> Floats:
    """A_i = outcome of the step's episode - baseline, the same for all its steps (REINFORCE, Williams 1992).

    Args:
        outcomes: [N] outcome of the episode that each step belongs to (equal within an episode).
        valid: [N] bool, whether the outcome is known.
        episode: [N] which episode each step belongs to.
        baseline: ``leave_one_out`` (mean outcome of the *other* episodes; unbiased), ``mean`` (of all episodes, this one
            included; shrinks the gradient by 1 - 1/M for M episodes) or ``none``. Means run over episodes, not over steps:
            a mean over steps would favour what long episodes got.
        group: [N] baselines within groups (e.g. the samples of one question) instead of over the whole batch.

    Returns:
        [N] advantages, 0 if not valid.
    """
    r, v = as_valid(outcomes, valid)
    firsts, back = first_steps(v, episode)
    if not len(firsts):
        return np.zeros_like(r)
    value = r[firsts]
    within = np.zeros(len(firsts), dtype=np.int64) if group is None else np.asarray(group)[firsts]
    known = np.ones(len(firsts), dtype=np.bool_)
    if baseline == "leave_one_out":
        value = value - others_mean(value, known, within)
    elif baseline == "mean":
        value = value - mean(value, known, within)
    elif baseline != "none":
        raise ValueError(f"baseline is 'leave_one_out', 'mean' or 'none'; got {baseline!r}")
    return np.where(v, value[back], 0.0)


def episode_reward(
    rewards: ArrayLike,
    scored: ArrayLike,
    outcomes: ArrayLike,
    known: ArrayLike,
    episode: ArrayLike,
    *,
    weight: float = 5.0,
    baseline: str = "leave_one_out",
) -> Credit:
    """A_i = mean step reward of the episode + weight * outcome - baseline, the same for all steps of the episode.

    What an outcome-style rule makes of the rewards that step-wise rules place at their steps: the same information, no credit.

    Args:
        rewards: [N] reward of each step.
        scored: [N] bool, whether the step was scored.
        outcomes: [N] outcome of the episode that each step belongs to.
        known: [N] bool, whether that outcome is known.
        episode: [N] which episode each step belongs to.
        weight: of the outcome; 0 leaves it out, known or not.
        baseline: see `outcome`.

    Returns:
        [N] advantages, and the steps that have one: those of episodes in which every reward that counts is known.
    """
    r, s = as_valid(rewards, scored)
    key = joint(episode)
    complete = np.bincount(key, ~s)[key] == 0
    valid = complete & np.asarray(known, dtype=np.bool_) if weight else complete
    value = np.bincount(key, r)[key] / np.bincount(key)[key]
    if weight:
        value = value + weight * np.where(valid, np.asarray(outcomes, np.float64), 0.0)
    return Credit(outcome(value, valid, episode, baseline=baseline), valid)


def group_normalised(
    outcomes: ArrayLike,
    valid: ArrayLike,
    episode: ArrayLike,
    group: ArrayLike,
    *,
    scale: bool = True,
    eps: float = EPS,
) -> Floats:
    """A_i = (outcome - mean) / (std + eps) over the episodes of one question (GRPO; DeepSeekMath, arXiv 2402.03300, 4.1.2).

    The population standard deviation is used. Dividing by it reweights questions; no claim to unbiasedness is made.

    Args:
        outcomes: [N] outcome of the episode that each step belongs to.
        valid: [N] bool.
        episode: [N] which episode each step belongs to.
        group: [N] which question each episode is on.
        scale: whether to divide by the standard deviation; without it the rule only subtracts the mean (Dr. GRPO, 2503.20783).
        eps: keeps groups of equal outcomes at 0.

    Returns:
        [N] advantages, 0 if not valid.
    """
    r, v = as_valid(outcomes, valid)
    firsts, back = first_steps(v, episode)
    if not len(firsts):
        return np.zeros_like(r)
    within, known = np.asarray(group)[firsts], np.ones(len(firsts), dtype=np.bool_)
    return np.where(v, normalised(r[firsts], known, within, scale=scale, eps=eps)[back], 0.0)


def complete_returns(valid: ArrayLike, episode: ArrayLike, position: ArrayLike, *, gamma: float = 1.0) -> Bools:
    """Returns whether every reward that a step's return sums was given: the step's own and all later ones of its episode.

    A failed or missing verdict is no zero, so a return that would contain one is unknown, and the step leaves the loss. With
    ``gamma=0`` a return contains its own reward alone.

    Args:
        valid: [N] bool, whether the step was scored.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        gamma: discount per step.

    Returns:
        [N] bool.
    """
    v, group, place = np.asarray(valid, dtype=np.bool_), np.asarray(episode), np.asarray(position)
    if discount(gamma) == 0:
        return v.copy()
    complete = v.copy()
    order = np.lexsort((place, group))[::-1]
    for now, later in zip(order[1:], order[:-1], strict=True):
        complete[now] = v[now] and (group[now] != group[later] or complete[later])
    return complete


def return_to_go(
    rewards: ArrayLike,
    valid: ArrayLike,
    episode: ArrayLike,
    position: ArrayLike,
    *,
    gamma: float = 1.0,
    baseline: str = "none",
    missing: str = "invalid",
) -> Floats:
    """A_i = sum over j >= i of gamma^(j - i) R_j within the episode (Sutton & Barto, 2nd ed., eq. 3.8 and 13.3).

    Unbiased for the expected (discounted) sum of step rewards of on-policy episodes with ``gamma=1``.

    Args:
        rewards: [N].
        valid: [N] bool.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        gamma: discount per step, 0 to 1.
        baseline: ``none``, or ``position``: minus the mean return of the *other* episodes at the same position (unbiased: it
            does not depend on this episode).
        missing: what a step without a verdict does to the returns of the steps before it. ``invalid``: they are unknown and
            get 0; the caller leaves them out of the loss by `complete_returns`. ``skip`` tolerates it: the step adds
            nothing, as if it had not been taken, which is biased unless verdicts go missing at random.

    Returns:
        [N] advantages, 0 if not valid.
    """
    r, v = as_valid(rewards, valid)
    group, place = np.asarray(episode), np.asarray(position)
    if missing not in MISSING:
        raise ValueError(f"missing is one of {', '.join(MISSING)}; got {missing!r}")
    used = complete_returns(v, group, place, gamma=gamma) if missing == "invalid" else v
    returns = np.zeros_like(r)
    order = np.lexsort((place, group))[::-1]
    last: tuple[int, int, float] | None = None  # episode, position and return of the valid step after this one
    for i in order:
        if not v[i]:
            continue
        later = discount(gamma) ** (last[1] - place[i]) * last[2] if last is not None and last[0] == group[i] else 0.0
        returns[i] = r[i] + later
        last = (int(group[i]), int(place[i]), float(returns[i]))
    returns = np.where(used, returns, 0.0)
    if baseline == "position":
        returns = returns - others_mean(returns, used, place)
    elif baseline != "none":
        raise ValueError(f"baseline is 'none' or 'position'; got {baseline!r}")
    return np.where(used, returns, 0.0)


def filtered(keep: ArrayLike) -> Floats:
    """A_i = 1 for the steps of selected trajectories, else 0: supervised fine-tuning as a policy gradient (RFT).

    Args:
        keep: [N] bool, whether the step's trajectory passed the filter.

    Returns:
        [N] weights.
    """
    return np.asarray(keep, dtype=np.bool_).astype(np.float64)


def shaped(rewards: ArrayLike, potential: ArrayLike, next_potential: ArrayLike, *, gamma: float = 1.0) -> Floats:
    """R'_i = R_i + gamma Phi(s_{i+1}) - Phi(s_i): potential-based shaping (Ng, Harada, Russell 1999, theorem 1).

    Use it before `return_to_go`; with Phi = 0 at the end of every episode it leaves the best policy as it is.

    Args:
        rewards: [N].
        potential: [N] Phi of the state in which the step was taken.
        next_potential: [N] Phi of the state that it led to, 0 at the end.
        gamma: discount per step, 0 to 1.

    Returns:
        [N] shaped rewards; NaN if the reward or a potential is unknown (NaN): such a step is not valid any more.
    """
    gamma = discount(gamma)
    return np.asarray(rewards, np.float64) + gamma * np.asarray(next_potential, np.float64) - np.asarray(potential, np.float64)
