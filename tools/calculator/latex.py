"""What starts with a sign or a LaTeX command: roots, fractions, bars, sums, integrals and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swirl_env.tools.calculator.cursor import Node, call
from swirl_env.tools.calculator.text import CalcError

if TYPE_CHECKING:
    from swirl_env.tools.calculator.parser import Parser


def read_special(parser: Parser, token: str) -> Node:
    """Everything that starts with a sign or a LaTeX command; `token` has been read."""
    if token == "|":
        parser.bars += 1
        node = parser.sum()
        parser.bars -= 1
        parser.expect("|")
        return call("abs", [node])
    if token == "√":
        return call("sqrt", [parser.postfix()])
    if token == "∞":
        return ("const", "oo")
    if token == "\\frac":
        top = group(parser)
        return ("*", top, ("inv", group(parser)))
    if token == "\\binom":
        return call("binomial", [group(parser), group(parser)])
    if token == "\\sqrt":
        degree = parser.bracket() if parser.token == "[" else None
        return call("sqrt", [group(parser)]) if degree is None else call("root", [group(parser), degree])
    if token in ("\\lfloor", "\\lceil"):
        node = parser.sum()
        parser.expect("\\r" + token[2:])
        return call("floor" if token == "\\lfloor" else "ceil", [node])
    if token in ("\\sum", "\\prod"):
        return big_operator(parser, "summation" if token == "\\sum" else "product")
    if token == "\\int":
        return integral(parser)
    if token == "\\lim":
        return limit(parser)
    parser.place -= 1
    parser.token = token
    raise CalcError(f"The expression cannot be read: {parser.found()} where an operand was expected.")


def group(parser: Parser) -> Node:
    """The argument of a LaTeX command: {...}, or one digit or name."""
    if parser.token.isdigit() and len(parser.token) > 1:  # \frac12
        digit, parser.tokens[parser.place] = parser.token[0], parser.token[1:]
        parser.token = parser.tokens[parser.place]
        return int(digit)
    return parser.primary()


def big_operator(parser: Parser, name: str) -> Node:
    """_{k=1}^{10} body, after a sum or product sign."""
    parser.expect("_")
    parser.expect("{")
    variable = parser.take()
    parser.expect("=")
    low = parser.sum()
    parser.expect("}")
    parser.expect("^")
    high = group(parser)
    return call(name, [parser.product(), ("list", variable, low, high)])


def limit(parser: Parser) -> Node:
    """Reads _{x to a} and the body, after a limit sign."""
    parser.expect("_")
    parser.expect("{")
    variable = parser.take()
    parser.expect("->")
    point = parser.sum()
    parser.expect("}")
    return call("limit", [parser.product(), variable, point])


def integral(parser: Parser) -> Node:
    """(_a^b)? body dx, after an integral sign."""
    limits: list[Node] = []
    if parser.token == "_":
        parser.take()
        low = group(parser)
        parser.expect("^")
        limits = [low, group(parser)]
    names = [t for t in parser.tokens[parser.place :] if len(t) == 2 and t[0] == "d" and t[1].isalpha()]
    if not names:
        raise CalcError("The integral lacks its variable: end it with dx.")
    parser.variable, outer = names[0], parser.variable
    body = parser.sum()
    parser.variable = outer
    parser.expect(names[0])
    return call("integrate", [body, ("list", names[0][1], *limits)])
