"""What the credit rules share: masks, means, baselines and normalisation over flat arrays of steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
EPS = 1e-6
"""Added to a standard deviation before dividing by it: a group of equal rewards then gives advantages of 0."""


class Credit(NamedTuple):
    """What a rule returns that cannot rate every step: advantages, and the steps that have one."""

    advantages: Floats
    """[N] advantages, 0 if not valid."""
    valid: Bools
    """[N] whether all that the rule needs to know about the step is known; other steps leave the loss."""


def discount(gamma: float) -> float:
    """Returns a discount after a check that it is one."""
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is a number from 0 to 1; got {gamma!r}")
    return gamma


def as_valid(rewards: ArrayLike, valid: ArrayLike) -> tuple[Floats, Bools]:
    """Returns float rewards with 0 in place of whatever an invalid step holds, and the mask."""
    v = np.asarray(valid, dtype=np.bool_)
    r = np.asarray(rewards, dtype=np.float64)
    if r.shape != v.shape or r.ndim != 1:
        raise ValueError(f"rewards and valid are flat and of one length; got shapes {r.shape} and {v.shape}")
    r = np.where(v, r, 0.0)
    if not np.isfinite(r).all():
        raise ValueError("a valid step has a reward that is not finite; mark it as not valid instead")
    return r, v


def joint(*keys: ArrayLike) -> NDArray[np.intp]:
    """Returns one integer key per element, equal if all `keys` are equal."""
    whole = np.zeros(len(np.asarray(keys[0])), dtype=np.intp)
    for key in keys:
        _, index = np.unique(np.asarray(key), return_inverse=True)
        _, whole = np.unique(whole * (index.max(initial=0) + 1) + index, return_inverse=True)
    return whole


def others_mean(r: Floats, v: Bools, key: ArrayLike) -> Floats:
    """Returns for every element the mean of the *other* valid elements that share its key; 0 if there are none."""
    total, count = _sums(r, v, key)
    others = count - v
    return np.where(others > 0, (total - r * v) / np.maximum(others, 1), 0.0)


def mean(r: Floats, v: Bools, key: ArrayLike) -> Floats:
    """Returns for every element the mean of the valid elements that share its key, its own included."""
    total, count = _sums(r, v, key)
    return total / np.maximum(count, 1)


def normalised(values: ArrayLike, valid: ArrayLike, group: ArrayLike, *, scale: bool = True, eps: float = EPS) -> Floats:
    """Returns (value - mean) / (std + eps) among the valid elements of a group, with the population's std.

    Args:
        values: [N].
        valid: [N] bool; other elements are counted nowhere and get 0.
        group: [N] which group each element belongs to; an element alone in its group gets 0.
        scale: whether to divide by the standard deviation.
        eps: keeps groups of equal values at 0.
    """
    r, v = as_valid(values, valid)
    centred = r - mean(r, v, group)
    if scale:
        spread = np.sqrt(mean(centred**2, v, group)) + eps
        centred = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    return np.where(v, centred, 0.0)


def first_steps(v: Bools, episode: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Returns a valid step of each episode that has one, and for every step the index of its episode among those."""
    place = np.asarray(episode)
    known, firsts = np.unique(place[v], return_index=True)
    back = np.searchsorted(known, place).clip(max=max(len(known) - 1, 0))
    return np.asarray(np.flatnonzero(v)[firsts], dtype=np.intp), np.asarray(back, dtype=np.intp)


def last_steps(episode: ArrayLike, position: ArrayLike) -> Bools:
    """Returns [N] whether a step is the last of its episode."""
    place, key = np.asarray(position), joint(episode)
    latest = np.full(key.max(initial=0) + 1, np.iinfo(np.int64).min)
    np.maximum.at(latest, key, place)
    return np.asarray(place == latest[key], dtype=np.bool_)


def _sums(r: Floats, v: Bools, key: ArrayLike) -> tuple[Floats, Floats]:
    """Returns for every element the sum and the count of the valid ones that share its key."""
    _, index = np.unique(np.asarray(key), return_inverse=True)
    total = np.bincount(index, r * v)[index].astype(np.float64)
    return total, np.bincount(index, v.astype(np.float64))[index].astype(np.float64)
