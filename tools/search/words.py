"""Numbers the words of passages, a block of passages at a time: the part of a build that sees every word of a corpus.

Plain ASCII, the bulk of most corpora, is split with byte tables instead of regular expressions; everything else goes through
`Analyzer.split`. Both give the same words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from swirl_env.tools.search.text import Analyzer

Numbers = NDArray[np.int32]
Bytes = NDArray[np.uint8]

END = -1
"""Stands after the words of each passage."""

# Bytes that UTF-8 never uses: the end of a passage, and the marks inside of words that are split already.
_END = b"\xff"
_INNER = b".,'"
_SPLIT_INNER = b".,'_"
_KEPT = b"\xfb\xfc\xfd\xfe"
_LOWER = bytes(range(65)) + bytes(range(97, 123)) + bytes(range(91, 256))
_BLANKS = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f "
_KEEP = bytes.maketrans(_SPLIT_INNER, _KEPT)
_RESTORE = bytes.maketrans(_KEPT, _SPLIT_INNER)
_TO_WORDS = bytes(c if c >= 128 or chr(c).isalnum() or c in _INNER else 32 for c in _LOWER)
_TO_BLANKS = bytes(32 if c in _BLANKS else c for c in _LOWER)
_IS_INNER = np.array([c in _INNER for c in range(256)])
_LETTER, _DIGIT = 1, 2
_KIND = np.array([_LETTER if 97 <= c <= 122 else _DIGIT if 48 <= c <= 57 else 0 for c in range(256)], dtype=np.uint8)


class Table(Protocol):
    """Numbers words by first appearance."""

    def number(self, text: Bytes) -> Numbers:
        """Returns the number of each word of a text (words between blanks), and `END` for the end of a passage."""
        ...

    def words(self) -> list[bytes]:
        """Returns the words, by their numbers."""
        ...


class DictTable:
    """A table in plain Python."""

    def __init__(self) -> None:
        self._numbers = _Numbers({_END: END})

    def number(self, text: Bytes) -> Numbers:
        """Returns the number of each word (see `Table.number`)."""
        words = text.tobytes().split()
        return np.fromiter(map(self._numbers.__getitem__, words), np.int32, len(words))

    def words(self) -> list[bytes]:
        """Returns the words, by their numbers."""
        return list(self._numbers)[1:]


class _Numbers(dict[bytes, int]):
    def __missing__(self, word: bytes) -> int:
        number = self[word] = len(self) - 1
        return number


def make_table(compiled: Any) -> Table:
    """Returns an empty table: the compiled one if there is the module `compiled`."""
    return DictTable() if compiled is None else compiled.CompiledTable(_END[0])


def join_words(passages: Iterable[tuple[bytes, bytes]], analyzer: Analyzer, title_weight: int) -> Bytes:
    """Returns the words of passages in lower case between blanks, with a byte for the end of each passage.

    Args:
        passages: titles and texts in UTF-8.
        analyzer: splits what is not ASCII.
        title_weight: how many times the words of a title stand in front of those of the text.
    """
    pieces = []
    for title, text in passages:
        if title.isascii() and text.isascii():
            pieces.append((title + b"\n") * title_weight + text)
        else:
            words = analyzer.split(title.decode()) * title_weight if title_weight else []
            pieces.append(" ".join(words + analyzer.split(text.decode())).encode("utf-8", "surrogatepass").translate(_KEEP))
        pieces.append(_END)
    joined = b" ".join([b"", *pieces, b""])
    if not analyzer.finds_words:
        return np.frombuffer(joined.translate(_TO_BLANKS).translate(_RESTORE), np.uint8)
    letters = np.frombuffer(joined.translate(_TO_WORDS), np.uint8).copy()
    inner = np.flatnonzero(_IS_INNER[letters])
    before, after = _KIND[letters[inner - 1]], _KIND[letters[inner + 1]]
    # An apostrophe joins letters (o'brien), a point or comma digits (3.14).
    joint = np.where(letters[inner] == ord("'"), _LETTER, _DIGIT)
    letters[inner[(before != joint) | (after != joint)]] = ord(" ")
    return np.frombuffer(letters.tobytes().translate(_RESTORE), np.uint8)
