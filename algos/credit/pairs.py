"""Losses of log-probabilities whose gradient is that of a policy gradient with the right weights.

The gradient of f(log pi(a_1), log pi(a_2), ...) is the sum of df/dlog pi(a_i) * grad log pi(a_i): a policy gradient with
advantages A_i = -df/dlog pi(a_i) (f is a loss), taken at the current weights and recomputed for every update.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swirl_env.algos.credit.arrays import Credit, Floats, as_valid, joint, normalised, others_mean
from swirl_env.algos.credit.basic import complete_returns, group_normalised, outcome, return_to_go


def dpo_weights(better: ArrayLike, worse: ArrayLike, beta: float = 0.1) -> Floats:
    """Returns w = beta * sigmoid(-m), m = beta * (better - worse): the advantages of a pair are +w and -w (step-level DPO).

    The loss of a pair is -log sigmoid(m) (DPO, arXiv 2305.18290, eq. 7; for steps: Step-DPO, 2406.18629, eq. 4).

    Args:
        better: [P] log pi - log pi_ref of the better action of each pair, summed over its tokens.
        worse: [P] the same of the worse one.
        beta: how far the policy may move from the reference; DPO's default is 0.1, Step-DPO takes 0.4 to 0.5.

    Returns:
        [P] weights.
    """
    return beta * _sigmoid(-beta * (np.asarray(better, np.float64) - np.asarray(worse, np.float64)))


def best_and_worst(rewards: ArrayLike, valid: ArrayLike, state: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns for each state with two different rewards the first of its best actions and the first of its worst, [P] each."""
    r, v = as_valid(rewards, valid)
    key, numbers = joint(state), np.flatnonzero(v)
    best: dict[int, int] = {}
    worst: dict[int, int] = {}
    for i in numbers:
        at = int(key[i])
        if at not in best or r[i] > r[best[at]]:
            best[at] = int(i)
        if at not in worst or r[i] < r[worst[at]]:
            worst[at] = int(i)
    states = [at for at in best if r[best[at]] > r[worst[at]]]
    return np.array([best[at] for at in states], np.intp), np.array([worst[at] for at in states], np.intp)


def outcome_weights(ratios: ArrayLike, outcomes: ArrayLike, beta: float = 0.05) -> Floats:
    """Returns w = beta * (outcome - sigmoid(beta * ratio)): the weight of every step of an episode when a PRM is trained.

    The loss of an episode is the cross entropy between its outcome and sigmoid(beta * ratio), the ratio being the sum of
    log pi_phi / pi_ref over all its action tokens (implicit process reward models: arXiv 2412.01981, eq. 4; PRIME: 2502.01456,
    eq. 4). PRIME's beta is 0.05.

    Args:
        ratios: [E].
        outcomes: [E] 0 to 1.
        beta: scale of the implicit reward.

    Returns:
        [E] weights.
    """
    return beta * (np.asarray(outcomes, np.float64) - _sigmoid(beta * np.asarray(ratios, np.float64)))


def outcome_dpo_weights(
    ratios: ArrayLike, outcomes: ArrayLike, known: ArrayLike, group: ArrayLike, beta: float = 0.05
) -> tuple[Floats, int]:
    """Returns the weights [E] of episodes, and the number of pairs, if a PRM is trained by trajectory DPO (iStar, 2509.19199).

    Every two episodes of a question with different outcomes are a pair, with the loss -log sigmoid(beta * (ratio of the better
    - ratio of the worse)). The sum over pairs is to be divided by their number.

    Args:
        ratios: [E] sum of log pi_phi / pi_ref over all action tokens of each episode.
        outcomes: [E].
        known: [E] bool, whether the outcome is known.
        group: [E] which question each episode is on.
        beta: scale of the implicit reward.
    """
    o, k = as_valid(outcomes, known)
    z, key = np.asarray(ratios, np.float64), np.asarray(group)
    pair = (key[:, None] == key[None, :]) & k[:, None] & k[None, :] & (o[:, None] > o[None, :])  # [better, worse]
    weight = np.where(pair, beta * _sigmoid(-beta * (z[:, None] - z[None, :])), 0.0)
    return weight.sum(1) - weight.sum(0), int(pair.sum())


def implicit_prm(
    rewards: ArrayLike,
    outcomes: ArrayLike,
    valid: ArrayLike,
    episode: ArrayLike,
    position: ArrayLike,
    group: ArrayLike,
    *,
    rule: str = "prime",
    alpha: float = 1.0,
    gamma: float = 1.0,
) -> Credit:
    """Advantages from implicit step rewards r_t = beta * log pi_phi(a_t) / pi_ref(a_t) next to the outcome.

    ``prime`` (PRIME, arXiv 2502.01456, eq. 5, with steps for tokens): A_t = alpha * sum over k >= t of gamma^(k - t) (r_k - mean
    over the other episodes of their mean step reward) + outcome - mean outcome of the other episodes. The code of PRIME
    subtracts the mean of the own episode too, rescaled by K / (K - 1), and whitens the result; this is the paper's formula.

    ``istar`` (iStar, arXiv 2509.19199): A_t = norm over the question's episodes(outcome) + alpha * norm over all steps of the
    question's episodes(r_t).

    Args:
        rewards: [N] implicit reward of each step.
        outcomes: [N] outcome of the episode that each step belongs to.
        valid: [N] bool, whether both are known.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        group: [N] which question each episode is on.
        rule: ``prime`` or ``istar``.
        alpha: weight of the implicit rewards.
        gamma: discount per step of ``prime``, 0 to 1.

    Returns:
        The advantages.
    """
    r, v = as_valid(rewards, valid)
    if rule == "istar":
        whole = group_normalised(outcomes, v, episode, group)
        return Credit(np.where(v, whole + alpha * normalised(r, v, group), 0.0), v)
    if rule != "prime":
        raise ValueError(f"rule is 'prime' or 'istar'; got {rule!r}")
    firsts, which = _firsts(episode)
    used = np.bincount(which, v) > 0
    own = np.bincount(which, r * v) / np.maximum(np.bincount(which, v), 1)
    others = others_mean(own, used, np.asarray(group)[firsts])[which]
    valid_returns = complete_returns(v, episode, position, gamma=gamma)
    returns = return_to_go(np.where(v, r - others, 0.0), v, episode, position, gamma=gamma)
    whole = outcome(outcomes, v, episode, group=group)
    return Credit(np.where(valid_returns, alpha * returns + whole, 0.0), valid_returns)


def _firsts(episode: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns a step of each episode, and for every step the index of its episode among those."""
    _, firsts, which = np.unique(np.asarray(episode), return_index=True, return_inverse=True)
    return firsts.astype(np.intp), which.astype(np.intp)


def _sigmoid(x: Floats) -> Floats:
    return np.where(x >= 0, 1.0 / (1.0 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1.0 + np.exp(-np.abs(x))))
