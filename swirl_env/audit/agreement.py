"""How well ratings agree with a truth: shares, Cohen's kappa, area under the ROC curve and rank correlations.

All measures take weights [B, N]: how often each of N steps counts, in B replicates at once. A first row of ones gives the figure
itself; the other rows are bootstrap replicates, in which whole questions are drawn with replacement, since the steps of one
question are correlated. A weight of 2 is exactly the same as the step being there twice. A measure that a replicate leaves
undefined (one class only, say) is NaN there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swirl_env.evaluate import Estimate

Floats = NDArray[np.float64]
_CELLS = 1 << 22
"""Most cells of a contingency table, over all replicates of a chunk."""


def bootstrap_weights(clusters: ArrayLike, resamples: int, seed: int = 0) -> Floats:
    """Returns weights [1 + resamples, N]: a row of ones, then bootstrap replicates that draw whole clusters.

    Args:
        clusters: [N] which cluster (question) each step belongs to.
        resamples: number of replicates.
        seed: seed of the draws.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    count = len(names)
    ones = np.ones((1, len(index)))
    if not count:
        return np.ones((1 + resamples, 0))
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)  # [B, C]
    return np.concatenate([ones, draws[:, index].astype(np.float64)])


def estimate(replicates: Floats, n: int, clusters: int) -> Estimate:
    """Returns the first figure with the 95 % percentile interval of the others; None if it is undefined.

    Args:
        replicates: [1 + B] the figure, then its bootstrap replicates.
        n: steps counted.
        clusters: questions that they come from.
    """
    value, rest = float(replicates[0]), replicates[1:]
    rest = rest[np.isfinite(rest)]
    if not np.isfinite(value):
        return Estimate(None, None, None, n, clusters)
    if len(rest) < 2 or clusters < 2:
        return Estimate(value, None, None, n, clusters)
    low, high = np.quantile(rest, (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value), n, clusters)


def confusion(weights: Floats, truth: ArrayLike, rated: ArrayLike) -> Floats:
    """Returns counts [B, 2, 2]: by truth (BAD, GOOD), then by rating (BAD, GOOD)."""
    t, r = np.asarray(truth, dtype=np.bool_), np.asarray(rated, dtype=np.bool_)
    cells = [[weights @ ((t == i) & (r == j)).astype(np.float64) for j in (False, True)] for i in (False, True)]
    return np.moveaxis(np.array(cells), -1, 0)


def kappa(counts: Floats) -> Floats:
    """Cohen's kappa, ``(p_o - p_e) / (1 - p_e)``: agreement beyond chance (Cohen 1960).

    Args:
        counts: [B, 2, 2] as from `confusion`.

    Returns:
        [B], NaN if one class alone makes chance agreement certain.
    """
    total = counts.sum((1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = counts / total[:, None, None]
        seen = np.trace(share, axis1=1, axis2=2)
        chance = (share.sum(1) * share.sum(2)).sum(1)
        return np.where(1 - chance > 1e-12, (seen - chance) / (1 - chance), np.nan)


def auc(weights: Floats, truth: ArrayLike, values: ArrayLike) -> Floats:
    """Area under the ROC curve: how often a GOOD step has a larger value than a BAD one, ties counting half.

    Returns:
        [B], NaN without both classes.
    """
    t = np.asarray(truth, dtype=np.bool_)
    good, bad = _grouped(weights * t, values), _grouped(weights * ~t, values)  # [B, G], by rising value
    below = np.cumsum(bad, 1) - bad
    with np.errstate(divide="ignore", invalid="ignore"):
        area: Floats = (good * (below + bad / 2)).sum(1) / (good.sum(1) * bad.sum(1))
    return area


def spearman(weights: Floats, x: ArrayLike, y: ArrayLike) -> Floats:
    """Spearman's rank correlation: Pearson's correlation of the midranks.

    Returns:
        [B], NaN if x or y is constant.
    """
    a, b = _midranks(weights, x), _midranks(weights, y)  # [B, N]
    total = weights.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (ranks - (weights * ranks).sum(1, keepdims=True) / total for ranks in (a, b))
        spread = (weights * a * a).sum(1) * (weights * b * b).sum(1)
        return np.where(spread > 1e-9, (weights * a * b).sum(1) / np.sqrt(spread), np.nan)


def kendall(weights: Floats, x: ArrayLike, y: ArrayLike) -> Floats:
    """Kendall's tau-b: concordant minus discordant pairs, over the geometric mean of the pairs untied in x and in y.

    ``(P - Q) / sqrt((n0 - n1) (n0 - n2))`` with n0 all pairs, n1 those tied in x, n2 those tied in y (Kendall 1945).

    Returns:
        [B], NaN if x or y is constant.
    """
    (rows, i), (columns, j) = (np.unique(np.asarray(v, np.float64), return_inverse=True) for v in (x, y))
    shape = len(rows), len(columns)
    if not weights.shape[1]:
        return np.full(len(weights), np.nan)
    if shape[0] < shape[1]:  # the cumulative sums below run over the longer side
        return kendall(weights, y, x)
    chunk = max(1, _CELLS // (shape[0] * shape[1]))
    return np.concatenate([_tau_b(weights[k : k + chunk], i, j, shape) for k in range(0, len(weights), chunk)])


def _tau_b(weights: Floats, i: NDArray[np.intp], j: NDArray[np.intp], shape: tuple[int, int]) -> Floats:
    rows = [np.bincount(i * shape[1] + j, row, minlength=shape[0] * shape[1]) for row in weights]
    table = np.array(rows, np.float64).reshape(len(weights), *shape)  # [B, X, Y]
    above = np.cumsum(table, 1) - table  # [B, X, Y]: pairs of smaller x
    lower = np.cumsum(above, 2) - above  # and of smaller y
    upper = above.sum(2, keepdims=True) - np.cumsum(above, 2)
    score = (table * (lower - upper)).sum((1, 2))
    total = table.sum((1, 2))
    pairs = total * (total - 1) / 2
    tied_x, tied_y = ((side * (side - 1) / 2).sum(1) for side in (table.sum(2), table.sum(1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (pairs - tied_x) * (pairs - tied_y)
        return np.where(spread > 1e-9, score / np.sqrt(np.maximum(spread, 0)), np.nan)


def _grouped(weights: Floats, values: ArrayLike) -> Floats:
    """Returns the weight of each distinct value, [B, G] by rising value."""
    numbers = np.asarray(values, np.float64)
    if not len(numbers):
        return np.zeros((len(weights), 0))
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(numbers[order]) != 0]))
    return np.add.reduceat(weights[:, order], starts, axis=1)


def _midranks(weights: Floats, values: ArrayLike) -> Floats:
    """Returns the mean rank that each element's copies have, [B, N]."""
    groups = _grouped(weights, values)
    _, index = np.unique(np.asarray(values, np.float64), return_inverse=True)
    middle = np.cumsum(groups, 1) - groups + (groups + 1) / 2
    return middle[:, index]
