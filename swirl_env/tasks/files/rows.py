"""Rows of data files: JSON lines, JSON lists, Parquet or the hub; read once per process, decoded on access."""

from __future__ import annotations

import functools
import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from swirl_env.errors import ConfigError, DataNotFound, MissingExtra

Row = Mapping[str, Any]


class Location(NamedTuple):
    """A file with its state when it was located, or a split of a dataset on the hub (``path`` is empty then)."""

    path: str
    changed: int = 0
    size: int = 0
    hub: tuple[str, str | None, str] | None = None

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
    if not file.is_file():
        raise DataNotFound(f"Expected a file at {file}; there is none. Check the path.")
    stat = file.stat()
    return Location(str(file), stat.st_mtime_ns, stat.st_size)


class JsonRows(Sequence[Row]):
    """Rows of JSON text, each decoded on access."""

    def __init__(self, raw: Sequence[bytes | msgspec.Raw], where: str) -> None:
        self._raw = raw
        self._where = where

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: Any) -> Any:
        try:
            row = msgspec.json.decode(self._raw[index])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._where}, row {index + 1}: expected a JSON object; {error}.") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{self._where}, row {index + 1}: expected a JSON object, got {type(row).__name__}.")
        return row


@functools.lru_cache(maxsize=16)
def read_rows(location: Location) -> Sequence[Row]:
    """Returns the rows of JSON lines, of a JSON list (bare or under ``data``), of Parquet, or of a split on the hub."""
    if location.hub:
        return _hub_rows(*location.hub)
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
    listed = _listed(data, location.path) if ".json" in path.suffixes else None
    return JsonRows([line for line in data.splitlines() if line.strip()] if listed is None else listed, location.path)


def _listed(data: bytes, where: str) -> list[msgspec.Raw] | None:
    """Returns the items of a JSON list, bare or under "data"; None for JSON lines that are called .json."""
    start = data[:64].lstrip()[:1]
    try:
        if start == b"[":
            return msgspec.json.decode(data, type=list[msgspec.Raw])
        whole = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        if start == b"{":
            return None
        raise ConfigError(f"{where}: expected a JSON list or JSON lines; {error}.") from error
    if "data" in whole:
        return msgspec.json.decode(whole["data"], type=list[msgspec.Raw])
    if "question" in whole or "Question" in whole:
        return None
    raise ConfigError(f"{where}: expected a list of questions, or one under 'data'; got the keys {sorted(whole)[:8]}.")


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
        rows: Sequence[Row] = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the library raises its own, the hub client's, the network's
        what = f"{name!r} (config {config!r}, split {split!r})"
        raise DataNotFound(
            f"{what} could not be read from the hub: {error}. A local copy is read with data_dir=FOLDER."
        ) from error
    return rows
