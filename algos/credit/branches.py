"""Credit rules for several continuations of one state: siblings, Monte Carlo values, trees."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from swirl_env.algos.credit.arrays import EPS, Credit, Floats, normalised
from swirl_env.algos.credit.basic import shaped


def siblings(rewards: ArrayLike, valid: ArrayLike, state: ArrayLike, *, scale: bool = True, eps: float = EPS) -> Floats:
    """A_i = (R_i - mean) / (std + eps) among the actions sampled at the same state (SLATE, 2602.23440; PivotRL, 2603.21383).

    Actions that share their whole past differ in nothing but themselves, so that no luck of other steps enters: for episodes of
    T steps the variance is up to T times below that of whole episodes (SLATE's theorem). Both papers divide as GRPO does.

    Args:
        rewards: [N].
        valid: [N] bool.
        state: [N] which state each action was sampled at.
        scale: whether to divide by the standard deviation.
        eps: keeps states with equal rewards at 0.

    Returns:
        [N] advantages, 0 if not valid.
    """
    return normalised(rewards, valid, state, scale=scale, eps=eps)


def monte_carlo(outcomes: ArrayLike) -> Floats:
    """V(s) = mean outcome of the episodes continued from s (VinePPO, arXiv 2410.01679, eq. 8; Math-Shepherd's soft estimate).

    Args:
        outcomes: [S, K] outcomes of K continuations of each of S states; NaN if unknown.

    Returns:
        [S] values; NaN if no outcome is known.
    """
    table = np.asarray(outcomes, np.float64)
    known = np.isfinite(table)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, table, 0.0).sum(1) / np.maximum(count, 1), np.nan)


def step_values(outcomes: ArrayLike, *, estimate: str = "soft") -> Floats:
    """Returns the value of a step as Math-Shepherd labels it (arXiv 2312.08935, eq. 3 and 4), from continuations after it.

    Args:
        outcomes: [S, K] outcomes, 0 or 1, of K continuations after each of S steps; NaN if unknown.
        estimate: ``soft``: the share that ends right; ``hard``: 1 if any does.

    Returns:
        [S] values; NaN if no outcome is known.
    """
    if estimate not in ("soft", "hard"):
        raise ValueError(f"estimate is 'soft' or 'hard'; got {estimate!r}")
    values = monte_carlo(outcomes)
    return values if estimate == "soft" else np.where(np.isfinite(values), (values > 0).astype(np.float64), np.nan)


def vine(rewards: ArrayLike, values: ArrayLike, next_values: ArrayLike, *, gamma: float = 1.0) -> Credit:
    """A_t = r_t + gamma V(s_{t+1}) - V(s_t), with V by Monte Carlo (VinePPO, arXiv 2410.01679, eq. 9).

    Args:
        rewards: [N] reward of each step: 0 but for the last, which gets the outcome; NaN if unknown.
        values: [N] V of the state that each step was taken in (`monte_carlo`); NaN if unknown.
        next_values: [N] V of the state that it led to, 0 at the end of an episode; NaN if unknown.
        gamma: discount per step, 0 to 1; the paper has none.

    Returns:
        The advantages; a step is valid if all three of its terms are known.
    """
    difference = shaped(rewards, values, next_values, gamma=gamma)
    valid = np.isfinite(difference)
    return Credit(np.where(valid, difference, 0.0), valid)


def tree_grpo(outcomes: ArrayLike, valid: ArrayLike, tree: ArrayLike, group: ArrayLike, *, eps: float = EPS) -> Floats:
    """A = norm over the leaves of a tree(outcome) + norm over the leaves of a question's trees(outcome) (Tree-GRPO, 2509.21240).

    The rule rates leaves, that is whole episodes: the first part compares what grew from one root (intra-tree), the second all
    that was sampled for the question (inter-tree). A step that several leaves share is trained once for each of them.

    Args:
        outcomes: [L] outcome of each leaf's episode.
        valid: [L] bool, whether it is known.
        tree: [L] which tree each leaf belongs to; trees of different questions are different.
        group: [L] which question each leaf is on.
        eps: keeps groups of equal outcomes at 0.

    Returns:
        [L] advantages, 0 if not valid.
    """
    return normalised(outcomes, valid, tree, eps=eps) + normalised(outcomes, valid, group, eps=eps)
