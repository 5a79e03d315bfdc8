"""Final answer -> `Outcome`: pure functions, total over all strings, in linear time and without floats.

Text is compared as SQuAD and HotpotQA do (lower case, without punctuation and English articles), with three differences:
punctuation is Unicode's, not ASCII's; two plain numbers are compared by value, so that ``1.5`` is not ``15``; and a gold
answer that consists of articles and punctuation alone (a band called "The The") is compared as written.

Numbers are read from what models write around them: ``$1,000``, ``x = 10``, ``10 dollars.``, ``1 1/2``, ``2.5 million``.
Units are ignored, never converted. Text with two numbers, a range or a hedge ("10 or 12", "more than 10") is not a number.
A percentage is both a share and a count of hundredths: ``50%`` equals ``0.5`` (its value) and ``50`` (the gold answer of a
question that asks "what percentage"), while ``0.5`` and ``50`` stay different.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections.abc import Iterable
from fractions import Fraction

from swirl_env.types import Grading, Outcome, Task

MAX_CHARS = 1_000
"""Longest text that can be a number."""
MAX_DIGITS = 400
"""Most digits of a number, and the largest decimal exponent: beyond it the text is no number (and costs nothing)."""

_ARTICLES = frozenset({"a", "an", "the"})
_CLOSED = frozenset({"yes", "no", "noanswer"})
_PIECE = 1_000


class _Punctuation(dict[int, int | None]):
    """Translation table that drops punctuation, filled as characters turn up."""

    def __missing__(self, code: int) -> int | None:
        char = chr(code)
        drop = char in string.punctuation or unicodedata.category(char).startswith("P")
        self[code] = None if drop else code
        return self[code]


_DROP_PUNCTUATION = _Punctuation()


def normalise(text: str) -> str:
    """Lower-cases, unifies compatibility forms, drops punctuation, the articles a, an, the, and surplus white space."""
    if not text.isascii():
        # Python sorts runs of combining marks in quadratic time; in pieces the whole stays linear.
        pieces = range(0, len(text), _PIECE)
        text = "".join(unicodedata.normalize("NFKC", text[i : i + _PIECE]) for i in pieces)
    words = text.lower().translate(_DROP_PUNCTUATION).split()
    return " ".join([word for word in words if word not in _ARTICLES])


_normalised_gold = functools.lru_cache(maxsize=8_192)(normalise)


def exact_match(answer: str, golds: Iterable[str]) -> bool:
    """Whether `answer` is one of `golds` once both are normalised; plain numbers by value; yes and no only as such."""
    text = normalise(answer)
    return any(_same(answer, text, gold) for gold in _each(golds))


def token_f1(answer: str, golds: Iterable[str]) -> float:
    """Best F1 between the words of `answer` and of one of `golds`, as in SQuAD; 0.0 for a yes or no that does not match."""
    text = normalise(answer)
    return max((_f1(answer, text, gold) for gold in _each(golds)), default=0.0)


def _each(golds: Iterable[str]) -> Iterable[str]:
    return (golds,) if isinstance(golds, str) else golds


def _same(answer: str, text: str, gold: str) -> bool:
    if _plain(gold) and _plain(answer):
        return numeric_equal(answer, gold)
    wanted = _normalised_gold(gold)
    return text == wanted if wanted else answer.strip().lower() == gold.strip().lower()


def _f1(answer: str, text: str, gold: str) -> float:
    if _same(answer, text, gold):
        return 1.0
    wanted = _normalised_gold(gold)
    if text in _CLOSED or wanted in _CLOSED or (_plain(gold) and _plain(answer)):
        return 0.0
    given = text.split()
    left: dict[str, int] = {}
    gold_words = wanted.split()
    for word in gold_words:
        left[word] = left.get(word, 0) + 1
    common = 0
    for word in given:
        if left.get(word, 0):
            left[word] -= 1
            common += 1
    return 2 * common / (len(given) + len(gold_words)) if common else 0.0


_INTEGER = r"(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*+)?|\.\d++)"
_EXPONENT = r"(?:[eE](?P<exp>[-+]?\d++)|\s*[×x*]\s*10\s*\^\s*(?:\{(?P<exp2>[-+]?\d++)\}|(?P<exp3>[-+]?\d++)))"
_NUMBER = re.compile(
    rf"(?:(?P<whole>{_INTEGER})\s+(?:and\s+)?(?=\d+\s*/\s*\d))?"
    rf"(?P<num>{_DECIMAL}){_EXPONENT}?(?:\s*/\s*(?P<den>{_DECIMAL}))?"
    r"(?:\s*(?P<scale>[kK](?![^\W\d_])|(?:hundred|thousand|million|billion|trillion)\b))?"
    r"\s*(?P<percent>%|per\s?cent\b|pct\b)?"
)
_SCALES = {"hundred": 100, "k": 10**3, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_START = re.compile(r"\.?\d")
_SUPERSCRIPTS = "²³¹⁰⁴-⁹"
_WORD = rf"[^\W\d_{_SUPERSCRIPTS}]++"
_CURRENCY = "$€£¥₹"
# What may stand before the number: words and punctuation, then a sign that cannot be a subtraction, then a currency.
_HEAD = re.compile(
    rf"(?:{_WORD}(?:-{_WORD})*+|[\s.,;:!?'\"()\[\]#~_])*+(?P<currency>[{_CURRENCY}]\s*)?"
    rf"(?:(?P<sign>[-+])\s*(?:[{_CURRENCY}]\s*)?)?"
)
_BEFORE_SIGN = re.compile(rf"(?:^|[\s:(]|[{_CURRENCY}])[-+](?:[{_CURRENCY}]\s*)?$|^\s*[-+]\s*(?:[{_CURRENCY}]\s*)?$")
# What may stand after it: words (units), squares and cubes of lengths, punctuation, a currency.
_TAIL = re.compile(rf"(?:(?:[mck]?m|dm|in|ft|yd|mi|s)\^?[23]\b|{_WORD}[²³]?|[\s.,;:!?'\"()\[\]/_~°¢{_CURRENCY}-])*+")
_HEDGE = re.compile(r"\b(?:or|not|than|least|most|between|pi|π)\b", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]")
_PLAIN = re.compile(rf"[-+−]?[{_CURRENCY}]?(?:(?!0\d)(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?|\.\d+)\s?%?\.?")
_CHARS = {ord(dash): "-" for dash in "−‒–—﹣－"}
_CHARS |= {ord("⁄"): "/", ord("∕"): "/", ord("％"): "%", ord("＄"): "$", ord("`"): ""}
_CHARS |= {ord(c): " " + unicodedata.normalize("NFKC", c).replace("⁄", "/") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"}
_LATEX = (
    (re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\boxed\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\times\b"), "×"),
    (re.compile(r"\\[,!;:()\[\]]|\\ "), ""),
    (re.compile(r"\\([$%])"), r"\1"),
)


def numeric_value(text: str) -> Fraction | None:
    """Returns the one number that `text` states, exactly, or None; a percentage is its share (``50%`` gives 1/2)."""
    read = _read(text) if len(text) <= MAX_CHARS else None
    if read is None:
        return None
    value, percent = read
    return value / 100 if percent else value


def numeric_equal(a: str, b: str) -> bool:
    """Whether both texts state the same number; ``50%`` equals both ``0.5`` and ``50``, see above."""
    if len(a) > MAX_CHARS or len(b) > MAX_CHARS:
        return False
    left, right = _read(a), _read(b)
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


@functools.lru_cache(maxsize=8_192)
def _read(text: str) -> tuple[Fraction, bool] | None:
    """Returns the number as written and whether a percent sign follows it."""
    if len(text) < 16 and text.isdecimal():
        return Fraction(int(text)), False
    text = _right_side(_plain_characters(text))
    start = _START.search(text)
    if start is None:
        return None
    number = _NUMBER.match(text, start.start())
    if number is None:
        return None
    head, tail = text[: number.start()], text[number.end() :]
    before = _HEAD.fullmatch(head)
    if before is None or (head and _LETTERS.match(head[-1])) or _TAIL.fullmatch(tail) is None:
        return None
    if before["sign"] and not _BEFORE_SIGN.search(head):
        return None
    if _HEDGE.search(head) or _HEDGE.search(tail):
        return None
    value = _value(number)
    if value is None:
        return None
    return (-value if before["sign"] == "-" else value), number["percent"] is not None


def _plain_characters(text: str) -> str:
    """Brings Unicode minus signs, vulgar fractions, Markdown and the LaTeX of final answers to plain characters."""
    text = text.translate(_CHARS).replace("**", "")
    if "\\" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return text.strip()


def _right_side(text: str) -> str:
    """Cuts ``x = 10`` down to what follows the last equals sign."""
    at = max(text.rfind("="), text.rfind("≈"))
    # An inequality is left whole: its sign is not among the characters that may stand before a number.
    return text if at < 0 or text[at - 1 : at] in ("!", "<", ">") else text[at + 1 :].strip()


def _value(number: re.Match[str]) -> Fraction | None:
    if number.end() - number.start() > MAX_DIGITS:
        return None
    exponent = number["exp"] or number["exp2"] or number["exp3"]
    power = int(exponent) if exponent else 0
    if abs(power) > MAX_DIGITS:
        return None
    value = _decimal(number["num"])
    if power:
        value *= Fraction(10) ** power
    if number["den"] is not None:
        below = _decimal(number["den"])
        if not below:
            return None
        value /= below
    if number["whole"] is not None:
        value += _decimal(number["whole"])
    return value * _SCALES[number["scale"].lower()] if number["scale"] else value


def _decimal(text: str) -> Fraction:
    whole, _, part = text.replace(",", "").partition(".")
    return Fraction(int(whole + part or "0"), 10 ** len(part))


def grade(task: Task, answer: str) -> Outcome:
    """Compares a final answer with the gold answer and the aliases of `task`; the outcome is open where it has none."""
    if task.answer is None:
        return Outcome(answer)
    compare = _compare if len(answer) <= MAX_CHARS else _compare.__wrapped__
    return compare(answer, (task.answer, *task.aliases), task.grading)


@functools.lru_cache(maxsize=1_024)  # the engine grades what a judge has just graded
def _compare(answer: str, golds: tuple[str, ...], grading: Grading) -> Outcome:
    if grading == "number":
        correct = any(numeric_equal(answer, gold) for gold in golds)
        return Outcome(answer, correct, float(correct))
    if answer in golds or exact_match(answer, golds):
        return Outcome(answer, True, 1.0)
    return Outcome(answer, False, token_f1(answer, golds))
