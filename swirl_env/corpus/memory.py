"""Corpora in memory: passages, generators, data sets of the `datasets` library; and the stream of any corpus."""

from __future__ import annotations

import hashlib
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from swirl_env.corpus.layout import Layout
from swirl_env.errors import ConfigError
from swirl_env.protocols import Corpus, StreamsFrom
from swirl_env.types import Passage


def content_fingerprint(passages: Iterable[Passage]) -> str:
    """Returns the hash of passages, in a stream."""
    digest = hashlib.blake2b(digest_size=16)
    for passage in passages:
        for part in (passage.id, passage.title, passage.text):
            data = part.encode("utf-8", "surrogatepass")
            # The length in front keeps ("ab", "c") apart from ("a", "bc").
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()


def stream_from(corpus: Corpus, start: int) -> Iterator[Passage]:
    """Yields the passages of a corpus from a position on."""
    if start and isinstance(corpus, StreamsFrom):
        return corpus.stream_from(start)
    return itertools.islice(iter(corpus), start, None)


class Fingerprinted:
    """Base of the corpora whose fingerprint is computed on first use."""

    _fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""
        if self._fingerprint is None:
            self._fingerprint = self._hash()
        return self._fingerprint

    def _hash(self) -> str:
        raise NotImplementedError


class MemoryCorpus(Fingerprinted):
    """Passages held in memory. Their fingerprint is a hash of them, unless one was given."""

    def __init__(self, passages: Iterable[Passage], fingerprint: str | None = None) -> None:
        self._passages = tuple(passages)
        self._fingerprint = fingerprint

    def _hash(self) -> str:
        return content_fingerprint(self._passages)

    def __len__(self) -> int:
        return len(self._passages)

    def __iter__(self) -> Iterator[Passage]:
        return iter(self._passages)

    def __getitem__(self, index: int, /) -> Passage:
        return self._passages[index]


class GeneratedCorpus:
    """Passages made when they are read: millions of documents without memory or files.

    Args:
        factory: starts a fresh stream of all passages, the same ones each time.
        length: how many passages the stream gives.
        fingerprint: hash of everything that the passages are generated from.
        item: makes passage i on its own; without it, ``corpus[i]`` runs through the stream up to i.
    """

    def __init__(
        self,
        factory: Callable[[], Iterator[Passage]],
        length: int,
        fingerprint: str,
        item: Callable[[int], Passage] | None = None,
    ) -> None:
        self._factory = factory
        self._length = length
        self._item = item
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Passage]:
        return self._factory()

    def stream_from(self, start: int) -> Iterator[Passage]:
        """Yields the passages from a position on."""
        if self._item is None:
            return itertools.islice(self._factory(), start, None)
        return map(self._item, range(start, self._length))

    def __getitem__(self, index: int, /) -> Passage:
        index = position_in(index, self._length)
        return self._item(index) if self._item else next(itertools.islice(self._factory(), index, None))


class DatasetCorpus(Fingerprinted):
    """A `datasets.Dataset` (map-style) with the columns that its layout names."""

    def __init__(self, dataset: Any, layout: Layout | None = None) -> None:
        if not (hasattr(dataset, "column_names") and hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise ConfigError(f"Expected a map-style datasets.Dataset (one split of it), got {type(dataset).__name__}.")
        if isinstance(dataset, Mapping):
            raise ConfigError(f"Expected one split of a dataset, got all of them; choose one of {sorted(dataset)}.")
        self._dataset = dataset
        self._layout = layout or Layout()

    def _hash(self) -> str:
        """Returns the hash of the passages: the library's own fingerprint follows the cache folder, not the content."""
        return content_fingerprint(self)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Passage]:
        return (self._layout.read(row, index, "dataset") for index, row in enumerate(self._dataset))

    def __getitem__(self, index: int, /) -> Passage:
        index = position_in(index, len(self))
        return self._layout.read(self._dataset[index], index, "dataset")


def position_in(index: int, length: int) -> int:
    """Returns a position that may count from the end.

    Raises:
        IndexError: if there is no such passage.
    """
    index = operator.index(index)
    if not -length <= index < length:
        raise IndexError(f"Passage {index} of a corpus of {length}.")
    return index % length
