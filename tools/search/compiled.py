"""Compiled loops for building an index and for ranking: used if numba is installed (extra `fast`)."""

from __future__ import annotations

import itertools
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Positions = NDArray[np.int32]

_PROBE = 24
"""Looking up one passage in a list takes as long as running over this many entries of it, about."""

# numba has no types, so mypy knows nothing about what its decorator returns.


class CompiledTable:
    """Numbers words by first appearance (see `swirl_env.tools.search.words.Table`), in a hash table with linear probing."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._slots = np.full(1 << 16, -1, dtype=np.int32)
        self._hashes = np.zeros(len(self._slots) // 2, dtype=np.uint64)
        self._ends = np.zeros(len(self._slots) // 2 + 1, dtype=np.int64)
        self._letters = np.zeros(1 << 20, dtype=np.uint8)
        self._count = np.zeros(1, dtype=np.int64)

    def number(self, text: NDArray[np.uint8]) -> Positions:
        """Returns the number of each word of a text (words between blanks), and -1 for the end of a passage."""
        numbers = np.empty(len(text) // 2 + 1, dtype=np.int32)
        at = size = 0
        while True:
            at, size = _number(
                text, at, numbers, size, self._end, self._slots, self._hashes, self._ends, self._letters, self._count
            )
            if at == len(text):
                return numbers[:size]
            self._grow(len(text))

    def words(self) -> list[bytes]:
        """Returns the words, by their numbers."""
        ends = self._ends[: int(self._count[0]) + 1].tolist()
        letters = self._letters[: ends[-1]].tobytes()
        return [letters[start:end] for start, end in itertools.pairwise(ends)]

    def _grow(self, longest: int) -> None:
        count = int(self._count[0])
        if 2 * count >= len(self._slots) - 2:
            self._hashes = np.append(self._hashes, np.zeros_like(self._hashes))
            self._ends = np.append(self._ends, np.zeros_like(self._hashes, dtype=np.int64))
            self._slots = np.full(2 * len(self._slots), -1, dtype=np.int32)
            _place(self._hashes, count, self._slots)
        if self._ends[count] + longest > len(self._letters):
            self._letters = np.append(self._letters, np.zeros(len(self._letters) + longest, dtype=np.uint8))


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _number(
    text: Any, at: Any, numbers: Any, size: Any, end: Any, slots: Any, hashes: Any, ends: Any, letters: Any, count: Any
) -> tuple[int, int]:
    """Numbers words from `at` on, and returns where it stopped (before a word, if the table is full) and how many there are."""
    blank = 32
    mask = np.uint64(len(slots) - 1)
    while at < len(text):
        if text[at] == blank:
            at += 1
            continue
        stop = at
        key = np.uint64(14695981039346656037)
        while stop < len(text) and text[stop] != blank:
            key = (key ^ np.uint64(text[stop])) * np.uint64(1099511628211)
            stop += 1
        if stop == at + 1 and text[at] == end:
            numbers[size] = -1
            size += 1
            at = stop
            continue
        key ^= key >> np.uint64(29)
        slot = key & mask
        while True:
            number = slots[slot]
            if number < 0 or (hashes[number] == key and _same(text, at, stop, letters, ends[number], ends[number + 1])):
                break
            slot = (slot + np.uint64(1)) & mask
        if number < 0:
            number = count[0]
            start = ends[number]
            if 2 * number >= len(slots) - 2 or start + stop - at > len(letters):
                return at, size
            letters[start : start + stop - at] = text[at:stop]
            ends[number + 1] = start + stop - at
            hashes[number] = key
            slots[slot] = number
            count[0] += 1
        numbers[size] = number
        size += 1
        at = stop
    return at, size


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _same(text: Any, start: Any, stop: Any, letters: Any, first: Any, last: Any) -> bool:
    if last - first != stop - start:
        return False
    for i in range(stop - start):  # noqa: SIM110 (numba compiles no generators)
        if text[start + i] != letters[first + i]:
            return False
    return True


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _place(hashes: Any, count: Any, slots: Any) -> None:
    """Fills an empty table with the words that it had when it was smaller."""
    mask = np.uint64(len(slots) - 1)
    for number in range(count):
        slot = hashes[number] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = number


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def invert(tokens: Positions, end: int, terms: int, passages: int) -> tuple[Ints, Positions, Positions, Positions]:
    """Returns the passages of each term, ascending, and how often each holds it (see `build.invert`)."""
    starts = np.zeros(terms + 1, dtype=np.int64)
    last = np.full(terms, -1, dtype=np.int32)
    lengths = np.zeros(passages, dtype=np.int32)
    passage = 0
    for token in tokens:
        if token >= 0:
            lengths[passage] += 1
            if last[token] != passage:
                last[token] = passage
                starts[token + 1] += 1
        elif token == end:
            passage += 1
    for term in range(terms):
        starts[term + 1] += starts[term]
    heads = starts[:terms].copy()
    holders = np.empty(starts[terms], dtype=np.int32)
    repeats = np.zeros(starts[terms], dtype=np.int32)
    last[:] = -1
    passage = 0
    for token in tokens:
        if token >= 0:
            if last[token] != passage:
                last[token] = passage
                holders[heads[token]] = passage
                heads[token] += 1
            repeats[heads[token] - 1] += 1
        elif token == end:
            passage += 1
    return starts, holders, repeats, lengths


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def rank_all(
    passages: Positions,
    scores: Floats,
    slices: Ints,
    bounds: Floats,
    ends: Ints,
    first_query: int,
    last_query: int,
    totals: Floats,
    best: Ints,
    best_scores: Floats,
    counts: Ints,
) -> None:
    """Writes the best passages of some queries of a batch, and how many each has (see `rank`).

    Args:
        passages: positions of passages, [P].
        scores: their scores, [P].
        slices: the terms of all queries, [T, 3].
        bounds: the bounds of the first query, one more than it has terms, then those of the second..., [T + Q].
        ends: where the terms of each query begin, and the end, [Q + 1].
        first_query: the first query to rank.
        last_query: the one to stop at.
        totals: zeros; zeros again afterwards, [N].
        best: space for the positions, [Q, k].
        best_scores: space for their scores, [Q, k].
        counts: space for how many there are, [Q].
    """
    for q in range(first_query, last_query):
        first, last = ends[q], ends[q + 1]
        own = bounds[first + q : last + q + 1]
        counts[q] = rank(passages, scores, slices[first:last], own, totals, best[q], best_scores[q])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def rank(
    passages: Positions,
    scores: Floats,
    slices: Ints,
    bounds: Floats,
    totals: Floats,
    best: Ints,
    best_scores: Floats,
) -> int:
    """Writes the best passages of a query to `best` and `best_scores`, and returns how many there are.

    The sums are formed in the same order and precision as with numpy, so both give the same bits.

    Args:
        passages: positions of passages, term by term, ascending within a term, [P].
        scores: their scores, [P].
        slices: length, start and number of repetitions of each term of the query, the rarest first, [T, 3].
        bounds: the most that the terms from the i-th on can add to a passage, [T + 1].
        totals: zeros, one per passage; zeros again afterwards, [N].
        best: space for the positions, [k].
        best_scores: space for their scores, [k].
    """
    added, size, seen = 0, 0, 0
    least = np.float32(0)
    while added < len(slices) and (added == 0 or least <= bounds[added]):
        first, last, repeats = slices[added, 1], slices[added, 1] + slices[added, 0], np.float32(slices[added, 2])
        for i in range(first, last):
            score = totals[passages[i]] + scores[i] * repeats
            totals[passages[i]] = score
            if score > least:
                seen = _note(passages[i], score, best, best_scores, seen)
                if seen == len(best):
                    least = best_scores[-1]
        size += last - first
        added += 1
    able = np.empty(size if added < len(slices) else 0, dtype=np.int32)
    count = 0
    for t in range(added):
        for i in range(slices[t, 1], slices[t, 1] + slices[t, 0]):
            passage = passages[i]
            score = totals[passage]
            # Zero or less means that an earlier term has listed this passage already, or will have nothing to list.
            if added < len(slices):
                if score > 0 and score + bounds[added] >= least:
                    able[count] = passage
                    count += 1
                    totals[passage] = -score
                elif score > 0:
                    totals[passage] = 0
                continue
            totals[passage] = 0
            if score > 0 and (count < len(best) or _above(score, passage, best_scores[-1], best[-1])):
                count = min(count + 1, len(best))
                _insert(passage, score, best, best_scores, count)
    if added == len(slices):
        return count
    for t in range(added, len(slices)):
        first, last, repeats = slices[t, 1], slices[t, 1] + slices[t, 0], np.float32(slices[t, 2])
        if count * _PROBE < last - first:
            for i in range(count):
                at = _find(passages, first, last, able[i])
                if at >= 0:
                    totals[able[i]] -= scores[at] * repeats
        else:
            for i in range(first, last):
                if totals[passages[i]] < 0:
                    totals[passages[i]] -= scores[i] * repeats
        if t + 1 < len(slices):
            count = _drop(able, count, totals, bounds[t + 1], best, best_scores)
    wanted = 0
    for i in range(count):
        passage, score = able[i], -totals[able[i]]
        totals[passage] = 0
        if wanted < len(best) or _above(score, passage, best_scores[-1], best[-1]):
            wanted = min(wanted + 1, len(best))
            _insert(passage, score, best, best_scores, wanted)
    return wanted


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _drop(able: Any, count: Any, totals: Any, bound: Any, best: Any, best_scores: Any) -> int:
    """Removes the passages that cannot be among the best any more, whose sums `totals` holds with a minus sign."""
    wanted = 0
    for i in range(count):
        passage, score = able[i], -totals[able[i]]
        if wanted < len(best) or score > best_scores[-1]:
            wanted = min(wanted + 1, len(best))
            _insert(passage, score, best, best_scores, wanted)
    if wanted < len(best):
        return int(count)
    remaining = 0
    for i in range(count):
        if bound - totals[able[i]] >= best_scores[-1]:
            able[remaining] = able[i]
            remaining += 1
        else:
            totals[able[i]] = 0
    return remaining


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _note(passage: Any, score: Any, best: Any, best_scores: Any, count: Any) -> int:
    """Notes the sum of a passage among the `count` best so far, once per passage; returns how many there are."""
    for i in range(count):
        if best[i] == passage:
            _insert(passage, score, best, best_scores, i + 1)
            return int(count)
    count = min(count + 1, len(best))
    _insert(passage, score, best, best_scores, count)
    return int(count)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _insert(passage: Any, score: Any, best: Any, best_scores: Any, count: Any) -> None:
    """Puts a passage among the best, in place of the last of `count`."""
    at = count - 1
    while at > 0 and _above(score, passage, best_scores[at - 1], best[at - 1]):
        best[at] = best[at - 1]
        best_scores[at] = best_scores[at - 1]
        at -= 1
    best[at] = passage
    best_scores[at] = score


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _find(passages: Any, start: Any, stop: Any, passage: Any) -> int:
    """Returns where a passage stands in a part of the list, -1 if it does not."""
    last = stop
    while start < stop:
        middle = (start + stop) // 2
        if passages[middle] < passage:
            start = middle + 1
        else:
            stop = middle
    return start if start < last and passages[start] == passage else -1


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _above(score: Any, passage: Any, other_score: Any, other: Any) -> bool:
    return bool(score > other_score or (score == other_score and passage < other))
