"""Builds an index in parts of bounded size and merges them, in bounded memory; a build goes on where it was killed.

A part holds, for each of its terms in the order of their bytes, the passages with the term and how often they hold it. Scores
need the whole corpus (how many passages hold a term, the average length), so they are computed while merging.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from swirl_env.tools.search import scoring
from swirl_env.tools.search.scoring import Method
from swirl_env.tools.search.storage import PackedStrings, PassageStore, sync_folder
from swirl_env.tools.search.text import Analyzer, Splitter, Stemmer, StopWords
from swirl_env.tools.search.words import END, Numbers, Table, join_words, make_table

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_log = logging.getLogger(__name__)
_PASSAGES = 2_048
"""Passages that are split together."""
_LETTERS = 4 << 20
"""Bytes of passages that are split together, about."""
_WORDS = 16 << 20
"""Words of a part, about."""
_POSTINGS = 1 << 20
"""Pairs of term and passage that are merged together, about."""
_MANY = 20_000


class IndexOptions(msgspec.Struct, frozen=True):
    """Everything that an index depends on apart from the passages; part of its name in the cache."""

    method: Method = "lucene"
    k1: float = 0.9
    b: float = 0.4
    title_weight: int = 1
    tokenizer: Splitter = "words"
    stemmer: Stemmer = "english"
    stopwords: StopWords = "english"


def build(folder: Path, passages: PassageStore, options: IndexOptions) -> None:
    """Writes the index of passages to a folder, which may hold what a killed build has left there."""
    parts_folder, merged = folder / "parts", folder / "parts.merged"
    shutil.rmtree(merged, ignore_errors=True)
    parts_folder.mkdir(exist_ok=True)
    if len(passages) >= _MANY:
        _log.info("Building the search index of %s passages.", f"{len(passages):,}")
    parts: list[_Part] = []
    analyzer = Analyzer(options.tokenizer, options.stemmer, options.stopwords)
    compiled = load_compiled() if len(passages) >= _MANY else None
    while not parts or parts[-1].stop < len(passages):
        part = parts_folder / f"{len(parts):06}"
        if not part.is_dir():
            _write_part(part, passages, parts[-1].stop if parts else 0, analyzer, options.title_weight, compiled)
        parts.append(_Part(part))
        if len(passages) >= _MANY and parts[-1].stop < len(passages):
            _log.info("Search index: %.0f %% of the passages are read.", 100 * parts[-1].stop / len(passages))
    _merge(folder, parts, options)
    # Out of the way first: a build that is killed in the middle of the removal must not go on with what is left of them.
    os.rename(parts_folder, merged)
    shutil.rmtree(merged)


def load_compiled() -> Any:
    """Returns the module of compiled loops, None if numba is not installed (or does not work on this machine)."""
    try:
        from swirl_env.tools.search import compiled
    except Exception:
        return None
    return compiled


class Postings(NamedTuple):
    """The passages of each term, term by term."""

    starts: Ints
    """Where each term begins, and the end, [V + 1]."""
    passages: Numbers
    """Positions of passages, ascending within a term, [P]."""
    repeats: Numbers
    """How often the passage holds the term, [P]."""
    lengths: Numbers
    """How many terms each passage holds, repetitions included, [N]."""


def invert(tokens: Numbers, end: int, terms: int, passages: int) -> Postings:
    """Returns the passages of each term.

    Args:
        tokens: terms of one passage after the other, `end` after each passage; other negative numbers are passed over.
        end: what ends a passage.
        terms: how many terms there are.
        passages: how many passages there are.
    """
    passage = np.cumsum(tokens == end, dtype=np.int32)
    real = tokens >= 0
    lengths = np.bincount(passage[real], minlength=passages).astype(np.int32)
    pairs = np.sort(tokens[real].astype(np.int64) << 32 | passage[real])
    first = np.flatnonzero(np.diff(pairs, prepend=-1))
    repeats = np.diff(first, append=len(pairs)).astype(np.int32)
    pairs = pairs[first]
    starts = np.searchsorted(pairs, np.arange(terms + 1, dtype=np.int64) << 32)
    return Postings(starts, (pairs & 0xFFFF_FFFF).astype(np.int32), repeats, lengths)


def _write_part(target: Path, passages: PassageStore, start: int, analyzer: Analyzer, title_weight: int, compiled: Any) -> None:
    """Writes the part of the passages from `start` on, whole or not at all."""
    table = make_table(compiled)
    numbers, stop = _number_words(passages, start, table, analyzer, title_weight)
    # A stop word becomes -1 as the end of a passage is, so that one moves to the number below.
    end = -2
    term_of_word, terms = _sorted_terms(table.words(), analyzer)
    tokens = np.append(term_of_word, np.int32(end))[numbers]
    count = stop - start
    inverted = (compiled.invert if compiled else invert)(tokens, end, len(terms), count)
    aside = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    PackedStrings.write(aside, "terms", terms)
    for name, values in zip(Postings._fields, inverted, strict=True):
        values.tofile(aside / name)
    np.array([start, stop], dtype=np.int64).tofile(aside / "range")
    sync_folder(aside)
    os.rename(aside, target)


def _number_words(passages: PassageStore, start: int, table: Table, analyzer: Analyzer, title_weight: int) -> tuple[Numbers, int]:
    """Returns the words of as many passages as make a part, and where it stops."""
    assert END == -1
    parts: list[Numbers] = []
    words, stop = 0, start
    while stop < len(passages) and words < _WORDS:
        block_stop = passages.stop_of_block(stop, _PASSAGES, _LETTERS)
        parts.append(table.number(join_words(passages.raw(stop, block_stop), analyzer, title_weight)))
        words, stop = words + len(parts[-1]), block_stop
    return np.concatenate(parts) if parts else np.zeros(0, np.int32), stop


def _sorted_terms(words: Sequence[bytes], analyzer: Analyzer) -> tuple[Numbers, list[bytes]]:
    """Returns the number of each word's term (-1 for a stop word), and the terms, in the order of their bytes."""
    numbers: dict[str, int] = {}
    of_word = array("i")
    for word in words:
        term = analyzer.term(word.decode("utf-8", "surrogatepass"))
        of_word.append(numbers.setdefault(term, len(numbers)) if term else -1)
    terms = [term.encode("utf-8", "surrogatepass") for term in numbers]
    order = sorted(range(len(terms)), key=terms.__getitem__)
    place = np.full(len(terms) + 1, -1, dtype=np.int32)
    place[order] = np.arange(len(terms), dtype=np.int32)
    return place[np.frombuffer(of_word, np.int32)] if of_word else place[:0], [terms[i] for i in order]


