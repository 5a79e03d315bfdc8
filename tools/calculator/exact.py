"""Exact rational evaluation of a syntax tree, in process: arithmetic and functions are bounded (see `rational`)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

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
            return progression([evaluate(term, names) for term in node[1:] if term != ("dots",)], node.index(("dots",)) - 1)
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


def progression(values: list[Number], dots: int) -> Number:
    """Returns 1 + 2 + 3 + ... + 10, where `dots` terms stand before the dots.

    Raises:
        CalcError: if the terms are no arithmetic progression.
    """
    before, after = values[:dots], values[dots:]
    if not before or len(after) != 1:
        raise CalcError("A sum with dots needs its first terms, the dots and its last term.")
    step = before[1] - before[0] if len(before) > 1 else (1 if after[0] >= before[0] else -1)
    steady = all(b - a == step for a, b in pairwise(before))
    count = Fraction(after[0] - before[0], step) + 1 if step else Fraction(0)
    if not steady or count.denominator != 1 or count < len(before):
        raise CalcError("The terms before and after the dots are no arithmetic progression.")
    return bounded((before[0] + after[0]) * count / 2)
