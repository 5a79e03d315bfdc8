"""Adding up and ranking in one compiled pass: used by `Bm25sIndex` if numba is installed (extra `fast`)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# numba has no types, so mypy knows nothing about what its decorator returns.


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def add_up(passages: Ints, scores: Floats, slices: Ints, totals: Floats, best: Ints, best_scores: Floats) -> int:
    """Writes the best passages of a query to `best` and `best_scores`, and returns how many there are.

    The sums are formed in the same order and precision as with numpy, so both give the same bits.

    Args:
        passages: positions of passages, term by term, [P].
        scores: their scores, [P].
        slices: length, start and number of repetitions of each term of the query, [T, 3].
        totals: zeros, one per passage; zeros again afterwards, [N].
        best: space for the positions, [k].
        best_scores: space for their scores, [k].
    """
    for t in range(len(slices)):
        count = np.float32(slices[t, 2])
        for i in range(slices[t, 1], slices[t, 1] + slices[t, 0]):
            totals[passages[i]] += scores[i] * count
    count_best = 0
    for t in range(len(slices)):
        for i in range(slices[t, 1], slices[t, 1] + slices[t, 0]):
            passage = passages[i]
            score = totals[passage]
            # Zero means that an earlier term has listed this passage already.
            totals[passage] = 0
            if score <= 0 or (count_best == len(best) and not _above(score, passage, best_scores[-1], best[-1])):
                continue
            count_best = min(count_best + 1, len(best))
            at = count_best - 1
            while at > 0 and _above(score, passage, best_scores[at - 1], best[at - 1]):
                best[at] = best[at - 1]
                best_scores[at] = best_scores[at - 1]
                at -= 1
            best[at] = passage
            best_scores[at] = score
    return count_best


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _above(score: Any, passage: Any, other_score: Any, other: Any) -> bool:
    return bool(score > other_score or (score == other_score and passage < other))
