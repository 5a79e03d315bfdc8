"""Corpora: the passages that a search runs over, from memory, files, HF datasets or a generator.

Each has a fingerprint of its content, which names the search index built from it. A file's fingerprint is the hash of its
bytes; it is remembered next to the indexes under the file's identity (path, size, times, inode), so that opening an index
does not read the corpus again.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl_env.corpus.files import FileCorpus, JsonCorpus, JsonlCorpus, ParquetCorpus, PartsCorpus, TsvCorpus
from swirl_env.corpus.layout import Layout, to_passage
from swirl_env.corpus.memory import DatasetCorpus, GeneratedCorpus, MemoryCorpus, content_fingerprint, stream_from
from swirl_env.errors import ConfigError, DataNotFound, unknown_name
from swirl_env.protocols import Corpus
from swirl_env.types import Passage

__all__ = [
    "CORPUS_ENDINGS",
    "DatasetCorpus",
    "GeneratedCorpus",
    "JsonCorpus",
    "JsonlCorpus",
    "Layout",
    "MemoryCorpus",
    "ParquetCorpus",
    "PartsCorpus",
    "TsvCorpus",
    "content_fingerprint",
    "open_corpus",
    "stream_from",
    "to_passage",
]

CORPUS_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".tsv", ".tsv.gz", ".json")
"""Endings of the corpus files that can be read."""

_KINDS: dict[str, type[FileCorpus]] = {
    ".jsonl": JsonlCorpus,
    ".jsonl.gz": JsonlCorpus,
    ".ndjson": JsonlCorpus,
    ".ndjson.gz": JsonlCorpus,
    ".tsv": TsvCorpus,
    ".tsv.gz": TsvCorpus,
    ".parquet": ParquetCorpus,
    ".pq": ParquetCorpus,
    ".json": JsonCorpus,
}
_EXPECTED: dict[str, tuple[type, str]] = {
    "title_line": (bool, "true or false"),
    "quotes": (bool, "true or false"),
    "columns": (list, "a list of names"),
}
_OPTIONS = ("path", *(field.name for field in dataclasses.fields(Layout)))


def open_corpus(source: object) -> Corpus:
    """Returns the corpus of a source.

    Args:
        source: a path (one of `CORPUS_ENDINGS`; a folder that holds ``corpus.jsonl`` as in BEIR; a pattern such as
            ``wiki/*.parquet``), a mapping with ``path`` (or a list of paths) and the options of `Layout`, a
            `datasets.Dataset`, a sequence of `Passage`, or a ready corpus (returned as it is).

    Raises:
        ConfigError: for anything else.
        DataNotFound: if there is no such file.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source), Layout())
    if hasattr(source, "column_names"):
        return DatasetCorpus(source)
    if isinstance(source, Mapping):
        return _open_mapping(source)
    if isinstance(source, Corpus):
        return source
    if isinstance(source, Sequence) and all(isinstance(passage, Passage) for passage in source):
        return MemoryCorpus(source)
    raise ConfigError(f"Expected a corpus: a path, a datasets.Dataset, passages or a Corpus; got {type(source).__name__}.")


def _open_mapping(source: Mapping[Any, Any]) -> Corpus:
    for option in source:
        if option not in _OPTIONS:
            raise unknown_name("option of a corpus", str(option), _OPTIONS)
    options = {name: value for name, value in source.items() if name != "path"}
    for name, value in options.items():
        kind, expected = _EXPECTED.get(name, (str, "the name of a column"))
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"Expected the corpus option {name} to be {expected}, got {value!r:.80}.")
    if options.get("columns") is not None:
        options["columns"] = tuple(options["columns"])
    layout, path = Layout(**options), source.get("path")
    if isinstance(path, (str, os.PathLike)):
        return _open_path(os.fspath(path), layout)
    if isinstance(path, Sequence) and path and all(isinstance(one, (str, os.PathLike)) for one in path):
        return _open_parts(path, layout)
    raise ConfigError(f"Expected the corpus option path to be a path or a list of paths, got {path!r:.80}.")


def _open_path(name: str, layout: Layout) -> Corpus:
    path = Path(name).expanduser()
    if path.is_dir():
        inside = [path / f"corpus{ending}" for ending in CORPUS_ENDINGS]
        path = next((file for file in inside if file.is_file()), inside[0])
    elif not path.exists() and any(mark in name for mark in "*?["):
        files = sorted(glob.glob(str(path), recursive=True))
        if not files:
            raise DataNotFound(f"Expected corpus files that match {name!r}; there are none. Check the pattern.")
        return _open_parts(files, layout)
    return _open_file(path, layout, "")


def _open_parts(paths: Sequence[str | os.PathLike[str]], layout: Layout) -> Corpus:
    files = [Path(path).expanduser() for path in paths]
    return PartsCorpus([_open_file(file, layout, f"{file.name.partition('.')[0]}-") for file in files])


def _open_file(path: Path, layout: Layout, prefix: str) -> Corpus:
    kind = next((kind for ending, kind in _KINDS.items() if path.name.endswith(ending)), None)
    if kind is None:
        raise ConfigError(f"Expected a corpus file that ends in {', '.join(CORPUS_ENDINGS)}; got {path.name!r}.")
    corpus: Corpus = kind(path, layout, prefix)  # type: ignore[assignment]
    return corpus
