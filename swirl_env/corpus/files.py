"""Corpora in files: JSON lines, JSON, TSV and Parquet, one file or many, each of its rows read by a `Layout`."""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import io
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np

from swirl_env.cache import file_fingerprint
from swirl_env.corpus.layout import Layout
from swirl_env.corpus.memory import Fingerprinted, position_in, stream_from
from swirl_env.errors import ConfigError, DataNotFound, MissingExtra
from swirl_env.types import Passage


class FileCorpus(Fingerprinted):
    """Base of the corpora in files: a path that must exist, and a fingerprint of its bytes, computed on first use.

    Args:
        path: the file.
        layout: how its rows are read.
        prefix: stands before the position of rows that have no id.
    """

    def __init__(self, path: str | os.PathLike[str], layout: Layout | None = None, prefix: str = "") -> None:
        self.path = Path(path).expanduser().resolve()
        if not self.path.is_file():
            raise DataNotFound(f"Expected a corpus file at {self.path}; there is none. Check the path or the data folder.")
        self._layout = layout or Layout()
        self._prefix = prefix

    def _hash(self) -> str:
        content = file_fingerprint(self.path)
        if self._layout == Layout() and not self._prefix:
            return content
        return hashlib.blake2b(f"{content}|{self._layout}|{self._prefix}".encode(), digest_size=16).hexdigest()

    def _passage(self, row: Any, index: int) -> Passage:
        return self._layout.read(row, index, str(self.path), self._prefix)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"


class _LinesCorpus(FileCorpus):
    """Base of the corpora whose rows are lines, plain or gzipped (``.gz``).

    Reading in order is a stream. Random access finds the start of each row once; a gzipped file is unpacked into memory for it.
    """

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Passage]:
        return self.stream_from(0)

    def stream_from(self, start: int) -> Iterator[Passage]:
        """Yields the passages from a position on."""
        raise NotImplementedError

    @property
    def _starts(self) -> np.ndarray:
        raise NotImplementedError

    @property
    def _packed(self) -> bool:
        return self.path.suffix == ".gz"

    def _open(self) -> IO[bytes]:
        return cast("IO[bytes]", gzip.open(self.path, "rb")) if self._packed else self.path.open("rb")

    def _open_anywhere(self) -> IO[bytes]:
        return io.BytesIO(self._unpacked) if self._packed else self.path.open("rb")

    @functools.cached_property
    def _unpacked(self) -> bytes:
        with self._open() as file:
            return file.read()


class JsonlCorpus(_LinesCorpus):
    """One JSON object per line, plain or gzipped (``.gz``)."""

    def stream_from(self, start: int) -> Iterator[Passage]:
        """Yields the passages from a position on; the lines before are not decoded."""
        with self._open() as lines:
            rows = enumerate(line for line in lines if line.strip())
            for index, line in itertools.islice(rows, start, None):
                yield self._read(line, index)

    def __getitem__(self, index: int, /) -> Passage:
        index = position_in(index, len(self))
        with self._open_anywhere() as lines:
            lines.seek(int(self._starts[index]))
            return self._read(lines.readline(), index)

    def _read(self, line: bytes, index: int) -> Passage:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}, row {index + 1}: expected a JSON object; {error}.") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{self.path}, row {index + 1}: expected a JSON object, got {type(row).__name__}.")
        return self._passage(row, index)

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        starts, at = [], 0
        with self._open_anywhere() as lines:
            for line in lines:
                if line.strip():
                    starts.append(at)
                at += len(line)
        return np.array(starts, dtype=np.int64)


