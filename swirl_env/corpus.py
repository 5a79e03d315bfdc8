"""Corpora: the passages that a search runs over, from memory, files, HF datasets or a generator.

Each has a fingerprint of its content, which names the search index built from it. A file's fingerprint is the hash of its
bytes; it is remembered next to the indexes under the file's identity (path, size, times, inode), so that opening an index
does not read the corpus again.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import itertools
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np

from swirl_env.cache import file_fingerprint
from swirl_env.errors import ConfigError, DataNotFound, MissingExtra
from swirl_env.protocols import Corpus, StreamsFrom
from swirl_env.types import Passage

CORPUS_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".json")
"""Endings of the corpus files that can be read."""

_ID = ("id", "_id", "docid", "idx")
_TEXT = ("text", "contents", "paragraph_text", "sentences")


def to_passage(row: Mapping[str, Any], index: int, source: str = "corpus") -> Passage:
    """Reads one row of a corpus: ``id``, ``title``, ``text``, or the keys of BEIR, Anserini and MuSiQue for them.

    A row without an id gets its position; one without a title gets an empty one; a text in sentences is joined.

    Args:
        row: the row.
        index: its position.
        source: what to name in an error.

    Raises:
        ConfigError: if the row has no text.
    """
    text = next((row[key] for key in _TEXT if row.get(key) is not None), None)
    if isinstance(text, (list, tuple)):
        text = " ".join(str(sentence).strip() for sentence in text)
    if not isinstance(text, str):
        raise ConfigError(
            f"{source}, row {index + 1}: expected a text under one of {', '.join(_TEXT)}; got the keys {sorted(row)}."
        )
    name = next((row[key] for key in _ID if row.get(key) is not None), index)
    return Passage(str(name), str(row.get("title") or ""), text)


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


class _Fingerprinted:
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


class MemoryCorpus(_Fingerprinted):
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
        index = _position(index, self._length)
        return self._item(index) if self._item else next(itertools.islice(self._factory(), index, None))


class _FileCorpus(_Fingerprinted):
    """Base of the corpora in files: a path that must exist, and a fingerprint of its bytes, computed on first use."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().resolve()
        if not self.path.is_file():
            raise DataNotFound(f"Expected a corpus file at {self.path}; there is none. Check the path or the data folder.")

    def _hash(self) -> str:
        return file_fingerprint(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"


class JsonlCorpus(_FileCorpus):
    """One JSON object per line, plain or gzipped (``.gz``); see `to_passage` for the keys.

    Reading in order is a stream. Random access finds the start of each line once; a gzipped file is unpacked into memory
    for it.
    """

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Passage]:
        return self.stream_from(0)

    def stream_from(self, start: int) -> Iterator[Passage]:
        """Yields the passages from a position on; the lines before are not decoded."""
        with self._open() as lines:
            rows = enumerate(line for line in lines if line.strip())
            for index, line in itertools.islice(rows, start, None):
                yield self._read(line, index)

    def __getitem__(self, index: int, /) -> Passage:
        index = _position(index, len(self))
        with io.BytesIO(self._unpacked) if self._packed else self.path.open("rb") as lines:
            lines.seek(int(self._starts[index]))
            return self._read(lines.readline(), index)

    @property
    def _packed(self) -> bool:
        return self.path.suffix == ".gz"

    def _open(self) -> IO[bytes]:
        return cast("IO[bytes]", gzip.open(self.path, "rb")) if self._packed else self.path.open("rb")

    def _read(self, line: bytes, index: int) -> Passage:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}, row {index + 1}: expected a JSON object; {error}.") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{self.path}, row {index + 1}: expected a JSON object, got {type(row).__name__}.")
        return to_passage(row, index, str(self.path))

    @functools.cached_property
    def _unpacked(self) -> bytes:
        with self._open() as file:
            return file.read()

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        starts, at = [], 0
        with io.BytesIO(self._unpacked) if self._packed else self.path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    starts.append(at)
                at += len(line)
        return np.array(starts, dtype=np.int64)


