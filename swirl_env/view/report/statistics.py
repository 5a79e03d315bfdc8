"""Statistics over seeds and questions: pure functions of arrays, each with its formula and source.

A *stratum* holds the values of one cell on one set of questions, one value per seed. Aggregates over several sets take their
strata together, and the bootstrap draws within each of them (Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of
the Statistical Precipice, NeurIPS; "rliable").
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swirl_env.errors import MissingExtra

Floats = NDArray[np.float64]
FEWEST = 3
"""Values that an interval over seeds needs at least."""
RESAMPLES = 9_999
"""Bootstrap samples of an interval."""
_AT_ONCE = 2_000_000
"""Most numbers that are drawn together."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def scipy_module(name: str) -> Any:
    """Imports a module of scipy.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        return importlib.import_module(f"scipy.{name}")
    except ModuleNotFoundError as error:
        raise MissingExtra("The report needs 'scipy'. Install it with: pip install 'swirl-env[report]'") from error


def mean(values: ArrayLike, axis: int | None = None) -> Any:
    """Returns the arithmetic mean."""
    return np.mean(np.asarray(values, dtype=np.float64), axis=axis)


def interquartile_mean(values: ArrayLike, axis: int | None = None) -> Any:
    """Returns the mean of the middle half: the lowest and the highest quarter (rounded down) are left out.

    ``IQM = 1/(n - 2k) * sum of x_(k+1) ... x_(n-k), k = floor(n/4)``, x sorted (Agarwal et al. 2021, section 4.3). Of fewer
    than four values it is the mean.
    """
    return scipy_module("stats").trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis)


def stratified_interval(
    strata: Sequence[ArrayLike], aggregate: Callable[..., Any] = interquartile_mean, seed: int = 0
) -> Interval | None:
    """Returns the 95 % percentile interval of an aggregate over all strata taken together.

    Values are drawn with replacement within each stratum (Agarwal et al. 2021, section 4.1; Efron 1979).

    Args:
        strata: the values of each, [n_s].
        aggregate: takes values and an axis.
        seed: seed of the resampling; the same data always give the same interval.

    Returns:
        The interval; None if a stratum holds fewer than `FEWEST` values, of which a bootstrap says nothing.
    """
    samples = [np.asarray(values, dtype=np.float64) for values in strata]
    if not samples or min(map(len, samples)) < FEWEST:
        return None

    def statistic(*drawn: Floats, axis: int = -1) -> Any:
        return aggregate(np.concatenate(drawn, axis=axis), axis=axis)

    return _bootstrap(samples, statistic, sum(map(len, samples)), seed)


def probability_of_improvement(new: Sequence[ArrayLike], old: Sequence[ArrayLike]) -> float:
    """Returns the chance that a run of one cell is better than a run of another on a set of questions drawn at random.

    ``P(X > Y) = 1/S * sum over strata s of 1/(n m) * sum_ij [x_i > y_j] + [x_i = y_j] / 2``: the Mann-Whitney U statistic
    over n m, mean over strata (Agarwal et al. 2021, section 4.3).

    Args:
        new: the values of each stratum, [n_s].
        old: those of the other cell, strata in the same order, [m_s].
    """
    return float(np.mean([_wins(np.asarray(x, dtype=float), np.asarray(y, dtype=float)) for x, y in zip(new, old, strict=True)]))


def improvement_interval(new: Sequence[ArrayLike], old: Sequence[ArrayLike], seed: int = 0) -> Interval | None:
    """Returns the 95 % interval of `probability_of_improvement`: both cells drawn with replacement within each stratum.

    None if a stratum of either cell holds fewer than `FEWEST` values.
    """
    samples = [np.asarray(values, dtype=np.float64) for values in (*new, *old)]
    if not samples or min(map(len, samples)) < FEWEST:
        return None
    count = len(new)

    def statistic(*drawn: Floats, axis: int = -1) -> Any:
        pairs = zip(drawn[:count], drawn[count:], strict=True)
        return np.mean([_wins(np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)) for x, y in pairs], axis=0)

    return _bootstrap(samples, statistic, max(len(x) * len(y) for x, y in zip(new, old, strict=True)), seed)  # type: ignore[arg-type]


def _wins(x: Floats, y: Floats) -> Any:
    """Returns the share of pairs that x wins, ties by half: [..., n] and [..., m] -> [...]."""
    differences = x[..., :, None] - y[..., None, :]  # [..., n, m]
    return np.mean((differences > 0) + 0.5 * (differences == 0), axis=(-2, -1))


def paired_interval(differences: ArrayLike, seed: int = 0) -> Interval | None:
    """Returns the 95 % percentile interval of the mean of paired differences, pairs drawn with replacement.

    None for fewer than `FEWEST` pairs.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < FEWEST:
        return None
    return _bootstrap([values], lambda drawn, axis=-1: np.mean(drawn, axis=axis), len(values), seed)


def _bootstrap(samples: Sequence[Floats], statistic: Callable[..., Any], size: int, seed: int) -> Interval:
    """Returns the percentile interval; each sample is drawn by itself, which is what makes it stratified."""
    if all(np.ptp(values) == 0 for values in samples):  # every draw is the data
        value = float(statistic(*samples, axis=-1))
        return Interval(value, value)
    result = scipy_module("stats").bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, min(RESAMPLES, _AT_ONCE // max(1, size))),
        vectorized=True,
        method="percentile",
        confidence_level=0.95,
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))