class _Part:
    """A part on disk; what it holds is read piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.start, self.stop = np.fromfile(folder / "range", dtype=np.int64).tolist()
        self.starts: Ints = np.fromfile(folder / "starts", dtype=np.int64)
        self._folder = folder

    def terms(self) -> Iterator[bytes]:
        """Yields the terms in order."""
        terms = PackedStrings(self._folder, "terms")
        return (terms[i] for i in range(len(terms)))

    def lengths(self) -> Numbers:
        """Returns the lengths of the passages."""
        return np.fromfile(self._folder / "lengths", dtype=np.int32)

    def read(self, name: str, first: int, last: int) -> Numbers:
        """Returns a stretch of ``passages`` or ``repeats``."""
        return np.fromfile(self._folder / name, dtype=np.int32, count=last - first, offset=4 * first)


def _merge(folder: Path, parts: Sequence[_Part], options: IndexOptions) -> None:
    numbers = _merge_terms(folder, parts)
    frequency = np.zeros(max((int(n[-1]) + 1 for n in numbers if len(n)), default=0), dtype=np.int64)
    for part, own in zip(parts, numbers, strict=True):
        frequency[own] += np.diff(part.starts)
    starts = np.append(0, np.cumsum(frequency))
    lengths = np.concatenate([part.lengths() for part in parts])
    method, k1 = options.method, options.k1
    idf = scoring.idf(method, frequency.astype(np.float64), len(lengths))
    absent = (idf * scoring.absent_weight(method, k1)).astype(np.float32)
    relative = scoring.relative_length(lengths, options.b).astype(np.float32)
    bounds = np.zeros(len(frequency), dtype=np.float32)
    with (
        _array_file(folder / "scores.npy", np.float32, starts[-1]) as to_scores,
        _array_file(folder / "passages.npy", np.int32, starts[-1]) as to_passages,
    ):
        for first, last in _stretches(starts):
            passages, repeats = _gather(parts, numbers, starts, first, last)
            weights = scoring.weight(method, repeats.astype(np.float32), relative[passages], k1)
            counts = frequency[first:last]
            scores = (weights * np.repeat(idf[first:last], counts) - np.repeat(absent[first:last], counts)).astype(np.float32)
            scores.tofile(to_scores)
            passages.tofile(to_passages)
            bounds[first:last] = np.maximum.reduceat(scores, starts[first:last] - starts[first])
    np.save(folder / "starts.npy", starts)
    np.save(folder / "bounds.npy", bounds)
    np.save(folder / "absent.npy", absent if absent.any() else absent[:0])
    np.save(folder / "count.npy", np.array([len(lengths)]))


def _merge_terms(folder: Path, parts: Sequence[_Part]) -> list[Ints]:
    """Writes the terms of all parts in the order of their bytes, and returns the number of each part's terms among them."""
    numbers = [array("q") for _ in parts]
    streams = [zip(part.terms(), itertools.repeat(i)) for i, part in enumerate(parts)]

    def merged() -> Iterator[bytes]:
        for number, (term, holders) in enumerate(itertools.groupby(heapq.merge(*streams), key=lambda pair: pair[0])):
            for _, i in holders:
                numbers[i].append(number)
            yield term

    PackedStrings.write(folder, "terms", merged())
    return [np.array(own, dtype=np.int64) for own in numbers]


def _stretches(starts: Ints) -> Iterator[tuple[int, int]]:
    """Yields ranges of terms with about `_POSTINGS` postings each, of one term at least."""
    first, terms = 0, len(starts) - 1
    while first < terms:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _POSTINGS, side="right")) - 1)
        yield first, min(last, terms)
        first = last


def _gather(parts: Sequence[_Part], numbers: Sequence[Ints], starts: Ints, first: int, last: int) -> tuple[Numbers, Numbers]:
    """Returns passages and repeats of a range of terms, those of the parts one after the other within each term."""
    size = int(starts[last] - starts[first])
    passages, repeats = np.empty(size, np.int32), np.empty(size, np.int32)
    heads = starts[first:last] - starts[first]
    for part, own in zip(parts, numbers, strict=True):
        low, high = np.searchsorted(own, (first, last)).tolist()
        begin, end = int(part.starts[low]), int(part.starts[high])
        if begin == end:
            continue
        counts = np.diff(part.starts[low : high + 1])
        terms = own[low:high] - first
        places = np.arange(end - begin) + np.repeat(heads[terms] - (part.starts[low:high] - begin), counts)
        passages[places] = part.read("passages", begin, end) + np.int32(part.start)
        repeats[places] = part.read("repeats", begin, end)
        heads[terms] += counts
    return passages, repeats


def _array_file(path: Path, dtype: Any, size: int) -> Any:
    """Returns a ``.npy`` file of a one-dimensional array, open for its values."""
    file = path.open("wb")
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (int(size),)}
    np.lib.format.write_array_header_1_0(file, header)
    return file
