"""Final answer -> `Outcome`: pure functions, total over all strings, in linear time and without floats.

Text is compared as SQuAD and HotpotQA do (lower case, without punctuation and English articles), with five differences:
punctuation is Unicode's, not ASCII's; two plain numbers are compared by value, so that ``1.5`` is not ``15``; in other text a
sign between digits parts them and a minus stays, so that ``1.5 million`` is not ``15 million``; a gold answer that consists of
articles and punctuation alone (a band called "The The") is compared as written; and F1 counts the characters of scripts that
write no blanks between words.

Numbers are read from what models write around them (see `swirl_env.number_text`): ``$1,000``, ``x = 10``, ``10 dollars.``. A
percentage is both a share and a count of hundredths: ``50%`` equals ``0.5`` (its value) and ``50`` (the gold answer of a question
that asks "what percentage"), while ``0.5`` and ``50`` stay different.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

from swirl_env.number_text import CURRENCY, MAX_CHARS, MAX_DIGITS, read_number
from swirl_env.scripts import UNSEGMENTED
from swirl_env.types import Grading, Outcome, Task

_ARTICLES = frozenset({"a", "an", "the"})
_CLOSED = frozenset({"yes", "no", "noanswer"})
_PIECE = 1_000
_TOKEN = re.compile(f"[{UNSEGMENTED}]|[^\\s{UNSEGMENTED}]+")


class _Punctuation(dict[int, int | None]):
    """Translation table that drops punctuation and invisible characters, filled as characters turn up."""

    def __missing__(self, code: int) -> int | None:
        char = chr(code)
        category = unicodedata.category(char)
        drop = char in string.punctuation or category[0] == "P" or category == "Cf"
        self[code] = None if drop else code
        return self[code]


_DROP_PUNCTUATION = _Punctuation()


_GROUPED = re.compile(r"(?<=\d)[,'’](?=\d{3}(?!\d))")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[^\w\s](?=\d)")
_MINUS = re.compile(r"(?:^|(?<=[\s([$€£]))[-–](?=[$€£]?\.?\d)")


def _parted(match: re.Match[str]) -> str:
    """A blank for punctuation between two digits, which without it would be another number: 1.5 m, 3-4 years, 1⁄2."""
    sign = match[0]
    return " " if sign == "⁄" or _DROP_PUNCTUATION[ord(sign)] is None else sign


def normalise(text: str) -> str:
    """Lower-cases, unifies compatibility forms, drops punctuation, the articles a, an, the, and surplus white space.

    Punctuation between digits becomes a blank, unless it groups them by threes; a minus in front of a number stays.
    """
    if not text.isascii():
        # Python sorts runs of combining marks in quadratic time; in pieces the whole stays linear.
        pieces = range(0, len(text), _PIECE)
        text = "".join(unicodedata.normalize("NFKC", text[i : i + _PIECE]) for i in pieces)
    if any(map(str.isdigit, text)):
        text = _MINUS.sub("−", _BETWEEN_DIGITS.sub(_parted, _GROUPED.sub("", text)))
    words = text.lower().translate(_DROP_PUNCTUATION).split()
    return " ".join([word for word in words if word not in _ARTICLES])


_normalised_gold = functools.lru_cache(maxsize=8_192)(normalise)


def exact_match(answer: str, golds: Iterable[str]) -> bool:
    """Whether `answer` is one of `golds` once both are normalised; plain numbers by value; yes and no only as such."""
    text = normalise(answer)
    return any(_same(answer, text, gold) for gold in _each(golds))


def token_f1(answer: str, golds: Iterable[str]) -> float:
    """Returns the best F1 between the words of `answer` and of one of `golds`, as in SQuAD; 0.0 for a wrong yes or no.

    In scripts without blanks between words (Chinese, Japanese, Korean, Thai...) each character counts as a word.
    """
    text = normalise(answer)
    return max((_f1(answer, text, gold) for gold in _each(golds)), default=0.0)


def _each(golds: Iterable[str]) -> Iterable[str]:
    return (golds,) if isinstance(golds, str) else golds


def _same(answer: str, text: str, gold: str) -> bool:
    if _plain(gold) and _plain(answer):
        return numeric_equal(answer, gold)
    normalised = _normalised_gold(gold)
    return text == normalised if normalised else answer.strip().lower() == gold.strip().lower()


def _f1(answer: str, text: str, gold: str) -> float:
    if _same(answer, text, gold):
        return 1.0
    normalised = _normalised_gold(gold)
    if text in _CLOSED or normalised in _CLOSED or (_plain(gold) and _plain(answer)):
        return 0.0
    words, gold_words = _TOKEN.findall(text), _TOKEN.findall(normalised)
    common = (Counter(words) & Counter(gold_words)).total()
    return 2 * common / (len(words) + len(gold_words)) if common else 0.0


_PLAIN = re.compile(rf"[-+−]?[{CURRENCY}]?(?:(?!0\d)(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?|\.\d+)\s?%?\.?")


def numeric_value(text: str) -> Fraction | None:
    """Returns the one number that `text` states, exactly, or None; a percentage is its share (``50%`` gives 1/2)."""
    read = read_number(text) if len(text) <= MAX_CHARS else None
    if read is None:
        return None
    value, percent = read
    return value / 100 if percent else value


def numeric_equal(a: str, b: str) -> bool:
    """Whether both texts state the same number; ``50%`` equals both ``0.5`` and ``50``, see above."""
    if len(a) > MAX_CHARS or len(b) > MAX_CHARS:
        return False
    left, right = read_number(a), read_number(b)
    if left is None or right is None:
        return False
    if left[0] == right[0]:
        return True
    if left[1] == right[1]:
        return False
    share, other = (left[0], right[0]) if left[1] else (right[0], left[0])
    return share == other * 100


def _plain(text: str) -> bool:
    """Whether `text` is nothing but a number, as it would stand in a table; ``007`` is a name."""
    return len(text) <= MAX_DIGITS and _PLAIN.fullmatch(text.strip()) is not None


def grade(task: Task, answer: str) -> Outcome:
    """Compares a final answer with the gold answer and the aliases of `task`; the outcome is open if it has none."""
    if task.answer is None:
        return Outcome(answer)
    compare = _compare if len(answer) <= MAX_CHARS else _compare.__wrapped__
    return compare(answer, (task.answer, *task.aliases), task.grading)


@functools.lru_cache(maxsize=1_024)  # the engine grades what a judge has just graded
def _compare(answer: str, golds: tuple[str, ...], grading: Grading) -> Outcome:
    if grading == "number":
        # A gold answer that states no number can only be repeated.
        correct = answer in golds or any(numeric_equal(answer, gold) for gold in golds)
        return Outcome(answer, correct, float(correct))
    if answer in golds or exact_match(answer, golds):
        return Outcome(answer, True, 1.0)
    return Outcome(answer, False, token_f1(answer, golds))
