"""The variants of BM25 (Kamphuis, de Vries, Boytsov and Lin, ECIR 2020), as bm25s defines them, over whole arrays.

The score of a passage for a term that it holds is ``idf * weight``. BM25L and BM25+ also give something to passages without
the term; that is the same for all of them, so it is kept apart and the scores of an index stay sparse.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]
METHODS = ("lucene", "robertson", "atire", "bm25l", "bm25+")
DELTA = 0.5
"""The constant of BM25L and BM25+."""

Reals = NDArray[np.floating[Any]]


def idf(method: Method, frequency: Any, count: int) -> Reals:
    """Returns how much each term counts, [V].

    Args:
        method: the variant.
        frequency: how many passages hold each term, [V].
        count: how many passages there are.
    """
    odds: Reals
    if method in ("lucene", "robertson"):
        odds = (count - frequency + 0.5) / (frequency + 0.5)
        odds = 1 + odds if method == "lucene" else np.maximum(1, odds)
    elif method == "atire":
        odds = count / frequency
    else:
        odds = (count + 1) / (frequency + (0.5 if method == "bm25l" else 0))
    return np.log(odds)


def weight(method: Method, repeats: Reals, length: Reals, k1: float) -> Reals:
    """Returns how much the repetitions of a term in a passage count, [P].

    Args:
        method: the variant.
        repeats: how often the passage holds the term, [P].
        length: `relative_length` of the passage, [P].
        k1: how slowly repetitions stop counting.
    """
    if method in ("lucene", "robertson"):
        return repeats / (k1 * length + repeats)
    if method == "bm25l":
        share = repeats / length + DELTA
        return (k1 + 1) * share / (k1 + share)
    plain = repeats * (k1 + 1) / (repeats + k1 * length)
    return plain + DELTA if method == "bm25+" else plain


def absent_weight(method: Method, k1: float) -> float:
    """Returns what `weight` gives to passages that do not hold a term."""
    if method == "bm25l":
        return (k1 + 1) * DELTA / (k1 + DELTA)
    return DELTA if method == "bm25+" else 0.0


def relative_length(lengths: Any, b: float) -> Reals:
    """Returns ``1 - b + b * length / average length`` of passages, [N]."""
    average = float(lengths.mean()) if len(lengths) else 0.0
    return 1 - b + b * lengths / average if average else np.ones(len(lengths))
