"""The two ways to rank passages by BM25: an index of precomputed scores, and rank-bm25 as the reference."""

from __future__ import annotations

import bisect
import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from swirl_env.errors import MissingExtra
from swirl_env.tools.search.build import IndexOptions, build, load_compiled
from swirl_env.tools.search.storage import PackedStrings, PassageStore, map_array

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_MEMORY = 200_000
_LARGE = 10_000
_WARM = 1_000
_TYPICAL = 100_000
_PROBE = 16
"""Looking up one passage in a list takes as long as running over this many entries of it, about."""
_EXACT = 1 << 24
"""Whole numbers up to here are exact in float32."""
_SHARE = 16
"""Queries of a batch that are worth a thread of their own."""
_SLACK = 1.0001
"""Bounds of float32 sums are this much larger, so that rounding never makes a sum exceed its bound."""

Numba = Literal["auto", "on", "off"]
Slice = tuple[int, int, int, float]
"""Length, start and repetitions of a term of a query, and the most that one repetition adds to a passage."""


Best = list[tuple[int, float]]
"""Positions and scores of passages: score falling, then position rising."""


class Ranker(Protocol):
    """Ranks passages for the terms of queries."""

    def top(self, queries: Sequence[Sequence[str]], k: int) -> list[Best]:
        """Returns the `k` best passages of each query, those with a score above 0."""
        ...


def document_terms(passages: PassageStore, terms: Callable[[str], list[str]], title_weight: int) -> Iterator[list[str]]:
    """Yields the terms that each passage is indexed under: its title's, `title_weight` times, then its text's."""
    for passage in passages:
        yield (terms(passage.title) * title_weight if title_weight else []) + terms(passage.text)