class ParquetCorpus(_FileCorpus):
    """A Parquet file with the columns that `to_passage` reads; one row group in memory at a time."""

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def __iter__(self) -> Iterator[Passage]:
        return self.stream_from(0)

    def stream_from(self, start: int) -> Iterator[Passage]:
        """Yields the passages from a position on; the row groups before are not read."""
        group = int(np.searchsorted(self._ends, start, side="right"))
        first = int(self._ends[group - 1]) if group else 0
        groups = list(range(group, len(self._ends)))
        batches = self._file.iter_batches(1024, row_groups=groups, columns=self._columns)
        rows = enumerate((row for batch in batches for row in batch.to_pylist()), first)
        return (to_passage(row, index, str(self.path)) for index, row in itertools.islice(rows, start - first, None))

    def __getitem__(self, index: int, /) -> Passage:
        index = _position(index, len(self))
        group = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[group - 1]) if group else 0
        return to_passage(self._group(group).slice(index - first, 1).to_pylist()[0], index, str(self.path))

    @functools.cached_property
    def _file(self) -> Any:
        try:
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise MissingExtra("Parquet corpora need 'pyarrow'. Install it with: pip install 'swirl-env[train]'") from error
        try:
            return pyarrow.parquet.ParquetFile(self.path, memory_map=True)
        except (pyarrow.ArrowException, OSError) as error:
            raise ConfigError(f"{self.path}: expected a Parquet file; {error}.") from error

    @functools.cached_property
    def _columns(self) -> list[str]:
        return [name for name in self._file.schema_arrow.names if name in (*_ID, "title", *_TEXT)]

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        metadata = self._file.metadata
        return np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])

    def _group(self, group: int) -> Any:
        cached = self.__dict__.get("_cached_group")
        if cached is None or cached[0] != group:
            cached = self.__dict__["_cached_group"] = (group, self._file.read_row_group(group, columns=self._columns))
        return cached[1]


class DatasetCorpus(_Fingerprinted):
    """A `datasets.Dataset` (map-style) with the columns that `to_passage` reads."""

    def __init__(self, dataset: Any) -> None:
        if not (hasattr(dataset, "column_names") and hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise ConfigError(f"Expected a map-style datasets.Dataset (one split of it), got {type(dataset).__name__}.")
        if isinstance(dataset, Mapping):
            raise ConfigError(f"Expected one split of a dataset, got all of them; choose one of {sorted(dataset)}.")
        self._dataset = dataset

    def _hash(self) -> str:
        """Returns the hash of the passages: the library's own fingerprint follows the cache folder, not the content."""
        return content_fingerprint(self)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Passage]:
        return (to_passage(row, index, "dataset") for index, row in enumerate(self._dataset))

    def __getitem__(self, index: int, /) -> Passage:
        index = _position(index, len(self))
        return to_passage(self._dataset[index], index, "dataset")


class JsonCorpus(_FileCorpus):
    """A JSON list of passages, or a record of title -> sentences, as HippoRAG keeps them; read into memory on first use."""

    def __len__(self) -> int:
        return len(self._passages)

    def __iter__(self) -> Iterator[Passage]:
        return iter(self._passages)

    def __getitem__(self, index: int, /) -> Passage:
        return self._passages[index]

    @functools.cached_property
    def _passages(self) -> tuple[Passage, ...]:
        try:
            content = msgspec.json.decode(self.path.read_bytes())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: expected a JSON list of passages; {error}.") from error
        rows = [{"title": title, "text": text} for title, text in content.items()] if isinstance(content, dict) else content
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"{self.path}: expected a JSON list of passages, or a record of title and text.")
        return tuple(to_passage(row, index, str(self.path)) for index, row in enumerate(rows))


def open_corpus(source: object) -> Corpus:
    """Returns the corpus of a source.

    Args:
        source: a path (``.jsonl``, ``.jsonl.gz``, ``.parquet``, ``.json``, or a folder that holds ``corpus.jsonl`` as in BEIR), a
            `datasets.Dataset`, a sequence of `Passage`, or a ready corpus (returned as it is).

    Raises:
        ConfigError: for anything else.
        DataNotFound: if there is no such file.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(source).expanduser())
    if hasattr(source, "column_names"):
        return DatasetCorpus(source)
    if isinstance(source, Corpus):
        return source
    if isinstance(source, Sequence) and all(isinstance(passage, Passage) for passage in source):
        return MemoryCorpus(source)
    raise ConfigError(f"Expected a corpus: a path, a datasets.Dataset, passages or a Corpus; got {type(source).__name__}.")


def _open_path(path: Path) -> Corpus:
    if path.is_dir():
        inside = [path / f"corpus{ending}" for ending in CORPUS_ENDINGS]
        path = next((file for file in inside if file.is_file()), inside[0])
    if path.name.endswith((".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")):
        return JsonlCorpus(path)
    if path.suffix in (".parquet", ".pq"):
        return ParquetCorpus(path)
    if path.suffix == ".json":
        return JsonCorpus(path)
    raise ConfigError(f"Expected a corpus file that ends in {', '.join(CORPUS_ENDINGS)}; got {path.name!r}.")


def _position(index: int, length: int) -> int:
    index = operator.index(index)
    if not -length <= index < length:
        raise IndexError(f"Passage {index} of a corpus of {length}.")
    return index % length
