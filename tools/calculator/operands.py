"""Numbers, names and function calls, as the parser meets them among its tokens."""

from __future__ import annotations

from difflib import get_close_matches
from fractions import Fraction
from typing import TYPE_CHECKING

from swirl_env.tools.calculator.cursor import Node, call, is_function, literal
from swirl_env.tools.calculator.names import (
    ALIASES,
    CONSTANTS,
    FUNCTIONS,
    INFIX_WORDS,
    METHODS,
    MODULES,
    ONE_ARGUMENT,
    SHORT_ONLY_CALLED,
)
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.tokens import THOUSANDS

if TYPE_CHECKING:
    from swirl_env.tools.calculator.parser import Parser


def read_number(parser: Parser) -> Node:
    """A literal: thousands groups, blanks between groups and mixed numbers belong to it."""
    text = parser.take()
    token = parser.token
    following = parser.tokens[parser.place + 1 : parser.place + 2] if token == THOUSANDS else []
    if following and (not parser.arguments or following[0][0] == "0"):  # no argument begins with 000
        text = grouped(parser, text)
        token = parser.token
    if token and token[0].isdigit() and text.isdigit():
        if len(text) <= 3 and text[0] != "0":
            while len(parser.token) == 3 and parser.token.isdigit():
                text += parser.take()
        if parser.token.isdigit() and parser.tokens[parser.place + 1 : parser.place + 2] == ["/"]:
            return mixed_number(parser, literal(text))
    return literal(text)


def grouped(parser: Parser, text: str) -> str:
    """Joins 1,250,000."""
    if len(text) > 3 or not text.isdigit() or text[0] == "0":
        raise CalcError("A comma stands where none belongs: write decimals with a point, and group digits by threes.")
    parts = [text]
    while parser.token == THOUSANDS:
        parser.take()
        parts.append(parser.take())
        if "." in parts[-1]:
            break
    return "".join(parts)


def mixed_number(parser: Parser, whole: Node) -> Node:
    """1 1/2, of which the whole has been read."""
    top = literal(parser.take())
    parser.take()
    bottom = literal(parser.token) if parser.token.isdigit() else 0
    if not 0 < top < bottom:
        raise CalcError("Two numbers stand side by side: put an operator between them.")
    parser.take()
    return ("+", whole, ("*", top, ("inv", bottom)))


def read_name(parser: Parser) -> Node:
    """A constant, a function with its arguments, or a variable."""
    token = parser.take()
    if token in MODULES and parser.token == ".":
        parser.take()
        if not parser.token[:1].isalpha():
            raise CalcError("A function name has to follow the dot.")
        return read_name(parser)
    name = ALIASES.get(token, token)
    if is_function(name) and (parser.token == "(" or token not in SHORT_ONLY_CALLED):
        parser.enter()
        node = function(parser, name)
        parser.depth -= 1
        return node
    if token in CONSTANTS:
        return ("const", CONSTANTS[token])
    if parser.token == "(" and (len(token) > 1 or token in "fgh"):
        raise CalcError(no_function(parser, token))
    if len(token) > 30:
        raise CalcError("A name is too long to be a variable.")
    if token in INFIX_WORDS and token not in "xX":
        raise CalcError("An operand is missing before a word that joins two.")
    return token


def no_function(parser: Parser, token: str) -> str:
    """The sentence for a call of something unknown."""
    near = get_close_matches(token[:20], [*FUNCTIONS, *ALIASES], n=1, cutoff=0.6) if len(token) <= 20 else []
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no function of that name.{hint} Known are sqrt, round, min, max, gcd, solve, diff and others."


def function(parser: Parser, name: str) -> Node:
    """A function whose name has been read: sin(x), sqrt 16, sin^2(x), log_2(8), sqrt[3]{8}."""
    exponent: Node = None
    base: Node = None
    if parser.token == "_":
        parser.take()
        base = parser.primary()
    elif "_" in name:
        name, _, digits = name.partition("_")
        base = literal(digits) if digits.isdigit() else digits
    if parser.token in ("^", "**"):
        parser.take()
        exponent = sign_primary(parser)
    if parser.token == "(":
        arguments = call_arguments(parser, name)
    else:
        if not parser.starts_value(parser.place) and parser.token not in ("-", "|"):
            raise CalcError(f"{name} needs an argument in parentheses.")
        arguments = [loose_argument(parser)]
    if base is not None:
        arguments = [*arguments, base]
    if exponent in (-1, ("neg", 1)) and f"a{name}" in FUNCTIONS:
        return call(f"a{name}", arguments)
    node = call(name, arguments)
    return node if exponent is None else ("^", node, exponent)


def sign_primary(parser: Parser) -> Node:
    """An exponent between a function and its argument."""
    minus = parser.token == "-" and bool(parser.take())
    node = parser.primary()
    return ("neg", node) if minus else node


def loose_argument(parser: Parser) -> Node:
    """The operand of a function without parentheses: sqrt 16, sin 2x, -3."""
    if parser.token == "-":
        parser.take()
        return ("neg", parser.power())
    node = parser.power()
    if type(node) in (int, Fraction) and parser.token[:1].isalpha() and not parser.is_word(parser.token):
        return ("*", node, parser.power())
    return node


def call_arguments(parser: Parser, name: str) -> list[Node]:
    """( ... ) after a function's name."""
    parser.take()
    outer, bars = parser.arguments, parser.bars
    parser.arguments, parser.bars = name not in ONE_ARGUMENT, 0
    items = parser.items(")")
    parser.arguments, parser.bars = outer, bars
    return items


def read_method(parser: Parser, node: Node) -> Node:
    """.subs(x, 3) and its like."""
    parser.take()
    name = parser.take()
    if name not in METHODS or parser.token != "(":
        raise CalcError("Attributes and methods are not part of an expression: write plain arithmetic or algebra.")
    parser.pile()
    canonical = ALIASES.get(name, name)
    return call(canonical, [node, *call_arguments(parser, canonical)])
