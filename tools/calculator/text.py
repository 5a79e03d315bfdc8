"""What a model wrote -> plain statements: tags, fences, comments, entities, Unicode and phrases taken care of, in linear time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from swirl_env.tools.calculator.names import CHARACTERS, SCALES

ErrorKind = Literal["invalid", "timeout", "limit", "unavailable"]
"""The kinds of `swirl_env.types.ToolError`, which the worker does without importing."""


class CalcError(Exception):
    """Why there is no value: `kind` is invalid, timeout, limit or unavailable; the message is one sentence for the policy."""

    def __init__(self, message: str, kind: ErrorKind = "invalid") -> None:
        super().__init__(message)
        self.kind = kind


_PLAIN = re.compile(r"[0-9+\-*/^%!()., ]+")
"""Text that is arithmetic already."""
_OWN_TAGS = "math_exp|math|calculator|calc|expression|expr"
_UNWRAP = re.compile(rf"\s*<(?:{_OWN_TAGS})>(.*)", re.S | re.I)
_CLOSE = re.compile(rf"</(?:{_OWN_TAGS})>", re.I)
_THINK = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.S | re.I)
_TAG = re.compile(r"</?[A-Za-z][\w:-]{2,}\s*/?>|</[A-Za-z]|<[!?]|<\|")
_ENTITY = re.compile(r"&(lt|gt|amp|le|ge|ne|times|divide|minus|nbsp|pi|deg|#\d{1,5});")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "le": "<=", "ge": ">=", "ne": "!=", "times": "*", "divide": "/", "minus": "-"}
_ENTITIES |= {"nbsp": " ", "pi": "pi", "deg": "°"}
_ANNOTATION = re.compile(r"\s*<<([^<>=]+)=[^<>]*>>\s*\Z")
_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\n?|```\s*\Z|\A\s*`+|`+\s*\Z")
_COMMENT = re.compile(r"#[^\n]*")
_SUPERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿˣ", "0123456789+-=()nx")
_SUPER_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿˣ]+")
_VULGAR = re.compile("([0-9]?) ?([¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])")
_CENTS = re.compile(r"(\d[\d.,]*)\s*[¢￠]")
_CENT_WORDS = re.compile(r"(\d[\d.,]*)\s*cents?\b", re.I)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ASK = re.compile(
    r"\A\s*(?:please\s+)?(?:what(?:'s|\s+is|\s+are)|how\s+much\s+is|calculate|compute|evaluate|find|determine|work\s+out|answer\s*:"
    r"|result\s*:|expression\s*:|calc\s*:)\s*:?\s*(?:the\s+(?:value|result)\s+of\s+)?",
    re.I,
)
_DANGLING = re.compile(r"(?:\s*(?:=|is))*\s*[?_]*\s*\Z")


def _calculus(name: str) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{name}({found[1]}, {found[2]})" if found[2] else f"{name}({found[1]})"


_TABLE: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\b(?:the\s+)?square\s+root\s+of\b", " sqrt "),
    (r"\b(?:the\s+)?cube\s+root\s+of\b", " cbrt "),
    (r"\b(?:the\s+)?absolute\s+value\s+of\b", " abs "),
    (r"\b(?:the\s+)?factorial\s+of\b", " factorial "),
    (r"\b(?:the\s+)?(sum|product|average|mean|median|gcd|lcm)\s+of\s+([\d., ]+?),?\s+and\s+([\d.]+)", r" \1([\2, \3])"),
    (r"\A\s*(?:the\s+)?derivative\s+of\s+(.+?)(?:\s+with\s+respect\s+to\s+([a-z]))?\s*\Z", _calculus("diff")),
    (r"\A\s*(?:the\s+)?integral\s+of\s+(.+?)(?:\s+with\s+respect\s+to\s+([a-z]))?\s*\Z", _calculus("integrate")),
    (r"\bdivided\s+by\b", " / "),
    (r"\bmultiplied\s+by\b", " * "),
    (r"\b(?:raised\s+)?to\s+the\s+power\s+(?:of\s+)?", " ^ "),
    (r"\bplus\b", " + "),
    (r"\bminus\b", " - "),
    (r"\btimes\b", " * "),
    (r"(?<=[\d)\s])over(?=[\s(\d])", " / "),
    (r"\bsquared\b", "^2 "),
    (r"\bcubed\b", "^3 "),
    (r"\b(?:a\s+)?half\s+of\b", " 1/2 of "),
    (r"\b(?:a\s+)?(?:third)\s+of\b", " 1/3 of "),
    (r"\b(?:a\s+)?(?:quarter|fourth)\s+of\b", " 1/4 of "),
    (r"\b(?:twice|double)\b", " 2 * "),
    (r"\bpercent(?:age)?\b", " % "),
    (r"\bequals\b", " = "),
    (r"(?<=\d)\s*(?:degrees?|deg)\b(?!\s*\()", "°"),
    (r"(?<=[\d)])\s*(dozen|hundred|thousand|million|billion|trillion)s?\b", lambda found: f"*{SCALES[found[1].lower()]} "),
    (r"(?<=[\w)])\s+per\s+(?=[A-Za-z])", " / "),
    (r"\band\s+(?=\d+\s*/\s*\d)", " "),
]
"""Words that models write for operators. A phrase that is not here stays as it is and is refused, never guessed."""
_PHRASES = [(re.compile(pattern, re.I), meaning) for pattern, meaning in _TABLE]


def statements(text: str) -> list[str]:
    """Returns the statements of a text, in order, each one line of plain notation.

    Raises:
        CalcError: where the text holds what no expression has: foreign tags, control characters, quotes.
    """
    if _PLAIN.fullmatch(text):
        return [text]
    text = _unicode(_unwrap(text.replace("\r\n", "\n")))
    if any(quote in text for quote in "\"'`@&"):
        raise CalcError("Quotes, code and references are not part of an expression: write plain arithmetic or algebra.")
    text = _COMMENT.sub("", text).replace("\\\\", "\n")
    lines = [_words(line) for line in re.split(r"[\n;]+", text)]
    return [line for line in lines if line.strip(" \t=")] or [""]


def _unwrap(text: str) -> str:
    """Takes off tags around the expression, fences and escapes; any other tag is refused."""
    text = _THINK.sub(" ", text)
    for _ in range(3):
        inner = _UNWRAP.match(text)
        if inner is None:
            break
        text = inner.group(1)
    text = _CLOSE.split(text, maxsplit=1)[0] if not _CLOSE.sub("", text).count("</") else text
    annotation = _ANNOTATION.match(text)
    if annotation:
        text = annotation.group(1)
    if _TAG.search(text):
        raise CalcError("The expression holds a tag: write the bare expression.")
    if "&" in text:
        text = _ENTITY.sub(_entity, text)
        if _TAG.search(text):
            raise CalcError("The expression holds a tag: write the bare expression.")
    while (bare := _FENCE.sub("", text)) != text:
        text = bare
    return text


def _entity(match: re.Match[str]) -> str:
    name = match.group(1)
    return chr(int(name[1:])) if name[0] == "#" and 31 < int(name[1:]) < 127 else _ENTITIES.get(name, " ")


def _unicode(text: str) -> str:
    """Folds look-alikes, digits of any script, superscripts and fractions into ASCII; drops invisible characters."""
    if "$" in text:
        text = _CENT_WORDS.sub(r"(\1/100)", text)
    if text.isascii() and not _CONTROL.search(text):
        return text.replace("$", " ").replace("\t", " ") if "\\$" not in text else text.replace("\\$", " ").replace("$", " ")
    text = "".join(char for char in text if unicodedata.category(char) != "Cf" and char not in "\ufe0f\ufe0e\u20e3")
    if _CONTROL.search(text):
        raise CalcError("The expression holds control characters: write plain text.")
    text = text.replace("\t", " ")
    text = _CENTS.sub(r"(\1/100)", text)
    text = _VULGAR.sub(_vulgar, text)
    text = _SUPER_RUN.sub(lambda run: f"^({run.group().translate(_SUPERS)})", text)
    text = unicodedata.normalize("NFKC", text.replace("º", "°")).translate(CHARACTERS)
    text = "".join(char if char < "\x80" else _digit(char) for char in text)
    return text.replace("\\$", " ")


def _vulgar(match: re.Match[str]) -> str:
    before, char = match.groups()
    top, bottom = unicodedata.normalize("NFKC", char).split("\u2044")
    return f"{before} {top}/{bottom}" if before else f"({top}/{bottom})"


def _digit(char: str) -> str:
    value = unicodedata.decimal(char, None)
    return char if value is None else str(value)


def _words(line: str) -> str:
    """Takes off the question around an expression and writes phrases as operators."""
    line = _ASK.sub("", line, count=1) if line[:1].isalpha() or line[:1] == " " else line
    line = _DANGLING.sub("", line.rstrip(" .?").lstrip(" ="))
    if any(char.isalpha() for char in line):
        for pattern, meaning in _PHRASES:
            line = pattern.sub(meaning, line)
    return line
