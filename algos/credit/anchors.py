"""Credit rules that compare steps of several episodes taken in one and the same state: GiGPO and HGPO."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from swirl_env.algos.credit.arrays import EPS, Floats, as_valid, discount, joint, normalised
from swirl_env.algos.credit.basic import group_normalised


def outcome_returns(outcomes: ArrayLike, valid: ArrayLike, episode: ArrayLike, position: ArrayLike, gamma: float) -> Floats:
    """Returns [N] gamma^(T - 1 - t) * outcome: the discounted return of each step if only the end of an episode is rewarded."""
    o, v = as_valid(outcomes, valid)
    place, key = np.asarray(position), joint(episode)
    latest = np.zeros(key.max(initial=0) + 1, np.int64)
    np.maximum.at(latest, key, place)
    return np.where(v, discount(gamma) ** (latest[key] - place) * o, 0.0)


def gigpo(
    outcomes: ArrayLike,
    valid: ArrayLike,
    episode: ArrayLike,
    position: ArrayLike,
    group: ArrayLike,
    anchor: ArrayLike,
    *,
    omega: float = 1.0,
    gamma: float = 0.95,
    scale: bool = True,
    eps: float = EPS,
) -> Floats:
    """A_t = norm over a question's episodes(outcome) + omega * norm over steps in the same state(return) (GiGPO, 2505.10978).

    Equations 3, 7 and 8 of the paper; the return of a step is gamma^(T - 1 - t) times the outcome. ``scale=False`` is the
    paper's F_norm = 1 (the code's ``mean_norm``). The public code (verl-agent) takes the mean of the first part over steps, so
    that long episodes count more; here every episode counts once, as in the paper. A state seen once gives 0 to the second part.

    Args:
        outcomes: [N] outcome of the episode that each step belongs to.
        valid: [N] bool, whether it is known.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        group: [N] which question each episode is on.
        anchor: [N] the state that each step was taken in; states of different questions are never compared.
        omega: weight of the second part.
        gamma: discount per step, 0 to 1.
        scale: whether to divide by the standard deviations.
        eps: keeps groups of equal returns at 0.

    Returns:
        [N] advantages, 0 if not valid.
    """
    returns = outcome_returns(outcomes, valid, episode, position, gamma)
    whole = group_normalised(outcomes, valid, episode, group, scale=scale, eps=eps)
    return whole + omega * normalised(returns, valid, joint(group, anchor), scale=scale, eps=eps)


def hgpo(
    outcomes: ArrayLike,
    valid: ArrayLike,
    episode: ArrayLike,
    position: ArrayLike,
    group: ArrayLike,
    histories: Sequence[ArrayLike],
    *,
    alpha: float = 1.0,
    gamma: float = 0.95,
    scale: bool = True,
    eps: float = EPS,
) -> Floats:
    """A_t = sum over h of w_h * norm over steps with the same state and h states before it(return), w_h ~ (h + 1)^alpha (HGPO).

    Hierarchy-of-groups policy optimisation (arXiv 2602.22817): the more history two steps share, the better they can be
    compared, and the fewer there are of them. The weights of the levels at which a step has company sum to 1; a step that is
    alone at every level gets 0. The public code (verl-agent, recipe/hgpo) differs in two details: it weighs level h by
    (h + 2)^alpha, and leaves out levels whose advantage happens to be 0. An episode-level part is an option of the code that is
    off by default; add `group_normalised` for it.

    Args:
        outcomes: [N] outcome of the episode that each step belongs to.
        valid: [N] bool, whether it is known.
        episode: [N] which episode each step belongs to.
        position: [N] place of the step in its episode, from 0.
        group: [N] which question each episode is on.
        histories: for each h from 0 on [N] the state of each step together with the h states before it, as a number; a negative
            number means that the episode is not that long.
        alpha: how much more a longer shared history counts.
        gamma: discount per step, 0 to 1.
        scale: whether to divide by the standard deviations.
        eps: keeps groups of equal returns at 0.

    Returns:
        [N] advantages, 0 if not valid.
    """
    returns = outcome_returns(outcomes, valid, episode, position, gamma)
    _, v = as_valid(outcomes, valid)
    total, weights = np.zeros(len(v)), np.zeros(len(v))
    for h, key in enumerate(histories):
        used = v & (np.asarray(key) >= 0)
        same = joint(group, key)
        company = used & (np.bincount(same, used)[same] > 1)
        total += (h + 1) ** alpha * normalised(returns, company, same, scale=scale, eps=eps)
        weights += (h + 1) ** alpha * company
    return np.where(weights > 0, total / np.maximum(weights, 1e-300), 0.0)
