"""Credit rules for a reward per turn next to the outcome of the episode: MT-GRPO, IGPO and TRACE, generalised advantages."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swirl_env.algos.credit.arrays import (
    EPS,
    Bools,
    Credit,
    Floats,
    as_valid,
    discount,
    joint,
    last_steps,
    normalised,
)
from swirl_env.algos.credit.basic import complete_returns, group_normalised, return_to_go


def mt_grpo(
    rewards: ArrayLike,
    scored: ArrayLike,
    outcomes: ArrayLike,
    known: ArrayLike,
    episode: ArrayLike,
    position: ArrayLike,
    group: ArrayLike,
    *,
    weight: float = 1.0,
    rated: ArrayLike | None = None,
    scale: bool = True,
    eps: float = EPS,
) -> Credit:
    """A_t = norm_group(outcome) + weight * norm_group(r_t) (MT-GRPO, arXiv 2505.11821, as published).

    The outcome part is normalised over the episodes of a question, the turn part over its turns at the same position. The last
    turn, which answers, has the outcome part alone. The paper has two turns; its code (`_assign_advantages`, estimate ``aae``)
    gives the turn part to all that comes before the first tool result, and so does this rule for any number of turns. The code
    divides by the sample's standard deviation plus 1e-4, this rule by the population's plus `eps`.

    Biased with more than two turns: a turn's reward reaches the advantage of that turn alone, although earlier turns led to it.
    For J = E[outcome + weight * sum of r_t] the expected gradient misses E[weight * r_k grad log pi(a_t)] for every t < k (up
    to the factor 1 - 1/M of a mean over M episodes, and without the division). `mt_grpo_unbiased` has these terms.

    Args:
        rewards: [N] reward of each turn.
        scored: [N] bool, whether the reward is known.
        outcomes: [N] outcome of the episode that each step belongs to.
        known: [N] bool, whether the outcome is known.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        group: [N] which question each episode is on.
        weight: lambda, weight of the turn part.
        rated: [N] bool, which turns have a turn part; None takes all but the last of each episode.
        scale: whether to divide by the standard deviations.
        eps: keeps groups of equal rewards at 0.

    Returns:
        The advantages. A turn whose turn part is due and whose reward is unknown is not valid: a missing reward is no zero.
    """
    won, lasting = np.asarray(known, np.bool_), _rated(rated, episode, position)
    r, s = as_valid(rewards, scored)
    valid = won & (s | ~lasting)
    turn = normalised(r, s & lasting & won, joint(group, position), scale=scale, eps=eps)
    whole = group_normalised(outcomes, won, episode, group, scale=scale, eps=eps)
    return Credit(np.where(valid, whole + weight * turn, 0.0), valid)


def mt_grpo_unbiased(
    rewards: ArrayLike,
    scored: ArrayLike,
    outcomes: ArrayLike,
    known: ArrayLike,
    episode: ArrayLike,
    position: ArrayLike,
    group: ArrayLike,
    *,
    weight: float = 1.0,
    rated: ArrayLike | None = None,
) -> Credit:
    """A_t = G_t - mean of the other episodes' G_t, with G_t = outcome + weight * (r_t + r_{t+1} + ...): MT-GRPO made unbiased.

    G_t is the whole return that remains at turn t. The baseline is that of the other episodes of the question at the same
    place; an episode that has ended by then has only its outcome left. It depends on no action of this episode, so the rule is
    unbiased for J = E[outcome + weight * sum of r_t] (the objective of `mt_grpo`).

    Args:
        rewards: [N] reward of each turn.
        scored: [N] bool, whether the reward is known.
        outcomes: [N] outcome of the episode that each step belongs to.
        known: [N] bool, whether the outcome is known.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        group: [N] which question each episode is on.
        weight: lambda, weight of the turn rewards.
        rated: [N] bool, which turns have a reward of their own; None takes all but the last of each episode.

    Returns:
        The advantages. A turn is valid if the outcome and all rewards from it on are known; others count in no baseline.
    """
    due = _rated(rated, episode, position)
    r, s = as_valid(rewards, scored)
    o, k = as_valid(outcomes, known)
    row, which = joint(episode), np.asarray(group)
    place = np.asarray(position, np.int64)
    episodes, length = int(row.max(initial=-1)) + 1, int(place.max(initial=-1)) + 1
    returns, complete = np.zeros((episodes, length)), np.zeros((episodes, length), np.bool_)  # [E, T]
    question = np.zeros(episodes, np.intp)
    question[row] = joint(which)
    returns[row], complete[row] = o[:, None], k[:, None]
    terms, holes = np.zeros_like(returns), np.zeros_like(complete)
    terms[row, place], holes[row, place] = np.where(due, weight * r, 0.0), due & ~s
    returns += terms[:, ::-1].cumsum(1)[:, ::-1]
    complete &= ~(holes[:, ::-1].cumsum(1)[:, ::-1] > 0)
    sums, counts = np.zeros((episodes, length)), np.zeros((episodes, length))
    np.add.at(sums, question, returns * complete)
    np.add.at(counts, question, complete)
    others = counts[question] - complete
    baseline = np.where(others > 0, (sums[question] - returns * complete) / np.maximum(others, 1), 0.0)
    valid = complete[row, place]
    return Credit(np.where(valid, (returns - baseline)[row, place], 0.0), valid)


def accumulated(
    rewards: ArrayLike,
    valid: ArrayLike,
    episode: ArrayLike,
    position: ArrayLike,
    group: ArrayLike,
    *,
    gamma: float = 1.0,
    norm: str = "joint",
    scale: bool = True,
    eps: float = EPS,
) -> Credit:
    """A_t = sum over k >= t of gamma^(k - t) norm_group(r_k): rewards normalised first, then summed (IGPO, arXiv 2510.14967).

    r_t is the gain of turn t, and of the last turn the outcome (in the paper: F1 of the answer). Paper and code agree on the
    order of the two operations. ``joint`` (paper, and the code's default) normalises over all turns of a question's episodes,
    ``separate`` (an option of the code) over gains and outcomes apart. The code reads a gain of exactly 0 as "no turn here" and
    leaves it out of the means; here it is a gain of 0.

    Args:
        rewards: [N].
        valid: [N] bool, whether the reward is known.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        group: [N] which question each episode is on.
        gamma: discount per turn, 0 to 1.
        norm: ``joint`` or ``separate``.
        scale: whether to divide by the standard deviation.
        eps: keeps groups of equal rewards at 0.

    Returns:
        The advantages. A turn is valid if its reward and all later ones of its episode are known.
    """
    if norm not in ("joint", "separate"):
        raise ValueError(f"norm is 'joint' or 'separate'; got {norm!r}")
    key = joint(group, last_steps(episode, position)) if norm == "separate" else joint(group)
    part = normalised(rewards, valid, key, scale=scale, eps=eps)
    advantages = return_to_go(part, valid, episode, position, gamma=gamma)
    return Credit(advantages, complete_returns(valid, episode, position, gamma=gamma))


def gae(
    rewards: ArrayLike,
    values: ArrayLike,
    valid: ArrayLike,
    episode: ArrayLike,
    position: ArrayLike,
    *,
    gamma: float = 0.99,
    lam: float = 0.9,
) -> tuple[Floats, Floats, Bools]:
    """A_t = sum over k >= t of (gamma lam)^(k - t) delta_k, delta_k = r_k + gamma V(s_{k+1}) - V(s_k), over turns.

    Generalised advantage estimation (Schulman et al., arXiv 1506.02438, eq. 16) with turns for time steps (Turn-PPO, arXiv
    2512.17008; gamma .99 and lambda .9 are its defaults). An episode's value after its last turn is 0, also if its budget ran
    out: the budget belongs to the task. ``lam=1`` with a V of 0 is `return_to_go`.

    Args:
        rewards: [N] reward of each turn.
        values: [N] V of the state that each turn was taken in.
        valid: [N] bool, whether the reward is known.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        gamma: discount per turn, 0 to 1.
        lam: lambda, 0 to 1.

    Returns:
        Advantages [N], the critic's targets A + V [N], and [N] bool whether both are known: with lambda above 0 they sum all
        later rewards of the episode, so that one that is unknown makes them unknown.
    """
    if not 0 <= lam <= 1:
        raise ValueError(f"lam is a number from 0 to 1; got {lam!r}")
    r, v = as_valid(rewards, valid)
    value = np.asarray(values, np.float64)
    gamma = discount(gamma)
    following, ended = _next_values(value, episode, position)
    delta = r + gamma * np.where(ended, 0.0, following) - value
    complete = complete_returns(v, episode, position, gamma=gamma * lam)
    advantages = return_to_go(np.where(complete, delta, 0.0), complete, episode, position, gamma=gamma * lam)
    return advantages, np.where(complete, advantages + value, 0.0), complete


def _next_values(value: Floats, episode: ArrayLike, position: ArrayLike) -> tuple[Floats, Bools]:
    """Returns [N] the value at the next step of the same episode, and [N] whether there is none."""
    place, key = np.asarray(position), np.asarray(episode)
    order: NDArray[np.intp] = np.lexsort((place, key))
    following, ended = np.zeros_like(value), np.ones(len(value), np.bool_)
    same = key[order[1:]] == key[order[:-1]]
    following[order[:-1][same]], ended[order[:-1][same]] = value[order[1:][same]], False
    return following, ended


def _rated(rated: ArrayLike | None, episode: ArrayLike, position: ArrayLike) -> Bools:
    """Returns which turns have a reward of their own: as told, or all but the last of each episode."""
    return ~last_steps(episode, position) if rated is None else np.asarray(rated, np.bool_)
