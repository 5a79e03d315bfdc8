"""Relations between rationals, and equations of the first degree in one unknown, in process."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from fractions import Fraction

from swirl_env.tools.calculator.exact import evaluate
from swirl_env.tools.calculator.goal import Goal
from swirl_env.tools.calculator.rational import Irrational, Node, Number, bounded
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.units import variables

COMPARE: dict[str, Callable[[Number, Number], bool]] = {
    "=": operator.eq,
    "agree": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
NO_SOLUTION = "no solution"
ANYTHING = "true for every value of the unknown"
_HIGHER = 2
"""Stands for every degree above the first."""


def compare(node: Node, lets: Mapping[str, Number]) -> bool:
    """Returns whether a relation between numbers, or a chain of them, holds."""
    if node[0] == "and":
        return all([compare(part, lets) for part in node[1:]])
    return agree(node[0], COMPARE[node[0]](evaluate(node[1], lets), evaluate(node[2], lets)))


def agree(sign: str, true: bool) -> bool:
    """Returns whether a relation holds; one whose sides agree only if a unit is left out must hold."""
    if sign == "agree" and not true:
        raise CalcError("A number with a unit cannot be compared with one without.")
    return true


def solve_linear(goal: Goal, lets: Mapping[str, Number]) -> tuple[str, Number | str]:
    """Returns the unknown and its value (or the sentence that there is none), from two points of left minus right side.

    Raises:
        Irrational: if the worker has to take over.
    """
    if len(goal.nodes) != 1 or len(goal.unknowns) > 1:
        raise Irrational
    equation = as_equation(goal.nodes[0])
    unknown = variables(equation) - lets.keys()
    if len(unknown) != 1 or not set(goal.unknowns) <= unknown:
        raise Irrational
    (name,) = unknown
    if equation[0] not in ("=", "==") or max(degree(equation[1], name), degree(equation[2], name)) >= _HIGHER:
        raise Irrational
    at = [evaluate(equation[1], {**lets, name: x}) - evaluate(equation[2], {**lets, name: x}) for x in (0, 1)]
    slope = at[1] - at[0]
    if slope == 0:
        return name, ANYTHING if at[0] == 0 else NO_SOLUTION
    return name, bounded(Fraction(-at[0]) / slope)


def as_equation(node: Node) -> Node:
    """Reads Eq(a, b) as a = b, and an expression as one that equals zero."""
    if type(node) is tuple and node[:2] == ("call", "eq"):
        return ("=", *node[2:])
    relation = type(node) is tuple and node[0] in (*COMPARE, "and")
    return node if relation else ("=", node, 0)


def degree(node: Node, name: str) -> int:
    """Returns 0, 1 or more: the degree of a tree in a variable, read off its form."""
    if node == name:
        return 1
    if type(node) is not tuple or name not in variables(node):
        return 0
    head = node[0]
    if head == "neg":
        return degree(node[1], name)
    if head == "+":
        return max(degree(term, name) for term in node[1:])
    if head == "*":
        return min(_HIGHER, sum(degree(factor, name) for factor in node[1:]))
    return _HIGHER
