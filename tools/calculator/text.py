"""What a model wrote -> plain statements: tags, fences, comments, entities, Unicode and phrases taken care of, in linear time."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from swirl_env.tools.calculator.names import CHARACTERS, LETTER_UNITS, UNITS

ErrorKind = Literal["invalid", "timeout", "limit", "unavailable"]
"""The kinds of `swirl_env.types.ToolError`, which the worker does without importing."""


class CalcError(Exception):
    """Why there is no value: `kind` is invalid, timeout, limit or unavailable; the message is one sentence for the policy."""

    def __init__(self, message: str, kind: ErrorKind = "invalid") -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind


_PLAIN = re.compile(r"[0-9+\-*/^%!()., ]+")
"""Text that is arithmetic already."""
_OWN_TAGS = "math_exp|math|calculator|calc|expression|expr"
_OPENING = re.compile(rf"\s*<(?:{_OWN_TAGS})>(.*)", re.S | re.I)
_CLOSING = re.compile(rf"</(?:{_OWN_TAGS})>", re.I)
_THINK = re.compile(r"<(/?)(?:think|thinking|reasoning)>", re.I)
_TAG = re.compile(r"</?[A-Za-z][\w:-]{2,40}\s?/?>|</[A-Za-z]|<[!?]|<\|")
_ENTITY = re.compile(r"&(lt|gt|amp|le|ge|ne|times|divide|minus|nbsp|pi|deg|#\d{1,5});")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "le": "<=", "ge": ">=", "ne": "!=", "times": "×", "divide": "÷", "minus": "-"}
_ENTITIES |= {"nbsp": " ", "pi": "pi", "deg": "°"}
_ANNOTATION = re.compile(r"<<([^<>=]+)=[^<>]*>>")
_FENCE = re.compile(r"```(?:[a-zA-Z]*\n)?")
_LAST_DIGIT = re.compile(r".*\d")
_SUPERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿˣ", "0123456789+-=()nx")
_SUPER_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿˣ]+")
_SUB_RUN = re.compile("[₀-₉]+")
_VULGAR = re.compile("([0-9]?) ?([¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BLANKS = re.compile(r"[ \t\xa0\u2000-\u200a\u202f\u205f\u3000]+")
_CURRENCY = re.compile("[$€£¥₹₩₽₦₫₪฿₱]")
_SMALL_CHANGE = re.compile(r"\b(?:euros?|pence|yen|rupees?|pesos?|francs?|yuan|usd|eur|gbp|jpy|inr|cny)\b|\d ?[pct](?!\w)", re.I)
"""Names of currencies, and pence, cents and trillions by their letters."""
_SCALED = re.compile(r"[$€£¥₹₩₽₦₫₪฿₱] ?([\d.,]+) ?(k|mn|mm|m|bn|b|tn)\b", re.I)
_SCALE = {"k": "thousand", "m": "million", "mn": "million", "mm": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_CENTS = re.compile(r"(?<![\d.,])(\d[\d.,]*) ?cents?\b", re.I)
_MONEY_PER_LETTER = re.compile(r"([$€£¥₹₩₽₦₫₪฿₱] ?[\d.,]+) ?/ ?([mglLhs])(?![\w(])")
_RATE = re.compile(r"[*/x=]|\btimes\b|\bper\b")
_CENTS_PER_DOLLAR = re.compile(r"\bcents? ?(?:/|per) ?(?:dollar|\$)", re.I)
_HUNDRED_CENTS = re.compile(r"\b100 ?cents?\b", re.I)
_DOLLARS = re.compile(r"(?<=\d) ?dollars?\b", re.I)


def statements(text: str) -> list[str]:
    """Returns the statements of a text, in order, each one line of plain notation.

    Raises:
        CalcError: if the text holds what no expression has: foreign tags, control characters, quotes.
    """
    if _PLAIN.fullmatch(text):
        text = _BLANKS.sub(" ", text) if "  " in text else text
        return [_checked(text) if "%" in text or "-" in text or "/" in text else text]
    text = _spell_money(_BLANKS.sub(" ", _fold(_unwrap(text.replace("\r\n", "\n")))))
    if any(quote in text for quote in "\"'`@&"):
        raise CalcError("Quotes, code and references are not part of an expression: write plain arithmetic or algebra.")
    text = _without_comments(text).replace("\\\\", "\n")
    lines = [_spell_operators(line) for line in re.split(r"\n+|(?<!\\);", text)]
    return [line for line in lines if line.strip(" =")] or [""]


def _without_comments(text: str) -> str:
    """Takes remarks after a # off the lines; one with digits may be part of the calculation, and stays."""
    return "\n".join(map(_without_comment, text.split("\n"))) if "#" in text else text


