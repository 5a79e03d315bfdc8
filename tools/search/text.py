"""Text -> index terms: word splitting, folding, stop words and stemming, the same for passages and queries.

Folding makes a word match however it is typed: case, accents (``Beyoncé``), letters with strokes (``Søren``, ``Łódź``), the dots
of ``İ`` and ``ı``, and all kinds of apostrophe (``O’Brien``, ``Hawaiʻi``) are dropped. The marks of other scripts are part of
their letters and stay (Hindi vowel signs, Thai tone marks), except the optional vowel points of Hebrew and Arabic.

Scripts that write no blanks between words (Chinese, Japanese, Thai...; Korean too, whose particles follow without a blank) are
indexed as overlapping pairs of characters: ``東京都`` gives ``東京`` and ``京都``. Passages are also indexed under the single
characters of such a run, so that a query of one character finds them.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Literal

from swirl_env.scripts import UNSEGMENTED

TOKENIZER_VERSION = 3
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
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:(?:(?<=[a-z])'(?=[a-z])|(?<=[0-9])[.,](?=[0-9]))[a-z0-9]+)*")

_APOSTROPHES = "’‘‛ʼʻʽʾʿˈ´`′＇ꞌ՚׳״·‧"
"""Marks inside words: of elision and glottal stops, of Hebrew abbreviations (``צה״ל``) and the Catalan ``l·l``."""
_IGNORED = "\u00ad\u200c\u200d\u2060\ufeff\u0640"
"""Soft hyphen, joiners, byte order mark and the Arabic filler: they change how a word looks, not which word it is."""
_HEBREW_QUOTE = re.compile('(?<=[\u05d0-\u05ea])"(?=[\u05d0-\u05ea])')
_TO_PREPARE = re.compile(f"[{_APOSTROPHES}{_IGNORED}_]")
_PREPARED = {**dict.fromkeys(map(ord, _APOSTROPHES), "'"), **dict.fromkeys(map(ord, _IGNORED)), ord("_"): " "}

# The digits of Thai, Lao, Burmese and Khmer lie in these ranges too; as single characters they are found all the same.
_RUN = re.compile(f"[{UNSEGMENTED}]+")

_LATIN_WITH = re.compile(r"LATIN SMALL LETTER (\w) WITH ")
_PLAIN_LETTERS = {"æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "ŋ": "n", "ı": "i", "ə": "a", "ɛ": "e", "ɔ": "o", "ĸ": "k", "ȷ": "j"}
_PLAIN_LETTERS |= {"ي": "ی", "ى": "ی", "ك": "ک", "ة": "ه"}  # Arabic and Persian keyboards write the same letters differently
_ACCENTS = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u064b-\u065f\u0670]")

_MAX_MEMO = 200_000


class Analyzer:
    """Turns texts into terms.

    Args:
        splitter: ``words`` finds words and numbers in any script and folds them, ``whitespace`` splits at blanks only.
        stemmer: ``english`` (Snowball), ``porter``, or ``none``.
        stopwords: ``english`` or ``none``.
    """

    def __init__(self, splitter: Splitter = "words", stemmer: Stemmer = "english", stopwords: StopWords = "english") -> None:
        self.finds_words = splitter == "words"
        self._stop = ENGLISH_STOP_WORDS if stopwords == "english" else frozenset()
        self._stem = _stemmer(stemmer)
        self._terms: dict[str, str] = {}

    def terms(self, text: str) -> list[str]:
        """Returns the terms of a query in their order, repetitions included."""
        return self._terms_of(_split(text) if self.finds_words else text.lower().split())

    def passage_terms(self, text: str) -> list[str]:
        """Returns the terms of a passage: as for a query, and the single characters of scripts without blanks."""
        return self._terms_of(self.split(text))

    def split(self, text: str) -> list[str]:
        """Returns the words of a passage in lower case, before they become terms."""
        return _split(text, singles=True) if self.finds_words else text.lower().split()

    def term(self, word: str) -> str:
        """Returns the term of a word in lower case, "" for a stop word."""
        term = self._terms.get(word)
        return self._learn(word) if term is None else term

    def _terms_of(self, words: Iterable[str]) -> list[str]:
        terms_of_words, terms = self._terms, []
        for word in words:
            term = terms_of_words.get(word)
            if term is None:
                term = self._learn(word)
            if term:
                terms.append(term)
        return terms

    def _learn(self, word: str) -> str:
        """Returns the term of a word ("" for a stop word) and remembers it, as the same words occur again and again."""
        if len(self._terms) >= _MAX_MEMO:
            self._terms.clear()
        plain = _fold(word.removesuffix("'s") or word) if self.finds_words else word
        term = self._terms[word] = "" if plain in self._stop else self._stem(plain)
        return term


def _split(text: str, singles: bool = False) -> list[str]:
    """Returns the words of a text in lower case, and the pairs (with `singles`, also the characters) of unsegmented runs."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    if _TO_PREPARE.search(text):
        text = text.translate(_PREPARED)
    text = unicodedata.normalize("NFKC", _HEBREW_QUOTE.sub("'", text)).casefold()
    if not _RUN.search(text):
        return _any_word().findall(text)
    words: list[str] = []
    end = 0
    for run in _RUN.finditer(text):
        words += _any_word().findall(text, end, run.start())
        words += _pairs(run.group(), singles)
        end = run.end()
    return words + _any_word().findall(text, end)


