"""Adding up and ranking in one compiled pass: what `Bm25sIndex` uses where numba is installed (extra `fast`)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def add_up(passages: Array, scores: Array, slices: Array, totals: Array, best: Array, best_scores: Array) -> int:
    """Writes the best passages of a query to `best` and `best_scores`, and returns how many there are.

    The sums are formed in the same order and precision as with numpy, so both give the same bits.

    Args:
        passages: positions of passages, term by term, [P].
        scores: their scores, [P].
        slices: length, start and number of repetitions of each term of the query, [T, 3].
        totals: zeros, one a passage; zeros again afterwards, [N].
        best: room for the positions found, [k].
        best_scores: room for their scores, [k].
    """
    for t in range(len(slices)):
        count = np.float32(slices[t, 2])
        for i in range(slices[t, 1], slices[t, 1] + slices[t, 0]):
            totals[passages[i]] += scores[i] * count
    found = 0
    for t in range(len(slices)):
        for i in range(slices[t, 1], slices[t, 1] + slices[t, 0]):
            passage = passages[i]
            score = totals[passage]
            # A passage that was met before is zero by now.
            totals[passage] = 0
            if score <= 0 or (found == len(best) and not _above(score, passage, best_scores[-1], best[-1])):
                continue
            found = min(found + 1, len(best))
            at = found - 1
            while at > 0 and _above(score, passage, best_scores[at - 1], best[at - 1]):
                best[at] = best[at - 1]
                best_scores[at] = best_scores[at - 1]
                at -= 1
            best[at] = passage
            best_scores[at] = score
    return found


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _above(score: float, passage: int, other_score: float, other: int) -> bool:
    return score > other_score or (score == other_score and passage < other)