def _without_comment(line: str) -> str:
    last = _LAST_DIGIT.match(line)
    if last is None and line.startswith("#"):
        return ""
    remark = line.find(" #", last.end() if last else 0)
    return line if remark < 0 else line[:remark]


def _unwrap(text: str) -> str:
    """Takes off tags around the expression, fences and escapes; any other tag is refused."""
    text = _without_thoughts(text)
    for _ in range(3):
        inner = _OPENING.match(text)
        if inner is None:
            break
        text = inner.group(1)
    text = _CLOSING.split(text, maxsplit=1)[0] if not _CLOSING.sub("", text).count("</") else text
    annotation = _ANNOTATION.fullmatch(text.strip())
    if annotation:
        text = annotation.group(1)
    if _TAG.search(text):
        raise CalcError("The expression holds a tag: write the bare expression.")
    if "&" in text:
        text = _ENTITY.sub(_entity, text)
        if _TAG.search(text):
            raise CalcError("The expression holds a tag: write the bare expression.")
    text = text.strip()
    fence = _FENCE.match(text)
    return (text[fence.end() :] if fence else text).strip("` \t\n")


def _without_thoughts(text: str) -> str:
    """Takes out the first to the last of the think tags, if they are balanced."""
    marks = list(_THINK.finditer(text)) if "<" in text else []
    if len(marks) < 2 or any(bool(mark[1]) != bool(i % 2) for i, mark in enumerate(marks)) or len(marks) % 2:
        return text
    places = [0, *(place for mark in marks for place in mark.span()), len(text)]
    return " ".join(text[places[i] : places[i + 1]] for i in range(0, len(places), 4))


def _entity(match: re.Match[str]) -> str:
    name = match.group(1)
    return chr(int(name[1:])) if name[0] == "#" and 31 < int(name[1:]) < 127 else _ENTITIES.get(name, " ")


def _fold(text: str) -> str:
    """Folds look-alikes, digits of any script, superscripts and fractions into ASCII; drops invisible characters."""
    if text.isascii() and not _CONTROL.search(text):
        return text
    text = "".join(char for char in text if unicodedata.category(char) != "Cf" and char not in "\ufe0f\ufe0e\u20e3")
    if _CONTROL.search(text):
        raise CalcError("The expression holds control characters: write plain text.")
    text = _VULGAR.sub(_vulgar, _BLANKS.sub(" ", text))
    text = _SUPER_RUN.sub(lambda run: f"^({run.group().translate(_SUPERS)})", text)
    text = _SUB_RUN.sub(lambda run: f"_{run.group()}", text).replace("￠", "¢")  # NFKC makes them digits
    text = text.rstrip("¢ ") if text.rstrip("¢ ").endswith("=") else text.replace("¢", " cents")
    text = text.replace("º", "°")
    text = unicodedata.normalize("NFKC", text).translate(CHARACTERS)
    return "".join(char if char < "\x80" else _digit(char) for char in text)


def _vulgar(match: re.Match[str]) -> str:
    before, char = match.groups()
    top, bottom = unicodedata.normalize("NFKC", char).split("\u2044")
    return f"{before} {top}/{bottom}" if before else f"({top}/{bottom})"


def _digit(char: str) -> str:
    value = unicodedata.decimal(char, None)
    return char if value is None else str(value)


def _spell_money(text: str) -> str:
    """Drops the sign of the one currency that there is, after what depends on it: $2.5k, $5 + 25 cents."""
    signs = set(_CURRENCY.findall(text))
    if not signs:
        return text
    if len(signs) > 1 or _SMALL_CHANGE.search(text):
        raise CalcError("The currencies differ: convert them to one first.")
    text = _SCALED.sub(lambda match: f"{match[1]} {_SCALE[match[2].lower()]}", text.replace("\\$", "$"))
    cents = "cent" in text and not _CENTS_PER_DOLLAR.search(text)
    if cents and ("=" in text.rstrip(" =?") or _HUNDRED_CENTS.search(text)):
        raise CalcError("Dollars and cents meet: convert them to one first.")
    if signs == {"$"} and (cents or not _RATE.search(text)):
        text = _CENTS.sub(r"(\1/100)", _DOLLARS.sub("", text))
    return _CURRENCY.sub(" ", _MONEY_PER_LETTER.sub(lambda match: f"{match[1]}/{LETTER_UNITS[match[2]]}", text))


