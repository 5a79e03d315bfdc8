"""Statement -> tokens: one compiled pattern, linear time; LaTeX commands and ``x`` for times are settled here."""

from __future__ import annotations

import re

from swirl_env.tools.calculator.names import ALIASES, FUNCTIONS, GREEK, INFIX_WORDS, LATEX, SHORT_ONLY_CALLED, STOP_WORDS
from swirl_env.tools.calculator.text import CalcError

THOUSANDS = "\x01"
"""Token of a comma that may group digits: a digit right before it, exactly three right after."""

_TOKEN = re.compile(
    r" ?("
    r"\.\.\.|\d+(?:_\d{3}(?!\d))*(?:\.(?!\.)\d*)?(?:[eE][+-]?\d+(?![\w.]))?|\.\d+(?:[eE][+-]?\d+(?![\w.]))?"
    r"|[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*|\\[A-Za-z]+|\\.|\*\*|//|<=|>=|==|!=|->|:=|[^\s])"
)
_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SUBSCRIPT = re.compile(r"(?<=[A-Za-z])_\{(\w+)\}")
_CHOOSE = re.compile(r"(?<![\w.])(\d+) ?([CP]) ?(\d+)(?!\w)")
_DEGREE = re.compile(r"\^ ?(?:\{ ?)?\\circ(?: ?\})?")
_TIGHT = re.compile(r"(?:[xX]\d+)+")
_PIECES = re.compile(r"[xX]|\d+")
_TIMES = frozenset(("x", "X", "\\times", "\\cdot"))
_STARTS_VALUE = re.compile(r"[\d(√]|\.\d|\\(?:frac|sqrt|binom)")
_ALLOWED = frozenset("+-*/÷^%!()[]{},=<>|√°∞_" + THOUSANDS) | {"**", "//", "<=", ">=", "==", "!=", "->", "...", ":="}


def tokens(text: str) -> list[str]:
    """Returns the tokens of one statement.

    Raises:
        CalcError: for characters and LaTeX commands that no expression has.
    """
    if "," in text:
        text = _COMMA.sub(THOUSANDS, text)
    if text.isascii() and "\\" not in text and not any(map(str.isalpha, text)):
        result = _TOKEN.findall(text)
    else:
        result = _rich(text)
    for token in result:
        if not (token in _ALLOWED or (token[0].isascii() and token[0].isalnum()) or token[0] in ".\\πτ"):
            raise CalcError(_refusal(token))
    return result


def _refusal(token: str) -> str:
    shown = f" {token!r}" if token.isascii() and token.isprintable() and token not in "<>&\"'`" else ""
    return f"The character{shown} is not part of an expression." if shown else "A character is not part of an expression."


def _rich(text: str) -> list[str]:
    if "\\" in text:
        text = _DEGREE.sub("°", text)
    text = _CHOOSE.sub(lambda m: f"({'binomial' if m[2] == 'C' else 'perm'}({m[1]}, {m[3]}))", _SUBSCRIPT.sub(r"_\1 ", text))
    result: list[str] = []
    raw = _TOKEN.findall(text)
    _check_powers_of_ten(raw)
    for token in raw:
        if token[0] != "\\":
            result.append(token)
            continue
        if token[1:] not in LATEX:
            raise CalcError("The expression holds a LaTeX command that the calculator does not know.")
        if LATEX[token[1:]]:
            result.append(LATEX[token[1:]])
    return _read_x_as_times(result)


def _check_powers_of_ten(tokens: list[str]) -> None:
    """Refuses ``6 x 10^9 / 3 x 10^4``: by the rules of precedence the last factor multiplies, but the writer divides by it."""
    for i in range(2, len(tokens) - 2):
        ten = tokens[i] in _TIMES and tokens[i + 1] == "10" and tokens[i + 2] in ("^", "**")
        if ten and tokens[i - 1][0].isdigit() and tokens[i - 2] in ("/", "÷", "\\div"):
            raise CalcError("It is unclear how far the division reaches: put the power of ten and its factor in parentheses.")


def _read_x_as_times(tokens: list[str]) -> list[str]:
    """Reads ``x`` as times if every one of them stands between operands, or if numbers stand on both sides."""
    if not any(token[0] in "xX" for token in tokens):
        return tokens
    split: list[str] = []
    glued = False
    for token in tokens:  # "3x4": the digits are no part of a name
        tight = (
            bool(split)
            and (split[-1].lstrip(".")[:1].isdigit() or split[-1] in ("%", ")"))
            and _TIGHT.fullmatch(token) is not None
        )
        split += _PIECES.findall(token) if tight else [token]
        glued |= tight
    places = [i for i, token in enumerate(split) if token in ("x", "X")]
    infix = {i for i in places if 0 < i < len(split) - 1 and _ends_operand(split[i - 1]) and _starts_operand(split, i + 1)}
    everywhere = len(infix) == len(places)
    if (glued and ("=" in tokens[:-1] or not everywhere)) or any(i + 1 in places for i in places):
        raise CalcError("It is unclear whether x is a variable or means times: write * for times.")
    for i in infix:
        if everywhere or split[i + 1][0].isdigit():
            split[i] = "*"
    return split


def _ends_operand(token: str) -> bool:
    """Whether a number, a bracket or a unit ends with this token."""
    word = len(token) > 1 and token[0].isalpha() and token not in GREEK and token.lower() not in STOP_WORDS
    return (
        (word and token not in INFIX_WORDS)
        or token[0].isdigit()
        or token[0] == "."
        or token in (")", "]", "}", "%", "!", "|", "°")
    )


def _starts_operand(tokens: list[str], i: int) -> bool:
    name = ALIASES.get(tokens[i], tokens[i])
    function = name in FUNCTIONS and (name not in SHORT_ONLY_CALLED) and tokens[i + 1 : i + 2] == ["("]
    return bool(_STARTS_VALUE.match(tokens[i])) or function
