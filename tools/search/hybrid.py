"""Reciprocal rank fusion of two rankings (Cormack, Clarke and Buettcher, SIGIR 2009)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

RRF_K = 60
"""The constant of the paper: how little the first ranks stand out."""


def fuse(rankings: Iterable[Sequence[tuple[int, float]]], k: int) -> list[tuple[int, float]]:
    """Returns positions and fused scores of the `k` best passages: score falling, then position rising.

    The score of a passage is the sum of ``1 / (60 + rank)`` over the rankings that hold it, ranks from 1; scores of the
    rankings themselves do not count.
    """
    totals: dict[int, float] = {}
    for ranking in rankings:
        for rank, (position, _) in enumerate(ranking, 1):
            totals[position] = totals.get(position, 0.0) + 1 / (RRF_K + rank)
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return ranked[:k]
