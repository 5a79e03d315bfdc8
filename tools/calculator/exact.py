"""Exact rational evaluation of a syntax tree, in process: arithmetic and functions are bounded (see `rational`)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from math import isqrt

from swirl_env.tools.calculator.functions import EXACT, OPERATORS
from swirl_env.tools.calculator.rational import MAX_BITS, Irrational, Node, Number, add, bounded, divide
from swirl_env.tools.calculator.text import CalcError


def evaluate(node: Node, names: Mapping[str, Number]) -> Number:
    """Returns the exact value of a syntax tree.

    Args:
        node: what `parser.parse` gave.
        names: values of variables.

    Raises:
        Irrational: if the worker has to take over.
        CalcError: if there is no value.
    """
    kind = type(node)
    if kind is int or kind is Fraction:
        return node  # type: ignore[no-any-return]
    if kind is str:
        if node not in names:
            raise Irrational
        return names[node]
    head = node[0]
    if head == "+":
        if ("dots",) in node:
            return progression([term for term in node[1:] if term != ("dots",)], node.index(("dots",)) - 1, names)
        return add([evaluate(term, names) for term in node[1:]])
    if head == "*":
        return multiply(node, names)
    if head == "neg":
        return -evaluate(node[1], names)
    if head == "call":
        if node[1] not in EXACT:
            raise Irrational
        values = [evaluate(value, names) for argument in node[2:] for value in flat(argument)]
        return bounded(EXACT[node[1]](*values))
    if head not in OPERATORS:
        raise Irrational
    return bounded(OPERATORS[head](*[evaluate(value, names) for value in node[1:]]))


def flat(node: Node) -> tuple[Node, ...]:
    """Returns the items of a list, or the one node."""
    return node[1:] if type(node) is tuple and node[0] == "list" else (node,)


def multiply(node: Node, names: Mapping[str, Number]) -> Number:
    """Returns the product of ``("*", a, ("inv", b), ...)``."""
    total: Number = 1
    for factor in node[1:]:
        if type(factor) is tuple and factor[0] == "inv":
            total = divide(total, evaluate(factor[1], names))
        else:
            total = total * evaluate(factor, names)
            if type(total) is not int or total.bit_length() > MAX_BITS:
                total = bounded(total)
    return total


def progression(terms: list[Node], dots: int, names: Mapping[str, Number]) -> Number:
    """Returns 1 + 2 + 3 + ... + 10, where `dots` terms stand before the dots.

    Two terms tell the rule of plain numbers alone: 1^2 + 2^2 + ... + 5^2 goes on by a formula, and 1 + 4 + ... + 100 or
    2 + 4 + ... + 64 may.

    Raises:
        CalcError: if the terms are no arithmetic progression, or may be another one.
    """
    values = [evaluate(term, names) for term in terms]
    before, (last, *more) = values[:dots], values[dots:] or [0, 0]
    if not before or more:
        raise CalcError("A sum with dots needs its first terms, the dots and its last term.")
    step = before[1] - before[0] if dots > 1 else (1 if last >= before[0] else -1)
    count = Fraction(last - before[0], step) + 1 if step else Fraction(0)
    if any(b - a != step for a, b in pairwise(before)) or count.denominator != 1 or count < dots:
        raise CalcError("The terms before and after the dots are no arithmetic progression.")
    if dots < 3 and not (
        all(map(_is_plain, terms)) and (dots == 1 or abs(step) == 1 or not _is_otherwise(before[0], before[1], last))
    ):
        raise CalcError("The rule of a sum with dots is unclear: write its first three terms as plain numbers.")
    return bounded((before[0] + last) * count / 2)


def _is_plain(term: Node) -> bool:
    """Whether a term is a number as written, with its sign, its unit (which has become 1) or a percent sign."""
    if type(term) is not tuple:
        return type(term) in (int, Fraction)
    return (term[0] in ("neg", "%") or (term[0] == "*" and term[2:] == (1,))) and _is_plain(term[1])


def _is_otherwise(first: Number, second: Number, last: Number) -> bool:
    """Whether a sum that begins and ends so may be one of squares, or each term a multiple of the one before it."""
    if (first, second) == (1, 4) and last == isqrt(int(last)) ** 2:
        return True
    ratio = Fraction(second, first) if first else Fraction(0)
    if abs(ratio) < 2:
        return False
    term = second * ratio * ratio
    while abs(term) < abs(Fraction(last)):
        term *= ratio
    return term == last
