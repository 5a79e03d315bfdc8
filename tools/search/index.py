"""The two ways to rank passages by BM25: an index of precomputed scores made by bm25s, and rank-bm25 as the reference."""

from __future__ import annotations

import bisect
import logging
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from swirl_env.errors import MissingExtra
from swirl_env.tools.search.storage import PackedStrings, PassageStore, map_array
from swirl_env.tools.search.text import Splitter, Stemmer, StopWords

Method = Literal["lucene", "robertson", "atire", "bm25l", "bm25+"]
METHODS = ("lucene", "robertson", "atire", "bm25l", "bm25+")

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_log = logging.getLogger(__name__)
_MANY = 20_000
_MEMORY = 200_000
_FEW = 64
_LARGE = 10_000
_WARM = 1_000

Numba = Literal["auto", "on", "off"]


class IndexOptions(msgspec.Struct, frozen=True):
    """Everything that an index depends on apart from the passages; part of its name in the cache."""

    method: Method = "lucene"
    k1: float = 0.9
    b: float = 0.4
    title_weight: int = 1
    tokenizer: Splitter = "words"
    stemmer: Stemmer = "english"
    stopwords: StopWords = "english"


class Ranker(Protocol):
    """Ranks passages for the terms of a query."""

    def top(self, terms: Sequence[str], k: int) -> list[tuple[int, float]]:
        """Returns positions and scores of the `k` best passages above 0: score falling, then position rising."""
        ...


def document_terms(passages: PassageStore, terms: Callable[[str], list[str]], title_weight: int) -> Iterator[list[str]]:
    """Yields the terms that each passage is indexed under: its title's, `title_weight` times, then its text's."""
    for passage in passages:
        yield (terms(passage.title) * title_weight if title_weight else []) + terms(passage.text)


class Bm25sIndex:
    """Scores of all (term, passage) pairs, computed by bm25s once and memory-mapped; a query adds up a few slices of them.

    Scores are added from the commonest term to the rarest, in float32, whatever the order of the words or the size of a batch,
    so that equal queries give equal bits, with numba and without.

    Args:
        folder: what `build` wrote.
        numba: ``on``, ``off``, or ``auto``: if installed, once a process has searched a large index a thousand times.
            Loading numba takes half a second and 60 MB, which a process that searches now and then should not pay.
    """

    def __init__(self, folder: Path, numba: Numba = "auto") -> None:
        self._scores = map_array(folder / "scores.npy")
        self._passages = map_array(folder / "passages.npy")
        self._starts = map_array(folder / "starts.npy").data
        self._absent = map_array(folder / "absent.npy").data
        self._order = map_array(folder / "order.npy").data
        self._terms = PackedStrings(folder, "terms")
        self._count = int(map_array(folder / "count.npy")[0])
        self._term_ids: dict[str, int] = {}
        self._local = threading.local()
        self._compiled = _compiled() if numba == "on" else None
        self._until_compiled = _WARM if numba == "auto" and self._count >= _LARGE else -1
        if numba == "on" and self._compiled is None:
            raise MissingExtra("The search option numba='on' needs 'numba'. Install it with: pip install 'swirl-env[fast]'")

    @staticmethod
    def build(folder: Path, documents: Iterator[list[str]], options: IndexOptions) -> None:
        """Writes the index of documents, each a list of terms."""
        ids: dict[str, int] = {}
        rows = [array("i", [ids.setdefault(term, len(ids)) for term in document]) for document in documents]
        if len(rows) >= _MANY:
            _log.info("Building the search index of %s passages.", f"{len(rows):,}")
        scores, passages, starts, absent = _bm25s(rows, ids, options)
        np.save(folder / "scores.npy", scores)
        # As 64-bit numbers they take twice the disk, and numpy adds them up in half the time.
        np.save(folder / "passages.npy", passages.astype(np.int64))
        np.save(folder / "starts.npy", starts.astype(np.int64))
        np.save(folder / "absent.npy", absent)
        np.save(folder / "count.npy", np.array([len(rows)]))
        terms = sorted((term.encode("utf-8", "surrogatepass"), index) for term, index in ids.items())
        PackedStrings.write(folder, "terms", (term for term, _ in terms))
        np.save(folder / "order.npy", np.array([index for _, index in terms], dtype=np.int64))

    def top(self, terms: Sequence[str], k: int) -> list[tuple[int, float]]:
        """Returns the best passages (see `Ranker.top`)."""
        term_ids = self._term_ids
        counts: dict[int, int] = {}
        for term in terms:
            index = term_ids.get(term)
            if index is None:
                index = self._find(term)
            if index >= 0:
                counts[index] = counts.get(index, 0) + 1
        if not counts:
            return []
        starts = self._starts
        slices = [(starts[index + 1] - starts[index], starts[index], count) for index, count in counts.items()]
        slices.sort(reverse=True)
        if self._until_compiled >= 0:
            self._until_compiled -= 1
            self._compiled = _compiled() if self._until_compiled < 0 else None
        best = self._compiled_best(slices, k) if self._compiled else _best(*self._add_up(slices), len(slices), k)
        extra = sum(self._absent[index] * count for index, count in counts.items()) if len(self._absent) else 0.0
        return [(position, score + extra) for position, score in best] if extra else best

    def _add_up(self, slices: list[tuple[int, int, int]]) -> tuple[Ints, Floats]:
        """Returns the passages that hold any of the terms, once for each term they hold, with their whole scores."""
        totals = self._take_totals()
        parts: list[Ints] = []
        for length, start, count in slices:
            part = self._passages[start : start + length]
            scores = self._scores[start : start + length]
            if count > 1:
                scores = scores * np.float32(count)
            # The longest list comes first and finds nothing to add to.
            totals[part] = totals[part] + scores if parts else scores
            parts.append(part)
        passages = np.concatenate(parts) if len(parts) > 1 else parts[0]
        scores = totals[passages]
        totals[passages] = 0
        self._local.totals = totals
        return passages, scores

    def _compiled_best(self, slices: list[tuple[int, int, int]], k: int) -> list[tuple[int, float]]:
        assert self._compiled is not None
        totals = self._take_totals()
        best = np.empty(k, dtype=np.int64)
        scores = np.empty(k, dtype=np.float32)
        count = self._compiled(self._passages, self._scores, np.array(slices), totals, best, scores)
        self._local.totals = totals
        return list(zip(best[:count].tolist(), scores[:count].tolist(), strict=True))

    def _take_totals(self) -> Floats:
        """Returns this thread's zeros, and takes them away while in use: an interrupt would leave half a query in them."""
        totals: Floats | None = getattr(self._local, "totals", None)
        self._local.totals = None
        return np.zeros(self._count, dtype=np.float32) if totals is None else totals

    def _find(self, term: str) -> int:
        """Returns the number of a term, -1 for one that no passage holds, by binary search in the mapped terms."""
        if len(self._term_ids) >= _MEMORY:
            self._term_ids.clear()
        key = term.encode("utf-8", "surrogatepass")
        at = bisect.bisect_left(self._terms, key)
        exists = at < len(self._terms) and self._terms[at] == key
        index = self._term_ids[term] = self._order[at] if exists else -1
        return index