class TsvCorpus(_LinesCorpus):
    """Tab-separated rows under a header (or `Layout.columns`), plain or gzipped: DPR's ``psgs_w100.tsv``, MS MARCO's."""

    def stream_from(self, start: int) -> Iterator[Passage]:
        """Yields the passages from a position on."""
        with self._open() as lines:
            for index, (_, row) in itertools.islice(enumerate(self._rows(lines)), start, None):
                yield self._passage(row, index)

    def __getitem__(self, index: int, /) -> Passage:
        index = position_in(index, len(self))
        with self._open_anywhere() as lines:
            lines.seek(int(self._starts[index]))
            _, row = next(self._rows(lines, first=index))
        return self._passage(row, index)

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        with self._open_anywhere() as lines:
            return np.array([start for start, _ in self._rows(lines)], dtype=np.int64)

    @functools.cached_property
    def _columns(self) -> Sequence[str]:
        if self._layout.columns is not None:
            return self._layout.columns
        with self._open() as lines:
            header: list[str] = next(self._fields(lines), (0, [""]))[1]
        if not set(header) & set(self._layout.names):
            raise ConfigError(
                f"{self.path}: expected a header with one of {', '.join(self._layout.names)}; the first row is "
                f"{' | '.join(header)!r:.80}. For a file without one give columns=, e.g. [id,text]."
            )
        return header

    def _rows(self, lines: IO[bytes], first: int | None = None) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields where each row starts, and its fields by column."""
        columns = self._columns
        fields = self._fields(lines)
        if self._layout.columns is None and first is None:
            next(fields)
        for index, (start, values) in enumerate((f for f in fields if f[1]), first or 0):
            if len(values) != len(columns):
                raise ConfigError(
                    f"{self.path}, row {index + 1}: expected {len(columns)} fields ({', '.join(columns)}), got {len(values)}. "
                    "If quotation marks are part of the text, give quotes=false."
                )
            yield start, dict(zip(columns, values, strict=True))

    def _fields(self, lines: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        """Yields where each row starts, and its fields; a field in quotation marks may hold line breaks."""
        csv.field_size_limit(sys.maxsize)
        at = lines.tell()

        def decoded() -> Iterator[str]:
            nonlocal at
            for line in lines:
                text = line.decode("utf-8")
                text = text if at else text.removeprefix("\ufeff")
                at += len(line)
                yield text

        rows = csv.reader(decoded(), delimiter="\t", quoting=csv.QUOTE_MINIMAL if self._layout.quotes else csv.QUOTE_NONE)
        while True:
            start = at
            try:
                yield start, next(rows)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                raise ConfigError(f"{self.path}, byte {start}: expected tab-separated UTF-8 text; {error}.") from error


class ParquetCorpus(FileCorpus):
    """A Parquet file with the columns that its layout names; one row group in memory at a time."""

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
        return (self._passage(row, index) for index, row in itertools.islice(rows, start - first, None))

    def __getitem__(self, index: int, /) -> Passage:
        index = position_in(index, len(self))
        group = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[group - 1]) if group else 0
        return self._passage(self._group(group).slice(index - first, 1).to_pylist()[0], index)

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
        return [name for name in self._file.schema_arrow.names if name in self._layout.names]

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        metadata = self._file.metadata
        return np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])

    def _group(self, group: int) -> Any:
        cached = self.__dict__.get("_cached_group")
        if cached is None or cached[0] != group:
            cached = self.__dict__["_cached_group"] = (group, self._file.read_row_group(group, columns=self._columns))
        return cached[1]


class JsonCorpus(FileCorpus):
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
        return tuple(self._passage(row, index) for index, row in enumerate(rows))


class PartsCorpus(Fingerprinted):
    """Several files as one corpus, one after the other; rows without an id are called by their file and position.

    Args:
        parts: the corpora of the files.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts

    def _hash(self) -> str:
        return hashlib.blake2b("|".join(part.fingerprint for part in self._parts).encode(), digest_size=16).hexdigest()

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[Passage]:
        return itertools.chain.from_iterable(self._parts)

    def stream_from(self, start: int) -> Iterator[Passage]:
        """Yields the passages from a position on."""
        at = int(np.searchsorted(self._ends, start, side="right"))
        if at < len(self._parts):
            before = int(self._ends[at - 1]) if at else 0
            yield from stream_from(self._parts[at], start - before)
        yield from itertools.chain.from_iterable(self._parts[at + 1 :])

    def __getitem__(self, index: int, /) -> Passage:
        index = position_in(index, len(self))
        at = int(np.searchsorted(self._ends, index, side="right"))
        passage: Passage = self._parts[at][index - (int(self._ends[at - 1]) if at else 0)]
        return passage
