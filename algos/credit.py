"""Credit rules: from the rewards of single steps, or of whole episodes, to one advantage per step.

Pure NumPy functions over flat arrays: N steps of any number of episodes, without padding, so that episodes of different
length never weigh on one another by accident. Every rule takes ``valid`` [N]: steps whose verdict failed or is missing
are False there; they get advantage 0, are counted by no baseline, and the caller leaves them out of the loss (`losses`). A batch
with such steps gives exactly what the batch without them gives. Only a rule that sums over the steps of an episode cannot: a
sum with an unknown term is unknown (`return_to_go`, `complete_returns`).

Index arrays (``state``, ``episode``, ``group``) hold any integers; equal numbers mean the same state, episode or question.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
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
    r, v = _as_valid(rewards, valid)
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
    r, v = _as_valid(rewards, valid)
    return np.where(v, r - _others_mean(r, v, np.asarray(state)), 0.0)


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
    r, v = _as_valid(outcomes, valid)
    firsts, back = _episodes(v, np.asarray(episode))
    if not len(firsts):
        return np.zeros_like(r)
    value = r[firsts]
    within = np.zeros(len(firsts), dtype=np.int64) if group is None else np.asarray(group)[firsts]
    known = np.ones(len(firsts), dtype=np.bool_)
    if baseline == "leave_one_out":
        value = value - _others_mean(value, known, within)
    elif baseline == "mean":
        value = value - _mean(value, known, within)
    elif baseline != "none":
        raise ValueError(f"baseline is 'leave_one_out', 'mean' or 'none'; got {baseline!r}")
    return np.where(v, value[back], 0.0)


def group_normalised(outcomes: ArrayLike, valid: ArrayLike, episode: ArrayLike, group: ArrayLike, *, eps: float = 1e-6) -> Floats:
    """A_i = (outcome - mean) / (std + eps) over the episodes of one question (GRPO; DeepSeekMath, arXiv 2402.03300, 4.1.2).

    The population standard deviation is used. Dividing by it reweights questions; no claim to unbiasedness is made.

    Args:
        outcomes: [N] outcome of the episode that each step belongs to.
        valid: [N] bool.
        episode: [N] which episode each step belongs to.
        group: [N] which question each episode is on.
        eps: keeps groups of equal outcomes at 0.

    Returns:
        [N] advantages, 0 if not valid.
    """
    r, v = _as_valid(outcomes, valid)
    firsts, back = _episodes(v, np.asarray(episode))
    if not len(firsts):
        return np.zeros_like(r)
    value, within, known = r[firsts], np.asarray(group)[firsts], np.ones(len(firsts), dtype=np.bool_)
    centred = value - _mean(value, known, within)
    spread = np.sqrt(_mean(centred**2, known, within))
    return np.where(v, (centred / (spread + eps))[back], 0.0)


def complete_returns(valid: ArrayLike, episode: ArrayLike, position: ArrayLike, *, gamma: float = 1.0) -> NDArray[np.bool_]:
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
    if _discount(gamma) == 0:
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
    r, v = _as_valid(rewards, valid)
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
        later = _discount(gamma) ** (last[1] - place[i]) * last[2] if last is not None and last[0] == group[i] else 0.0
        returns[i] = r[i] + later
        last = (int(group[i]), int(place[i]), float(returns[i]))
    returns = np.where(used, returns, 0.0)
    if baseline == "position":
        returns = returns - _others_mean(returns, used, place)
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
    gamma = _discount(gamma)
    return np.asarray(rewards, np.float64) + gamma * np.asarray(next_potential, np.float64) - np.asarray(potential, np.float64)


def _discount(gamma: float) -> float:
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is a number from 0 to 1; got {gamma!r}")
    return gamma


def _as_valid(rewards: ArrayLike, valid: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns float rewards with 0 in place of whatever an invalid step holds, and the mask."""
    v = np.asarray(valid, dtype=np.bool_)
    r = np.asarray(rewards, dtype=np.float64)
    if r.shape != v.shape or r.ndim != 1:
        raise ValueError(f"rewards and valid are flat and of one length; got shapes {r.shape} and {v.shape}")
    r = np.where(v, r, 0.0)
    if not np.isfinite(r).all():
        raise ValueError("a valid step has a reward that is not finite; mark it as not valid instead")
    return r, v


def _sums(r: Floats, v: NDArray[np.bool_], key: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Returns for every element the sum and the count of the valid ones that share its key."""
    _, index = np.unique(key, return_inverse=True)
    total = np.bincount(index, r * v)[index].astype(np.float64)
    return total, np.bincount(index, v.astype(np.float64))[index].astype(np.float64)


def _others_mean(r: Floats, v: NDArray[np.bool_], key: NDArray[np.integer]) -> Floats:
    total, count = _sums(r, v, key)
    return np.where(count > 1, (total - r) / np.maximum(count - 1, 1), 0.0)


def _mean(r: Floats, v: NDArray[np.bool_], key: NDArray[np.integer]) -> Floats:
    total, count = _sums(r, v, key)
    return total / np.maximum(count, 1)


def _episodes(v: NDArray[np.bool_], episode: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns a valid step of each episode that has one, and for every step the index of its episode among those."""
    known, firsts = np.unique(episode[v], return_index=True)
    back = np.searchsorted(known, episode).clip(max=max(len(known) - 1, 0))
    return np.asarray(np.flatnonzero(v)[firsts], dtype=np.intp), np.asarray(back, dtype=np.intp)