_ASK = re.compile(
    r" ?(?:please )?(?:what(?: ?is| are)|how much is|calculate|compute|evaluate|find|determine|work out|answer ?:"
    r"|result ?:|expression ?:|calc ?:) ?:? ?(?:the (?:value|result) of )?",
    re.I,
)
_ARTICLE = re.compile(
    r"\b(?:the|an?) (?=(?:half|third|quarter|fourth|square|cube|absolute|factorial|sum|product|average)\b)", re.I
)
_ARTICLE_2 = re.compile(r"\bthe (?=(?:mean|median|gcd|lcm|derivative|integral)\b)", re.I)
_TIMES_NEGATIVE = re.compile(r"(?<=[\d)]) [xX] (?=-[\d.])")
_FUNCTION_OF = re.compile(r"\b(?:sum|product|average|mean|median|root|half|third|quarter) of\b", re.I)
_POWER_WORD = re.compile(r"\b(?:squared|cubed)\b", re.I)
_CALCULUS = re.compile(r" ?(derivative|integral) of (.+?)(?: with respect to ([a-z]))? ?", re.I)
_AFTER_NUMBER = re.compile(r"(?<=\d)(?: [A-Za-z]+(?:-[A-Za-z]{2,})*)+(?![\w(])|(?<=/)[A-Za-z]+(?:-[A-Za-z]{2,})+(?![\w(])")
_LETTER_UNIT = re.compile(r"(?<=\d) ([mglLhs])(?![\w(])")
_UNIT_PER_LETTER = re.compile(r"(?<=\d) ?([A-Za-z]{1,5}) ?/ ?([mglLhs])(?![\w(])")
_PER_LETTER = re.compile(r"(?<=[\d\w]) ?/ ?([mglLhs])(?![\w(])")
_UNIT_POWER = re.compile(r"(?<=\d) ?(mm|cm|dm|m|km|ft|yd|mi)([23])(?!\w)")
_INCHES = re.compile(r"(?<=\d) ?in(?= ?(?:[-+*/)=^]|$))")
_GROUPED = re.compile(r"(?<=\d)(?:\{,\}|\\[,;: ])(?=\d{3}(?!\d))")
_THIN_BLANK = re.compile(r"\\[,;: ]")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox) ?\{([^{}]*)\}")
_DERIVATIVE = re.compile(
    r"\\[dt]?frac ?\{ ?(?:d|\\partial) ?(?:\^ ?\{? ?(\d) ?\}? ?)?\} ?\{ ?(?:d|\\partial) ?([a-z]) ?(?:\^ ?\{? ?(\d) ?\}? ?)?\}"
)
_D_BY_DX = re.compile(r"(?<![\w.])d(?:\^(\d))? ?/ ?d([a-z])(?:\^(\d))?(?!\w)")
_PERCENT_THEN = re.compile(r"\d%(?: [\d.]| ?\()|%%|\d%-[\d.]+(?![\d.%])|\d % ?[+-][\d(.]|\d% ?(?![xX] ?[\d(.])[A-Za-z](?!\w)")
_OTHER_BASE = re.compile(r"(?<![\w.])0[xXbBoO]\w")
_GLUED = re.compile(r"\d(?:(?!x\d+x\d)[A-Za-z]+\d+[A-Za-z_]|(?:h|hr|hrs|m|min|ft|lb|lbs|kg|km|d)\d)")
_MONTH, _DAY = "(0?[1-9]|1[0-2])", "(0?[1-9]|[12]\\d|3[01])"
_ISO_DATE = re.compile(rf"(?<![\d.])(?:1[5-9]|20)\d\d(?:-{_MONTH}-{_DAY}|/{_MONTH}/{_DAY})(?!\.?\d)")
_DATE = re.compile(rf"(?<![\d.])(?:{_DAY}-{_DAY}-|{_DAY}/{_DAY}/)(?:19|20)\d\d(?!\.?\d)")
_FACTORIAL_OR_NOT = re.compile(r"[\d)]!=(?!=)")
_REMAINDER = re.compile(r"\d ?[rR] ?\d")

_POWER = r"(?:(?<![A-Za-z]{2} )|(?<=\bpi ))\b{}\b(?! (?!mod|x\b)[A-Za-z])"
_TABLE: list[tuple[str, str, str]] = [
    ("square root of", r"\b{}\b", " sqrt of "),
    ("cube root of", r"\b{}\b", " cbrt of "),
    ("absolute value of", r"\b{}\b", " abs of "),
    ("divided by", r"\b{}\b", " ÷ "),
    ("multiplied by", r"\b{}\b", " * "),
    ("to the power", r"\b(?:raised )?{} (?:of )?", " ^ "),
    ("equals", r"\b{}\b", " = "),
    ("plus", r"\b{}\b", " + "),
    ("minus", r"\b{}\b", " - "),
    ("times", r"(?<!\\)\b{}\b", r" \\times "),
    ("over", r"(?<=[\d) ]){}(?=[ (\d])", " ÷ "),
    ("squared", _POWER, "^2 "),
    ("cubed", _POWER, "^3 "),
    ("percent", r" ?\b{}\b", "% "),
    ("per cent", r" ?\b{}\b", "% "),
    ("pct", r" ?\b{}\b", "% "),
    (" per ", r"(?<=[\w)]){}(?=[A-Za-z])", " / "),
]
"""Words that models write for operators, the pattern around them, and what is written in their place. A phrase that is not here
stays as it is and is refused, never guessed.

All of these patterns are matched on text whose runs of blanks are one blank, and none has a repeat that could run over the same
text from many starts: reading stays linear in the length of the input."""
_PHRASES = [(word, re.compile(pattern.replace("{}", word), re.I), meaning) for word, pattern, meaning in _TABLE]