class Bm25Index:
    """Scores of all (term, passage) pairs, computed once and memory-mapped; a query adds up a few slices of them.

    Scores are added from the rarest term to the commonest, in float32, whatever the order of the words or the size of a batch,
    so that equal queries give equal bits, with numba and without. Adding stops at the first term from which on no further
    passage can reach the k best (the MaxScore rule of Turtle and Flood, 1995); the longer lists are only looked up for the
    passages that still can. The ranking is exact.

    Args:
        folder: what `build` wrote.
        numba: ``on``, ``off``, or ``auto``: if installed, once a process has searched an index of 10,000 passages or more a
            thousand times (sooner if it holds more than 100,000). Loading numba takes half a second and 60 MB, which a process
            that searches now and then should not pay.
    """

    def __init__(self, folder: Path, numba: Numba = "auto") -> None:
        self._scores = map_array(folder / "scores.npy")
        self._passages = map_array(folder / "passages.npy")
        self._starts = map_array(folder / "starts.npy").data
        self._bounds = map_array(folder / "bounds.npy").data
        self._absent = map_array(folder / "absent.npy").data
        self._terms = PackedStrings(folder, "terms")
        self._count = int(map_array(folder / "count.npy")[0])
        self._term_ids: dict[str, int] = {}
        self._free: list[Floats] = []
        self._compiled: Any = load_compiled() if numba == "on" else None
        # Ten times the passages make a query ten times the work, so that numba pays after a tenth of the queries.
        queries = max(1, _WARM * _TYPICAL // max(self._count, _TYPICAL))
        self._until_compiled = queries if numba == "auto" and self._count >= _LARGE else -1
        if numba == "on" and self._compiled is None:
            raise MissingExtra("The search option numba='on' needs 'numba'. Install it with: pip install 'swirl-env[fast]'")

    @staticmethod
    def build(folder: Path, passages: PassageStore, options: IndexOptions) -> None:
        """Writes the index of passages to a folder (see `swirl_env.tools.search.build`)."""
        build(folder, passages, options)

    def top(self, queries: Sequence[Sequence[str]], k: int) -> list[Best]:
        """Returns the best passages of each query (see `Ranker.top`)."""
        if self._until_compiled >= 0:
            self._until_compiled -= len(queries)
            self._compiled = load_compiled() if self._until_compiled < 0 else None
        counts = [self._count_terms(terms) for terms in queries]
        slices = [self._slices(own) for own in counts]
        best = self._compiled_best(slices, k) if self._compiled else [self._best(own, k) if own else [] for own in slices]
        if not len(self._absent):
            return best
        extra = [sum(self._absent[i] * count for i, count in own.items()) for own in counts]
        return [[(position, score + more) for position, score in own] for own, more in zip(best, extra, strict=True)]

    def _count_terms(self, terms: Sequence[str]) -> dict[int, int]:
        """Returns the numbers of the terms that any passage holds, and how often the query has them."""
        term_ids = self._term_ids
        counts: dict[int, int] = {}
        for term in terms:
            index = term_ids.get(term)
            if index is None:
                index = self._find(term)
            if index >= 0:
                counts[index] = counts.get(index, 0) + 1
        return counts

    def _slices(self, counts: dict[int, int]) -> list[Slice]:
        """Returns the lists of some terms, the shortest first."""
        starts, bounds = self._starts, self._bounds
        slices: list[Slice] = [(starts[i + 1] - starts[i], starts[i], count, bounds[i]) for i, count in counts.items()]
        slices.sort()
        return slices

    def _best(self, slices: list[Slice], k: int) -> Best:
        bounds = _rest_bounds(slices)
        totals = self._take_totals()
        parts: list[Ints] = []
        least = 0.0
        for length, start, count, _ in slices:
            part = self._passages[start : start + length].astype(np.int64)
            scores = self._scores[start : start + length]
            if count > 1:
                scores = scores * np.float32(count)
            sums = totals[part] + scores if parts else scores
            totals[part] = sums
            parts.append(part)
            high = sums[sums > least]
            if len(high) >= k:
                least = float(np.partition(high, len(high) - k)[len(high) - k])
            if least > bounds[len(parts)]:
                break
        passages, sums = _collect(parts, totals, least - bounds[len(parts)])
        if len(parts) < len(slices):
            passages, sums = self._add_rest(passages, sums, totals, slices[len(parts) :], bounds[len(parts) :], k)
        self._return_totals(totals)
        return _highest(passages, sums, k)

    def _add_rest(
        self,
        passages: Ints,
        sums: Floats,
        totals: Floats,
        slices: list[Slice],
        bounds: list[float],
        k: int,
    ) -> tuple[Ints, Floats]:
        """Returns the passages that can still be among the best, with what the remaining terms add to them.

        Args:
            passages: passages.
            sums: their sums so far.
            totals: zeros; zeros again afterwards.
            slices: the remaining terms.
            bounds: the most that they add together, from each of them on.
            k: how many are wanted.
        """
        ascending = False
        for (length, start, count, _), bound in zip(slices, bounds, strict=False):
            if len(sums) > k:
                able = sums >= np.partition(sums, len(sums) - k)[len(sums) - k] - np.float32(bound)
                passages, sums = passages[able], sums[able]
            part, scores = self._passages[start : start + length], self._scores[start : start + length]
            if len(passages) * _PROBE < length or len(passages) > _EXACT:
                if not ascending:  # looking up in order is kinder to the processor's cache
                    order, ascending = np.argsort(passages), True
                    passages, sums = passages[order], sums[order]
                # In the type of the list: otherwise numpy converts the list instead of the few passages.
                at = np.searchsorted(part, passages.astype(part.dtype))
                at[at == length] = 0
                held = part[at] == passages
                at, where = at[held], np.flatnonzero(held)
            else:
                totals[passages] = np.arange(1, len(passages) + 1, dtype=np.float32)
                numbers = totals[part]
                at = np.flatnonzero(numbers)
                where = numbers[at].astype(np.int64) - 1
                totals[passages] = 0
            sums[where] += scores[at] * np.float32(count) if count > 1 else scores[at]
        return passages, sums

    def _compiled_best(self, queries: list[list[Slice]], k: int) -> list[Best]:
        flat = [number for own in queries for part in own for number in part[:3]]
        slices = np.array(flat, dtype=np.int64).reshape(-1, 3)
        bounds = np.array([bound for own in queries for bound in _rest_bounds(own)], dtype=np.float32)
        ends = np.array([0, *itertools.accumulate(map(len, queries))])
        best = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        counts = np.zeros(len(queries), dtype=np.int64)

        def rank(first: int, last: int) -> None:
            totals = self._take_totals()
            self._compiled.rank_all(self._passages, self._scores, slices, bounds, ends, first, last, totals, best, scores, counts)
            self._return_totals(totals)

        _in_threads(rank, len(queries))
        rows = zip(best.tolist(), scores.tolist(), counts.tolist(), strict=True)
        return [list(zip(own[:count], values[:count], strict=True)) for own, values, count in rows]

    def _take_totals(self) -> Floats:
        """Returns zeros, and takes them away while in use: an interrupt would leave half a query in them."""
        try:
            return self._free.pop()
        except IndexError:
            return np.zeros(self._count, dtype=np.float32)

    def _return_totals(self, totals: Floats) -> None:
        if len(self._free) < _threads():
            self._free.append(totals)

    def _find(self, term: str) -> int:
        """Returns the number of a term, -1 for one that no passage holds, by binary search in the mapped terms."""
        if len(self._term_ids) >= _MEMORY:
            self._term_ids.clear()
        key = term.encode("utf-8", "surrogatepass")
        at = bisect.bisect_left(self._terms, key)
        exists = at < len(self._terms) and self._terms[at] == key
        index = self._term_ids[term] = at if exists else -1
        return index


def _in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Calls `work` with ranges that cover `count` queries, in as many threads as are worth it."""
    threads = min(_threads(), count // _SHARE) if count >= 2 * _SHARE else 1
    if threads < 2:
        work(0, count)
        return
    # Threads of their own rather than a pool, which a forked process would inherit without its threads.
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        edges = [count * i // threads for i in range(threads + 1)]
        for done in [pool.submit(work, first, last) for first, last in itertools.pairwise(edges)]:
            done.result()


@functools.cache
def _threads() -> int:
    """Returns how many threads may rank at once: the cores of the process, or what limits numerical libraries."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(limit))) if limit.isdecimal() else cores


def _rest_bounds(slices: Sequence[Slice]) -> list[float]:
    """Returns the most that the terms from the i-th on add to a passage, for each i and the end."""
    sums = itertools.accumulate((count * bound for _, _, count, bound in reversed(slices)), initial=0.0)
    return [_SLACK * total for total in sums][::-1]


def _collect(parts: Sequence[Ints], totals: Floats, least: float) -> tuple[Ints, Floats]:
    """Returns the passages whose sum is `least` at the least and above 0, with their sums; `totals` are zeros afterwards.

    Args:
        parts: the passages of each term that was added.
        totals: their sums.
        least: what a passage needs to be among the best.
    """
    bound = np.float32(max(least, float(np.finfo(np.float32).tiny)))
    able: list[Ints] = []
    sums: list[Floats] = []
    for part in parts:
        own = totals[part]
        high = np.flatnonzero(own >= bound)
        able.append(part[high])
        sums.append(own[high])
        totals[part] = 0  # so that the other terms do not list it again
    return np.concatenate(able), np.concatenate(sums)


def _highest(passages: Ints, sums: Floats, k: int) -> Best:
    """Returns the `k` best of different passages."""
    if len(sums) > k:
        able = sums >= np.partition(sums, len(sums) - k)[len(sums) - k]
        passages, sums = passages[able], sums[able]
    order = np.lexsort((passages, -sums))[:k]
    return list(zip(passages[order].tolist(), sums[order].tolist(), strict=True))


class RankBm25Index:
    """BM25Okapi of rank-bm25: slow, in memory, and well known: the reference for the other backend."""

    def __init__(self, documents: Iterator[list[str]], options: IndexOptions) -> None:
        import rank_bm25

        rows = list(documents)
        self._model = rank_bm25.BM25Okapi(rows, k1=options.k1, b=options.b) if any(rows) else None

    def top(self, queries: Sequence[Sequence[str]], k: int) -> list[Best]:
        """Returns the best passages of each query (see `Ranker.top`)."""
        return [self._top(terms, k) for terms in queries]

    def _top(self, terms: Sequence[str], k: int) -> Best:
        if self._model is None or not terms:
            return []
        scores = self._model.get_scores(list(terms))
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(position), float(scores[position])) for position in best if scores[position] > 0]
