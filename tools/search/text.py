"""Text -> index terms: word splitting, stop words and stemming, the same for passages and queries."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

TOKENIZER_VERSION = 1
"""Part of the index key: to be raised whenever a text may get other terms than before."""

Splitter = Literal["words", "whitespace"]
Stemmer = Literal["english", "porter", "none"]
StopWords = Literal["english", "none"]

ENGLISH_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to "
    "was will with".split()
)
"""The 33 words that Lucene's English analyzer drops."""

# A run of letters and digits. Inside it an apostrophe between letters (o'brien) and a point or comma between digits (3.14,
# 1,000) do not split, as in the word boundaries of Unicode; an underscore does.
_WORD = re.compile(r"[^\W_]+(?:(?:(?<=[^\W\d_])['’](?=[^\W\d_])|(?<=\d)[.,](?=\d))[^\W_]+)*")

_MEMORY = 200_000


class Analyzer:
    """Turns texts into terms.

    Args:
        splitter: ``words`` finds words and numbers in any script, ``whitespace`` splits at blanks only.
        stemmer: ``english`` (Snowball), ``porter``, or ``none``.
        stopwords: ``english`` or ``none``.
    """

    def __init__(self, splitter: Splitter = "words", stemmer: Stemmer = "english", stopwords: StopWords = "english") -> None:
        self._split = _words if splitter == "words" else str.split
        self._stop = ENGLISH_STOP_WORDS if stopwords == "english" else frozenset()
        self._stem = _stemmer(stemmer)
        self._terms: dict[str, str] = {}

    def terms(self, text: str) -> list[str]:
        """Returns the terms of a text in their order, repetitions included."""
        terms_of_words, terms = self._terms, []
        for word in self._split(text.lower()):
            term = terms_of_words.get(word)
            if term is None:
                term = self._learn(word)
            if term:
                terms.append(term)
        return terms

    def _learn(self, word: str) -> str:
        """Returns the term of a word ("" for a stop word) and keeps it, as the same words come again and again."""
        if len(self._terms) >= _MEMORY:
            self._terms.clear()
        plain = word[:-2] if len(word) > 2 and word.endswith(("'s", "’s")) and self._split is _words else word
        term = self._terms[word] = "" if plain in self._stop else self._stem(plain)
        return term


def _words(text: str) -> list[str]:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text)


def _stemmer(name: Stemmer) -> Callable[[str], str]:
    if name == "none":
        return lambda word: word
    import Stemmer as snowball

    # The terms are kept by the analyzer, so a second memory inside the stemmer would be waste.
    stem: Callable[[str], str] = snowball.Stemmer(name, 0).stemWord
    return stem
