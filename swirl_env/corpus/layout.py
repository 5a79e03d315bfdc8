"""What in a row of a corpus is its id, its title and its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swirl_env.errors import ConfigError
from swirl_env.types import Passage

_ID = ("id", "_id", "docid", "idx")
_TITLE = ("title",)
_TEXT = ("text", "contents", "paragraph_text", "sentences")


@dataclass(frozen=True)
class Layout:
    """How rows are read.

    Without options these are the layouts of DPR and BEIR (``id``, ``title``, ``text``), Anserini (``contents``), MuSiQue, and of
    FlashRAG and Search-R1, whose ``contents`` begin with the title in quotation marks on a line of its own.

    Args:
        id: the column of the id; None tries the known ones, and takes the row's position if there is none.
        title: the column of the title, likewise; a row without one gets an empty title.
        text: the column of the text, likewise.
        title_line: whether the first line of the text is the title; None: if it stands in quotation marks in ``contents``.
        columns: names of the columns of a TSV file without a header.
        quotes: whether a TSV file has quotation marks around fields, doubled inside, as DPR's has; false for MS MARCO's.
    """

    id: str | None = None
    title: str | None = None
    text: str | None = None
    title_line: bool | None = None
    columns: tuple[str, ...] | None = None
    quotes: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that may be read."""
        return (*self._keys("id", _ID), *self._keys("title", _TITLE), *self._keys("text", _TEXT))

    def read(self, row: Mapping[str, Any], index: int, source: str, prefix: str = "") -> Passage:
        """Returns the passage of a row.

        Args:
            row: the row.
            index: its position.
            source: what to name in an error.
            prefix: stands before the position, if that is the id.

        Raises:
            ConfigError: if the row has no text, or lacks a column that the layout names.
        """
        key, text = self._first(row, self._keys("text", _TEXT))
        if isinstance(text, Sequence) and not isinstance(text, str):
            text = " ".join(str(sentence).strip() for sentence in text)
        if not isinstance(text, str):
            raise ConfigError(
                f"{source}, row {index + 1}: expected a text under one of {', '.join(self._keys('text', _TEXT))}; "
                f"got the keys {sorted(row)}."
            )
        for wanted in (self.id, self.title):
            if wanted is not None and wanted not in row:
                raise ConfigError(f"{source}, row {index + 1}: expected a column {wanted!r}; got the keys {sorted(row)}.")
        _, title = self._first(row, self._keys("title", _TITLE))
        _, name = self._first(row, self._keys("id", _ID))
        if title is None and (self.title_line or (self.title_line is None and key == "contents")):
            title, text = _title_line(text, bool(self.title_line))
        return Passage(f"{prefix}{index}" if name is None else str(name), str(title or ""), text)

    def _keys(self, field: str, known: tuple[str, ...]) -> tuple[str, ...]:
        own: str | None = getattr(self, field)
        return known if own is None else (own,)

    @staticmethod
    def _first(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, Any]:
        return next(((key, row[key]) for key in keys if row.get(key) is not None), ("", None))


def _title_line(text: str, always: bool) -> tuple[str, str]:
    """Returns the title in the first line and the rest; no title if the line is no title."""
    line, newline, rest = text.partition("\n")
    quoted = len(line) > 1 and line[0] == line[-1] == '"'
    if newline and (quoted or always):
        return (line[1:-1].replace('""', '"') if quoted else line), rest
    return "", text


def to_passage(row: Mapping[str, Any], index: int, source: str = "corpus") -> Passage:
    """Reads one row of a corpus by the known names of columns (see `Layout`).

    Args:
        row: the row.
        index: its position.
        source: what to name in an error.

    Raises:
        ConfigError: if the row has no text.
    """
    return Layout().read(row, index, source)