def _pairs(run: str, singles: bool) -> list[str]:
    """Returns the overlapping pairs of characters of a run, each with its marks; a single character alone."""
    parts = _character().findall(run)
    pairs = [a + b for a, b in itertools.pairwise(parts)]
    return parts if len(parts) < 2 else pairs + parts if singles else pairs


@functools.cache
def _marks() -> str:
    """Returns all combining marks as the inside of a character class, since the class of letters and digits lacks them."""
    ranges: list[list[int]] = []
    for code in (*range(0x300, 0x1_F000), *range(0xE_0100, 0xE_01F0)):
        if unicodedata.category(chr(code)) in ("Mn", "Mc"):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


@functools.cache
def _any_word() -> re.Pattern[str]:
    """Returns the pattern of a word in any script: as the one for ASCII, and marks stay with their letters."""
    word = rf"[\w{_marks()}]+"
    return re.compile(rf"{word}(?:(?:(?<=[^\W\d])'(?=[^\W\d])|(?<=\d)[.,](?=\d)){word})*")


@functools.cache
def _character() -> re.Pattern[str]:
    """Returns the pattern of a letter or digit with the marks that follow it."""
    return re.compile(rf"\w[{_marks()}]*")


def _fold(word: str) -> str:
    """Returns a word of small letters without accents and apostrophes."""
    word = word.replace("'", "")
    if word.isascii():
        return word
    letters = "".join(map(_plain_letter, unicodedata.normalize("NFD", word)))
    # A word of marks alone stays as it is, or it would be no word at all.
    return unicodedata.normalize("NFC", _ACCENTS.sub("", letters)) or word


@functools.lru_cache(maxsize=4_096)
def _plain_letter(letter: str) -> str:
    """Returns the basic Latin letters of a letter that does not decompose: ``o`` of ``ø``, ``ae`` of ``æ``."""
    if letter in _PLAIN_LETTERS:
        return _PLAIN_LETTERS[letter]
    match = _LATIN_WITH.match(unicodedata.name(letter, ""))
    return match[1].lower() if match else letter


def _stemmer(name: Stemmer) -> Callable[[str], str]:
    if name == "none":
        return lambda word: word
    import Stemmer as snowball

    # The analyzer remembers the terms, so a second memory inside the stemmer would be waste.
    stem: Callable[[str], str] = snowball.Stemmer(name, 0).stemWord
    return stem
