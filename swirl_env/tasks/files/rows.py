"""Rows of data files: JSON lines, JSON lists, Parquet or the hub; read once per process, decoded on access."""

from __future__ import annotations

import bisect
import contextlib
import functools
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from swirl_env.errors import ConfigError, DataNotFound, MissingExtra

Row = Mapping[str, Any]


class Location(NamedTuple):
    """A file with its state when it was located, or a split of a dataset on the hub (``path`` is empty then)."""

    path: str
    changed: int = 0
    size: int = 0
    hub: tuple[str, str | None, str] | None = None
    more: tuple[Location, ...] = ()
    """The other shards of a set that is split over several files, in their order."""

    @property
    def folder(self) -> Path | None:
        """Folder of the file; None for the hub."""
        return Path(self.path).parent if self.path else None

    def __str__(self) -> str:
        return f"{self.hub[0]} ({self.hub[2]})" if self.hub else self.path


def locate(path: str | os.PathLike[str]) -> Location:
    """Returns the location of the file `path`.

    Raises:
        DataNotFound: if it is no file.
    """
    file = Path(path).expanduser().resolve()
    if file.is_dir():
        raise DataNotFound(f"Expected a file at {file}; it is a folder. Name the file in it.")
    if not file.is_file():
        raise DataNotFound(f"Expected a file at {file}; there is none. Check the path.")
    stat = file.stat()
    return Location(str(file), stat.st_mtime_ns, stat.st_size)


class JsonRows(Sequence[Row]):
    """Rows of JSON text, each decoded on access."""

    def __init__(self, raw: Sequence[bytes | msgspec.Raw], source: str) -> None:
        self._raw = raw
        self._source = source

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: Any) -> Any:
        try:
            row = _decoded(self._raw[index])
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self._source}, row {index + 1}: expected a JSON object; {error}.") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{self._source}, row {index + 1}: expected a JSON object, got {type(row).__name__}.")
        return row

    def ids(self, names: Sequence[str]) -> list[str | None]:
        """Returns the id of each row; a row that cannot be read has none, and is refused when it is asked for."""
        fields = [(f"id_{i}", Any, msgspec.field(name=name, default=None)) for i, name in enumerate(names)]
        decoder = msgspec.json.Decoder(msgspec.defstruct("OnlyIds", fields))
        ids: list[str | None] = []
        for raw in self._raw:
            try:
                values = msgspec.structs.astuple(decoder.decode(raw))
            except (msgspec.DecodeError, UnicodeDecodeError):
                values = _slow_ids(raw, names)
            ids.append(next((str(value) for value in values if value is not None and str(value).strip()), None))
        return ids


def _decoded(raw: bytes | msgspec.Raw) -> object:
    """Returns a JSON value; NaN and Infinity, which Python writes and JSON does not have, are read too."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        text = bytes(raw)
        if b"NaN" in text or b"Infinity" in text:
            with contextlib.suppress(ValueError):
                return json.loads(text)
        raise


def _slow_ids(raw: bytes | msgspec.Raw, names: Sequence[str]) -> tuple[object, ...]:
    try:
        row = _decoded(raw)
    except (ValueError, RecursionError):
        return ()
    return tuple(row.get(name) for name in names) if isinstance(row, dict) else ()


class Shards(Sequence[Row]):
    """The rows of several files, one after the other."""

    def __init__(self, parts: Sequence[Sequence[Row]]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: Any) -> Any:
        part = bisect.bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]


@functools.lru_cache(maxsize=16)
def read_rows(location: Location) -> Sequence[Row]:
    """Returns the rows of JSON lines, of a JSON list (bare or under ``data``), of Parquet, or of a split on the hub.

    Raises:
        ConfigError: if there are none, or the file cannot be read.
    """
    rows: Sequence[Row]
    if location.more:
        rows = Shards([read_rows(part) for part in (location._replace(more=()), *location.more)])
    else:
        rows = _hub_rows(*location.hub) if location.hub else _file_rows(location)
    if not len(rows):
        raise ConfigError(f"{location}: expected questions, one row each; the file has no rows.")
    return rows


def read_ids(rows: Sequence[Row], names: Sequence[str]) -> list[str | None]:
    """Returns the id of each row, None for a row without one, without decoding the rest of JSON rows."""
    if isinstance(rows, Shards):
        return [name for part in rows._parts for name in read_ids(part, names)]
    if isinstance(rows, JsonRows):
        return rows.ids(names)
    columns = getattr(rows, "column_names", None)
    if columns is not None:  # datasets: reading a column is quicker than reading its rows
        select: Callable[[list[str]], Sequence[Row]] = rows.select_columns  # type: ignore[attr-defined]
        rows = select([name for name in names if name in columns])
    return [_id_in(row, names) for row in rows]


def _id_in(row: Row, names: Sequence[str]) -> str | None:
    return next((str(row[name]) for name in names if row.get(name) is not None and str(row[name]).strip()), None)


def _file_rows(location: Location) -> Sequence[Row]:
    path = Path(location.path)
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{path}: expected a gzipped file; {error}.") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    whole = ".json" in path.suffixes or data.lstrip()[:1] == b"["
    listed = _listed(data, location.path) if whole else None
    return JsonRows([line for line in data.splitlines() if line.strip()] if listed is None else listed, location.path)


def _listed(data: bytes, source: str) -> list[msgspec.Raw] | None:
    """Returns the items of a JSON list, bare or under "data"; None for JSON lines that are called .json."""
    if not data.strip():
        return []
    start = data.lstrip()[:1]
    try:
        if start == b"[":
            return msgspec.json.decode(data, type=list[msgspec.Raw])
        whole = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        if start == b"{":
            return None
        raise ConfigError(f"{source}: expected a JSON list or JSON lines; {error}.") from error
    for key in ("data", "Data"):
        if key in whole:
            try:
                return msgspec.json.decode(whole[key], type=list[msgspec.Raw])
            except msgspec.DecodeError as error:
                raise ConfigError(f"{source}: expected a list of questions under {key!r}; {error}.") from error
    if "question" in whole or "Question" in whole:
        return [msgspec.Raw(data)]
    raise ConfigError(f"{source}: expected a list of questions, or one under 'data'; got the keys {sorted(whole)[:8]}.")


def _parquet_rows(path: Path) -> Sequence[Row]:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("Parquet files need 'pyarrow'. Install it with: pip install 'swirl-env[train]'") from error
    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: expected a Parquet file; {error}.") from error
    return rows


def _hub_rows(name: str, config: str | None, split: str) -> Sequence[Row]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtra("Data from the hub needs 'datasets'. Install it with: pip install 'swirl-env[train]'") from error
    try:
        rows = cast("Sequence[Row]", datasets.load_dataset(name, config, split=split))
    except Exception as error:  # the library raises its own, the hub client's, the network's
        what = f"{name!r} (config {config!r}, split {split!r})"
        raise DataNotFound(
            f"{what} could not be read from the hub: {error}. A local copy is read with data_dir=FOLDER."
        ) from error
    return rows