def _compiled() -> Callable[..., int] | None:
    """Returns the compiled pass, None if numba is not installed (or does not work on this machine)."""
    try:
        from swirl_env.tools.search.compiled import add_up
    except Exception:
        return None
    compiled: Callable[..., int] = add_up
    return compiled


def _best(passages: Ints, scores: Floats, repeats: int, k: int) -> list[tuple[int, float]]:
    """Returns the `k` best of passages that occur up to `repeats` times each, with the same score each time."""
    wide = k * repeats
    if len(scores) > wide:
        # The `wide` best entries hold at least k different passages, so nothing below the last of them can be among the k.
        ordered = scores.copy()
        ordered.partition(len(scores) - wide)
        top = (scores >= ordered[len(scores) - wide]).nonzero()[0]
        passages, scores = passages[top], scores[top]
    if len(scores) > _FEW:
        passages, first = np.unique(passages, return_index=True)
        scores = scores[first]
        top = np.argsort(-scores, kind="stable")[:k]
        passages, scores = passages[top], scores[top]
    score_of = dict(zip(passages.tolist(), scores.tolist(), strict=True))
    ranked = sorted([(-score, position) for position, score in score_of.items() if score > 0])[:k]
    return [(position, -score) for score, position in ranked]


def _bm25s(rows: list[array[int]], ids: dict[str, int], options: IndexOptions) -> tuple[Floats, Ints, Ints, Floats]:
    """Returns scores, passages, the start of each term in both, and what each term gives to a passage without it."""
    if not ids:
        return np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.float32)
    # Imported here: it imports numba if that is installed, which a process that only searches does not need.
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.INFO)
    model = bm25s.BM25(k1=options.k1, b=options.b, method=options.method, backend="auto")
    model.index((rows, ids), create_empty_token=False, show_progress=False)
    absent = model.nonoccurrence_array
    matrix = model.scores
    return matrix["data"], matrix["indices"], matrix["indptr"], np.zeros(0, np.float32) if absent is None else absent


class RankBm25Index:
    """BM25Okapi of rank-bm25: slow, in memory, and well known: the reference for the other backend."""

    def __init__(self, documents: Iterator[list[str]], options: IndexOptions) -> None:
        import rank_bm25

        rows = list(documents)
        self._model = rank_bm25.BM25Okapi(rows, k1=options.k1, b=options.b) if any(rows) else None

    def top(self, terms: Sequence[str], k: int) -> list[tuple[int, float]]:
        """Returns the best passages (see `Ranker.top`)."""
        if self._model is None or not terms:
            return []
        scores = self._model.get_scores(list(terms))
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(position), float(scores[position])) for position in best if scores[position] > 0]
