"""A place in a list of tokens, with what the parser keeps count of on its way; numbers and calls as nodes of the tree."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from swirl_env.tools.calculator.names import FUNCTIONS
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.tokens import THOUSANDS

Node = Any
"""int | Fraction | str | tuple[str, ...]"""

MAX_DEPTH = 50
"""Levels of brackets, calls and powers inside one another."""
MAX_CHAIN = 200
"""Operators that pile up on one another without brackets: postfixes, mod, percentages added."""
MAX_DIGITS = 4000
"""Digits of a literal, and about those of any exact number on the way to a result."""
_SHOWN = frozenset("+-*/^%!()[]{},=|.")


class Cursor:
    """Tokens and a place among them; `token` is the next one, empty at the end."""

    def __init__(self, found: list[str]) -> None:
        self.tokens = found
        self.place = 0
        self.token = found[0] if found else ""
        self.depth = 0
        self.chain = 0
        self.bars = 0
        self.arguments = False
        """Whether a comma separates here rather than groups digits."""
        self.variable = ""
        """``dx`` where an integral waits for it."""

    def take(self) -> str:
        """Returns the next token and moves on."""
        token = self.token
        self.place += 1
        self.token = self.tokens[self.place] if self.place < len(self.tokens) else ""
        return token

    def expect(self, wanted: str) -> None:
        """Moves past one certain token."""
        if self.token != wanted:
            raise CalcError(f"Expected {wanted!r}, but {self.found()}.")
        self.take()

    def found(self) -> str:
        """Says what comes next, in words that are safe to show."""
        if not self.token:
            return "the expression ended"
        shown = self.token if self.token.isalnum() and len(self.token) <= 20 else ""
        shown = shown or (self.token if set(self.token) <= _SHOWN else "")
        return f"found {shown!r}" if shown else "found something else"

    def unexpected(self) -> str:
        """The sentence for a token that fits nowhere."""
        if self.token in (",", THOUSANDS):
            return "A comma stands where none belongs: write decimals with a point, and group digits by threes."
        if self.token[:1].isdigit() or self.token[:1] == ".":
            return "Two numbers stand side by side: put an operator between them."
        return f"The expression cannot be read: {self.found()} where an operator or the end was expected."

    def enter(self) -> None:
        """Counts one level of nesting."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise CalcError("The expression is nested too deeply.", "limit")

    def pile(self) -> None:
        """Counts one operator whose operand is all of what came before."""
        self.chain += 1
        if self.chain > MAX_CHAIN:
            raise CalcError("The expression is nested too deeply.", "limit")


def is_function(name: str) -> bool:
    """Whether a canonical name is a function, log_2 and root_4 among them."""
    return name in FUNCTIONS or name.startswith(("log_", "root_"))


def literal(text: str) -> int | Fraction:
    """Returns the exact value of a number as written.

    Raises:
        CalcError: for one of too many digits.
    """
    if text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    mantissa, _, exponent = text.replace("_", "").lower().partition("e")
    whole, _, decimals = mantissa.partition(".")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise CalcError("A number has too many digits.", "limit")
    power = int(exponent or 0) - len(decimals)
    digits = int(whole + decimals or "0")
    value = Fraction(digits, 10**-power) if power < 0 else digits * 10**power
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def call(name: str, arguments: list[Node]) -> Node:
    """Returns the call, after its number of arguments was checked."""
    if name not in FUNCTIONS:
        raise CalcError("There is no function of that name.")
    least, most = FUNCTIONS[name]
    if not least <= len(arguments) <= most:
        wanted = "one argument" if most == 1 else "another number of arguments"
        raise CalcError(f"{name} takes {wanted}.")
    return ("call", name, *arguments)