def _spell_operators(line: str) -> str:
    """Takes the question off an expression and writes phrases as operators; of signs that ask for the value one "=" is left."""
    asked = _ASK.match(line)
    line = (line[asked.end() :] if asked else line).lstrip(" =").rstrip(" ?")
    if not line.endswith(".."):  # dots at the end of a decimal go on
        line = line.rstrip(" .?")
    stem = line.removesuffix(" is").removesuffix(" equals").rstrip(" =?_≈")
    return _without_phrases(stem) + (" =" if len(stem) < len(line) else "")


def _without_phrases(line: str) -> str:
    """Writes phrases as operators."""
    if "\\" in line or "{" in line:
        line = _THIN_BLANK.sub(" ", _GROUPED.sub(",", line)).replace("\\!", "")
        line = _BLANKS.sub(" ", _DERIVATIVE.sub(_derivative, _TEXT.sub(r" \1 ", line)))
    if not any(char.isalpha() for char in line):
        return _checked(line)
    line = _TIMES_NEGATIVE.sub(" * ", _ARTICLE_2.sub("", _ARTICLE.sub("", line)))
    lower = line.lower()  # to look for a word takes a twentieth of what its pattern takes
    words = _FUNCTION_OF.search(line) if " of" in lower else None
    if words and _POWER_WORD.search(line, words.end()):
        raise CalcError("It is unclear how far the words reach: use parentheses.")
    for word, pattern, meaning in _PHRASES:
        if word in lower:
            line = pattern.sub(meaning, line)
    line = _BLANKS.sub(" ", _D_BY_DX.sub(_derivative, line))
    calculus = _CALCULUS.fullmatch(line)
    if calculus:
        name = {"derivative": "diff", "integral": "integrate"}[calculus[1].lower()]
        line = f"{name}({calculus[2]}, {calculus[3]})" if calculus[3] else f"{name}({calculus[2]})"
    _checked(line)
    line = _AFTER_NUMBER.sub(lambda words: words.group().replace("-", "_"), line)
    if "/" in line:
        line = _UNIT_PER_LETTER.sub(_unit_per_letter, line)
    if "=" in line:
        return line
    line = _INCHES.sub(" inches", _UNIT_POWER.sub(r" \1^\2", line))
    letters = set(_LETTER_UNIT.findall(line))
    line = _LETTER_UNIT.sub(lambda match: f" {LETTER_UNITS[match[1]]}", line)
    return _PER_LETTER.sub(lambda match: f"/{LETTER_UNITS[match[1]]}" if match[1] in letters else match[0], line)


def _derivative(match: re.Match[str]) -> str:
    if match[1] != match[3]:
        raise CalcError("The orders of the derivative above and below the line differ.")
    return f" \\diff {match[2]} {match[1] or 1} "


def _unit_per_letter(match: re.Match[str]) -> str:
    unit = LETTER_UNITS.get(match[1], match[1])
    return f" {unit}/{LETTER_UNITS[match[2]]}" if unit.lower().removesuffix("s") in UNITS else match[0]


def _checked(line: str) -> str:
    """Refuses numbers that cannot be told from something else, before blanks are forgotten."""
    if "%" in line and _PERCENT_THEN.search(line):
        raise CalcError("A number stands right after a percentage: put an operator between them.")
    if "!=" in line and _FACTORIAL_OR_NOT.search(line):
        raise CalcError("It is unclear whether the sign means a factorial or 'not equal': put a blank before the equals sign.")
    if ("-" in line or "/" in line) and _has_date(line):
        raise CalcError("Dates are not part of an expression: write the numbers of days, months or years.")
    if _OTHER_BASE.search(line):
        raise CalcError("A number is not written in base ten: write it with decimal digits.")
    if _GLUED.search(line) or _REMAINDER.search(line):
        raise CalcError("Numbers and letters are written together: put operators between them.")
    return line


def _has_date(line: str) -> bool:
    """Returns whether a line holds what is a date and hardly a calculation."""
    dates = _ISO_DATE.findall(line)
    return len(dates) > 1 or any(part[:1] == "0" for date in dates for part in date) or bool(_DATE.search(line))
