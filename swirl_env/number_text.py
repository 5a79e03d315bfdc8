r"""The one number that a text states: total over all strings, in linear time, exact.

The rule: a number counts if nothing around it changes it. Labels, units, currencies, punctuation, Markdown, emoji and the LaTeX
of final answers are read past: ``**$1,000**``, ``The answer is 10 dollars.``, ``x = 10``, ``\boxed{1\frac12}``, ``90^\circ``.
A sign, factor, fraction, power, unit of counting or comparison belongs to the number: it is computed (``negative 12``, ``2.5
million``, ``12 dozen``, ``1.2\times10^4``) or the text states no number at all (``half of 12``, ``5!``, ``over 12``, ``12x``,
``about 12``, ``12 or 13``). Units are never converted.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from fractions import Fraction

MAX_CHARS = 1_000
"""Longest text that can be a number."""
MAX_DIGITS = 400
"""Most digits of a number, and the largest decimal exponent: beyond it the text is no number (and costs nothing)."""

CURRENCY = "$€£¥₹"

# How the digits of large numbers are grouped: 1,000; 1,00,000 (India); 1'000 (Switzerland); 1 000 with a narrow or unbreakable
# blank; 1.000,50 and 1.000.000 (Germany, Spain). A single "1.000" is a decimal, "3,5" and "1 000" could be two numbers.
_COMMAS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?:\.\d*+)?(?!\d)"
_BLANKS = r"\d{1,3}(?:[\u202f']\d{3})+(?:[.,]\d++)?(?!\d)"
_POINTS = r"\d{1,3}(?:(?:\.\d{3})+,\d++|(?:\.\d{3}){2,})(?!\d)"
_DECIMAL = rf"(?:{_POINTS}|{_COMMAS}|{_BLANKS}|\d++(?:\.\d*+)?|\.\d++)"
_POWER = r"(?:(?:\^|\*\*)\s*(?:\{\s*(?P<exp2>[-+]?\d++)\s*\}|(?P<exp3>[-+]?\d++))|(?P<exp4>[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]++))"
_EXPONENT = rf"(?:[eE](?P<exp>[-+]?\d++)|\s*[×x*·]\s*10\s*{_POWER})"
_SCALE_WORDS = "hundred|(?:dozen|thousand|million|billion|trillion|lakh|crore)s?|[bmt]n"
_NUMBER = re.compile(
    rf"(?:(?P<whole>\d++)\s+(?:and\s+)?(?=\d+\s*/\s*\d))?"
    rf"(?P<num>{_DECIMAL}){_EXPONENT}?(?:\s*/\s*(?P<den>-?{_DECIMAL}))?(?P<half>\s+and\s+a\s+half\b)?"
    rf"(?P<scale>[kK](?![^\W\d_])|\s*(?i:{_SCALE_WORDS})\b|\s*[千万萬亿億])?"
    r"\s*(?P<percent>%|(?i:per\s?cent|pct)\b)?"
)
_SCALES = {
    "k": 10**3, "dozen": 12, "hundred": 100, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "mn": 10**6, "crore": 10**7,
    "billion": 10**9, "bn": 10**9, "trillion": 10**12, "tn": 10**12,
    "千": 10**3, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
}  # fmt: skip
_MONEY_SCALE = re.compile(r"\s?(?:([mM])(?:[mM]|il)?|([bB])|T)(?![^\W\d_])")
_START = re.compile(r"(?<!\.)\.\d|\d")
_SUPERSCRIPTS = "²³¹\u2070-\u209c\u2460-\u24ff"
_EXPONENT_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_WORD = rf"[^\W\d_{_SUPERSCRIPTS}]++"
# What may stand before the number: words and punctuation, then a sign that cannot be a subtraction, then a currency.
_HEAD = re.compile(
    rf"(?:{_WORD}(?:['-]{_WORD})*+(?!'*\()|[\s.,;:!?'\"()\[\]#_…])*+(?P<currency>[{CURRENCY}]\s*)?"
    rf"(?:(?P<sign>[-+])\s*(?:[{CURRENCY}]\s*)?)?"
)
_BEFORE_SIGN = re.compile(rf"(?:^|[\s:(]|[{CURRENCY}])[-+](?:[{CURRENCY}]\s*)?$|^\s*[-+]\s*(?:[{CURRENCY}]\s*)?$")
# What may stand after it: words (units), squares and cubes of lengths, punctuation, a currency. Neither "5!" nor "0.33...".
_TAIL = re.compile(
    rf"(?![\s)\]°]*!|\.\.|,\s*(?:\.\.|…))(?:(?:[mck]?m|dm|in|ft|yd|mi|s)(?:\^?\{{?[23]\}}?(?!\w)|[²³])|{_WORD}|"
    rf"[\s.,;:!?'\"()\[\]/_°¢…{CURRENCY}-])*+"
)
_CURRENCY_CODE = re.compile(
    r"(?<!\w)(?:USD?|EUR|GBP|CAD?|AUD?|NZ|HK|INR|PHP|JPY|CNY|RMB|CHF|RM|Rs\.?|kr\.?|[ARS](?=\s?\$))\s*\$?\s*$", re.IGNORECASE
)

_WORDS = re.compile(rf"{_WORD}(?:['-]{_WORD})*+")
_ABBREVIATION = re.compile(r"\b(?:[^\W\d_]\.){2,}|\b[ap]\.?m\b\.?")
_SPELLED = frozenset(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion dozen".split()
)
_PARTS = re.compile(
    r"(?:half|halves|thirds?|quarter|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|\w+teenths?|\w+ieths?|"
    r"(?:hundred|thousand|million|billion)ths?|ths|ish|s?fold|x|odd|plus|scores?|ones|tens|hundreds|doz|dz|mil|mio|mrd|mln|kk|"
    r"bps|permille|baker'?s|half-\w+|quarter-\w+|point|dot|comma|minimum|maximum|lacs?|myriads?|something|some|double|twice|thrice|gross|grand|"
    r"mill|millionen|milliarden?|tausend|millones|mille|millions?|milliards?)"
)
"""Words that, directly after a number, make it another number."""
_HEDGES = frozenset(
    "or either neither nor not never cannot without except than least most between approximately approx roughly nearly "
    "almost circa maybe perhaps possibly probably likely presumably wrong incorrect false unlike anything unequal hardly barely "
    "undefined nan infinity infinite etc".split()
)
"""Alternatives, negations, comparisons and approximations: they change a number wherever they stand."""
_COMPUTES = frozenset(
    "half halves pi π root sqrt squared cubed doubled halved tripled quadrupled factorial power mod modulo reciprocal "
    "inverse exponent multiplied divided subtracted exponentiated binary octal hex hexadecimal base".split()
)
"""Arithmetic in words: it changes a number wherever it stands, but may lead to one in front of an equals sign."""
_CHANGES_NEXT = frozenset(
    "over under above below beyond past about around near some exceeds exceeding exceed within times plus twice thrice "
    "double triple quadruple sine cosine tangent sin cos tan log ln exp abs square cube less but gcd lcm max min mod ca "
    "menos moins meno etwa rund environ casi unos".split()
)
"""Words that change the number that follows them."""
_CHANGES_BEFORE = frozenset("no plus minus below zero negative hundred thousand million billion basis downwards upwards".split())
"""Words that change a number that stands somewhere before them."""
_PAIRS_NEXT = {
    ("many", "as"),
    ("few", "as"),
    ("much", "as"),
    ("little", "as"),
    ("at", "minimum"),
    ("at", "maximum"),
    ("up", "to"),
    ("close", "to"),
    ("different", "from"),
    ("could", "be"),
    ("might", "be"),
    ("may", "be"),
}
_FILLERS = frozenset("a an the just exactly only well far even".split())
_OPEN_ENDED = re.compile(
    r"\band\s+(?:up|upwards?|over|above|below|under|older|younger|counting|more|less|fewer|change|some|so\s+on|a\s+(?:bit|little|few)|"
    r"a\s+(?:quarter|third|fourth|fifth|eighth|tenth)|one|two|three|four|five|six|seven|eight|nine|ten)\b|\bper\s+mil(?:le|l)?\b|"
    r"\b(?:could|might|may)\s+be\b|\bto\s+(?:one|two|three|four|five|six|seven|eight|nine|ten)\b|"
    r"\braised\s+to\b|\bto\s+the\s+\w+(?:th|rd|nd|st)\b|\b(?:by|into|over)\s+(?:one|two|three|four|five|six|seven|eight|nine|ten)\b"
)
_TOTALS = frozenset(
    "total amount value sum product quotient difference remainder score result answer number quantity count average mean "
    "median mode increase decrease reduction gain rise drop growth surplus deficit price cost profit loss distance length "
    "width height depth weight mass area volume age speed rate time period duration perimeter radius diameter balance "
    "salary population temperature fee discount tip pay income change measure".split()
)
"""Nouns whose "of" does not compute: a total of 12."""
_UNITS = frozenset("mgshlLAVWJNCFcdtΩµ")
"""Single letters that can be a unit; any other is a variable or a constant."""
_VARIABLES = re.compile(r"[abnuvwxyz]{2,3}(?![^\W\d_])")
"""Variables right after a number: 12xy."""
_OTHER_LANGUAGES = re.compile("[半倍余約约超未]|以上|以下|以内|左右")
_EXPLANATION = re.compile(r"\bwhere\b|\n\s*\n")
_NOT_CONTRACTED = re.compile(r"n't\b")

_DROPPED = re.compile("[\u20e3\ufe00-\ufe0f\U0001f3fb-\U0001f3ff]")
_REFUSED_SYMBOLS = frozenset("➕➖➗✖✕❌✗✘🚫❎⛔")
_CHARS = {ord(dash): "-" for dash in "−‒–﹣－‐‑"}
_CHARS |= {ord(blank): "\u202f" for blank in "\u00a0\u2007\u2008\u2009"}
_CHARS |= dict(zip(map(ord, "⁄∕％‘’“”´＋＝．，：（）／٫٬＄＊"), "//%''\"\"'+=.,:()/.,$*", strict=True))
_CHARS |= dict(zip(map(ord, "。、「」『』【】《》〈〉«»‹›„‚"), ".," + 16 * '"', strict=True))
_CHARS |= {ord("′"): "'", ord("″"): '"'}
_CHARS |= {ord("—"): " , "}  # a dash between words, unlike the shorter ones no minus sign
_CHARS |= {ord("℃"): "°C", ord("℉"): "°F"}
_CHARS |= {ord(c): " " + unicodedata.normalize("NFKC", c).replace("⁄", "/") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"}
_CHARS |= dict.fromkeys(map(ord, "→⇒➔➜∴⟹"), " so ")
_EMPHASIS = re.compile(
    r"(?<![\w*])(\*{1,3}|_{1,2}(?=\S))(?![\s*_])([^*\n]*?[^\s*_\n])\1(?![\w*])|</?(?:b|strong|i|em|u|mark|answer)>"
)
_INLINE_MATH = re.compile(r"(?<!\\)\${1,2}([^$]*[^$\\])\${1,2}(?!\d)")
_BULLET = re.compile(r"^\s*(?:[*·]\s+|[•‣]\s*)")
_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle|textstyle|big[lr]?|Big[lr]?|limits)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))"), r" \1\2/\3\4"),
    (
        re.compile(r"\\(?:boxed|fbox|text(?:bf|it|rm|sf)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s*\{([^{}]*)\}"),
        r" \1 ",
    ),
    (re.compile(r"\\(?:boxed|underline)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "×"),
    (re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\}|\{\s*\\degree\s*\})|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\\(?:(?:Long)?[rR]ightarrow|implies|to|therefore)(?![a-zA-Z])"), " so "),
    (re.compile(r"\\(?:q?quad|newline)(?![a-zA-Z])|\\\\"), " "),
    (re.compile(r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))"), "\u202f"),
    (re.compile(r"\\[,;: ]|(?<=\S)~"), " "),
    (re.compile(r"\\[!()\[\]]"), ""),
    (re.compile(r"\\([$%#&_])"), r"\1"),
    (re.compile(r"(?<=[a-z])\s+(?=\^\{?[23])"), ""),
)
_BRACED = re.compile(r"\{([,.]|\s*[-+]?[\d.,]+\s*)\}")
_EQUALS = re.compile(r"(?<![!<>=≤≥≠~])={1,3}(?![>=])|\bequals\b", re.IGNORECASE)
_CONCLUSION = re.compile(r"\b(?:so|thus|therefore|hence|then|gives|giving|means|finally)\b", re.IGNORECASE)
_SEPARATOR = re.compile(r"[,;\n&]|\b(?:and|or)\b", re.IGNORECASE)
_OPERATOR = re.compile(r"[+*/×÷·^]|(?<![^\W\d_])-|-(?![^\W\d_])|\b(?:plus|minus|times)\b")
_CROSS = re.compile(r"(?<=\d)\s*[xX]\s*(?=\d)")
_LABEL = re.compile(r"(?:[^=]*[\s:,.(])?[^\W\d_](?:_?\{?\w*+\}?)'?\s*")
_FUNCTION = re.compile(r"(?:[^=]*[\s:,.])?[fghpFGHP]'*\((?:-?\d+|[^\W\d_](?:\s*[,|]\s*[^\W\d_])*)\)\s*")
"""``f(x)``, ``f(3)``, ``P(A)``: names of a value."""
_COEFFICIENT = re.compile(r"\d\s*[^\W\d_](?![^\W\d_])|[|√!(]")
_LETTER = re.compile(r"(?<![^\W\d_'])[^\W\d_](?![^\W\d_])")


@functools.lru_cache(maxsize=8_192)
def read_number(text: str) -> tuple[Fraction, bool] | None:
    """Returns the number that `text` states, as written, and whether a percent sign follows it; None if it states none."""
    if len(text) < 16 and text.isdecimal():
        return Fraction(int(text)), False
    if len(text) > MAX_CHARS:
        return None
    plain = _plain(text)
    statement = None if plain is None else _statement(plain)
    start = _START.search(statement) if statement else None
    number = _NUMBER.match(statement, start.start()) if statement and start else None
    if statement is None or number is None:
        return None
    head, end = _CURRENCY_CODE.sub(" $", statement[: number.start()]), number.end()
    value = _value(number)
    before = _HEAD.fullmatch(head)
    if value is None or before is None:
        return None
    if before["currency"] and (scale := _MONEY_SCALE.match(statement, end)):
        value, end = value * (10**6 if scale[1] else 10**9 if scale[2] else 10**12), scale.end()
    sign = _sign(head, before["sign"])
    if not sign or not _is_harmless_after(statement[end:], number):
        return None
    return value * sign, number["percent"] is not None


def _sign(head: str, sign: str | None) -> int:
    """Returns 1 or -1 as the text before a number says, and 0 if that text makes it no plain number."""
    text = _NOT_CONTRACTED.sub(" not ", head.lower())
    words = _WORDS.findall(text)
    if sign and not _BEFORE_SIGN.search(head):
        return 0
    if not (_HEDGES.isdisjoint(words) and _COMPUTES.isdisjoint(words)) or _OTHER_LANGUAGES.search(head):
        return 0
    if head[-1:].isalpha() or _is_variable(head) or head[-1:] == "!" or (head[-1:] == "_" and head[-2:-1].isalnum()):
        return 0
    while words and words[-1] in _FILLERS:
        words.pop()
    before_last, last = ["", "", *words][-2:]
    if last in ("negative", "neg", "minus"):
        plain = last != "minus" or len(words) == 1 or before_last in ("is", "equals", "answer", "be", "so", "degrees")
        return -1 if plain and not sign else 0
    if last in _CHANGES_NEXT or (last in _SPELLED and head.rstrip()[-1:].isalpha()):
        return 0
    if (last == "of" and before_last not in _TOTALS) or (before_last, last) in _PAIRS_NEXT:
        return 0
    return -1 if sign == "-" else 1


def _is_variable(head: str) -> bool:
    """Whether a single letter stands right before the number, as in ``x 12`` or ``x -12``."""
    last = head.rstrip(" -+$").rpartition(" ")[2]
    return len(last) == 1 and last.isascii() and last.isalpha() and last not in "aAI"


def _is_harmless_after(tail: str, number: re.Match[str]) -> bool:
    """Whether the text after a number leaves it as it is."""
    if _TAIL.fullmatch(tail) is None or _OTHER_LANGUAGES.search(tail):
        return False
    if _VARIABLES.match(tail) and not number.group()[-1].isspace():
        return False
    if tail.lstrip().startswith("…") and "." in number["num"]:
        return False
    text = _NOT_CONTRACTED.sub(" not ", _ABBREVIATION.sub(" ", tail))
    words = _WORDS.findall(text)
    # "12, where x is the width" explains the label; "12x" and "12, x" are no plain numbers.
    near = _WORDS.findall(_EXPLANATION.split(text, maxsplit=1)[0])
    lower = [word.lower() for word in words]
    if not all(changes.isdisjoint(lower) for changes in (_HEDGES, _COMPUTES, _CHANGES_BEFORE)) or _OPEN_ENDED.search(
        text.lower()
    ):
        return False
    if words[:1] == ["MM"]:  # a million in finance, unlike mm
        return False
    next_word = lower[0] if lower and re.match(r"[\s/-]*[^\W\d_]", text) else ""
    if next_word in _SPELLED or _PARTS.fullmatch(next_word) or (next_word == "quarters" and number["num"] in ("1", "3")):
        return False
    if "times" in lower and not _SPELLED.isdisjoint(lower):
        return False
    return all(
        len(word) > 1 or not _is_alphabetic(word) or word in _UNITS or (word in "aAI" and at + 1 < len(words))
        for at, word in enumerate(near)
    )


def _is_alphabetic(letter: str) -> bool:
    """Whether a letter is one of an alphabet, in which a single letter is a variable; in CJK it is a word."""
    return letter < "\u0590"


def _plain(text: str) -> str | None:
    """Brings Markdown, LaTeX and the characters of other keyboards to plain text; None if LaTeX is left that is not known."""
    if not text.isascii():
        text = _DROPPED.sub("", text.translate(_CHARS))
        text = "".join(map(_plain_character, text))
    text = _BULLET.sub("", text)
    if text.count("$") > 1:
        text = _INLINE_MATH.sub(r" \1 ", text)
    if "*" in text or "_" in text or "<" in text:
        text = _EMPHASIS.sub(r"\2", _EMPHASIS.sub(r"\2", text))
    text = text.replace("`", "").replace("=>", " so ").replace("->", " so ")
    if "{" in text:
        text = _BRACED.sub(r"\1", text) if "\\" not in text else re.sub(r"\{([,.])\}", r"\1", text)
    if "\\" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
        text = _BRACED.sub(r"\1", text)
    return None if "\\" in text else text.strip()


@functools.lru_cache(maxsize=4_096)
def _plain_character(char: str) -> str:
    """Drops invisible characters, takes emoji for blanks and every currency for one that is known."""
    category = unicodedata.category(char)
    if category == "Cf":
        return ""
    if category == "Sc":
        return char if char in CURRENCY else "$"
    if category == "So" and char != "°" and char not in _REFUSED_SYMBOLS:
        return " "
    return char


def _statement(text: str) -> str | None:
    """Cuts ``x = 10`` and ``48/2 = 24`` down to what follows the last equals sign; None if the left side is more than a label.

    More than a label are alternatives (``x = 3 or x = 12``), several results (``x = 3, y = 12``) and equations that are still to
    be solved (``2x = 12``, ``total / 2 = 12``).
    """
    signs = list(_EQUALS.finditer(text))
    if not signs:
        return text
    left = text[: signs[-1].start()]
    lower = _NOT_CONTRACTED.sub(" not ", left.lower())
    words = _WORDS.findall(lower)
    if not _HEDGES.isdisjoint(words) or re.search("[<>≤≥≠≈~±]", left):
        return None
    if not _COMPUTES.isdisjoint(words) and not re.search(r"\d", left):
        return None
    label = left[signs[-2].end() :] if len(signs) > 1 else left
    conclusions = list(_CONCLUSION.finditer(label))
    if conclusions:
        label = label[conclusions[-1].end() :]
    elif len(signs) > 1 and _SEPARATOR.search(label):
        return None
    return text[signs[-1].end() :].strip() if _is_label(label) else None


def _is_label(label: str) -> bool:
    """Whether an equals sign after `label` states its value: a name, or arithmetic on numbers."""
    if _FUNCTION.fullmatch(label):
        return True
    label = _CROSS.sub("×", label)
    operators = _OPERATOR.search(label.lstrip(" -"))
    has_letter = any(letter not in "aAI" for letter in _LETTER.findall(label))
    if has_letter:
        words = _WORDS.findall(label.lower())
        return (
            operators is None
            and _CHANGES_NEXT.isdisjoint(words)
            and not _COEFFICIENT.search(label)
            and _LABEL.fullmatch(label) is not None
        )
    if operators is None:
        return True
    return all(re.search(r"\d", part) for part in _OPERATOR.split(label) if part.strip(" ()[].,:$"))


def _value(number: re.Match[str]) -> Fraction | None:
    if number.end() - number.start() > MAX_DIGITS:
        return None
    exponent = number["exp"] or number["exp2"] or number["exp3"] or (number["exp4"] or "").translate(_EXPONENT_DIGITS)
    power = int(exponent) if exponent and exponent not in "+-" else 0
    if abs(power) > MAX_DIGITS:
        return None
    value = decimal_value(number["num"])
    if power:
        value *= Fraction(10) ** power
    if number["den"] is not None:
        below = decimal_value(number["den"].removeprefix("-")) * (-1 if number["den"][0] == "-" else 1)
        if not below:
            return None
        value /= below
    if number["whole"] is not None:
        value += int(number["whole"])
    if number["half"]:
        value += Fraction(1, 2)
    return value * _SCALES[number["scale"].strip().lower().removesuffix("s")] if number["scale"] else value


def decimal_value(text: str) -> Fraction:
    """Returns the value of digits with a point and grouping, in any of the ways above."""
    if re.fullmatch(_POINTS, text):
        text = text.replace(".", "").replace(",", ".")
    elif "\u202f" in text or "'" in text:
        text = text.replace("\u202f", "").replace("'", "").replace(",", ".")
    whole, _, part = text.replace(",", "").partition(".")
    return Fraction(int(whole + part or "0"), 10 ** len(part))
