"""Statements -> one goal: a value, a truth or unknowns to solve for, with the assignments made on the way to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple, Required, TypedDict

from swirl_env.tools.calculator.names import ALIASES, FUNCTIONS, GREEK, LABEL_TRAPS, STOP_WORDS
from swirl_env.tools.calculator.parser import RELATIONS, parse
from swirl_env.tools.calculator.rational import Node
from swirl_env.tools.calculator.text import CalcError, ErrorKind, statements
from swirl_env.tools.calculator.units import (
    MARKS,
    Powers,
    as_variables,
    children,
    count_numbers,
    has_marks,
    letters_as_variables,
    rebuild,
    variables,
    without_units,
)

MAX_STATEMENTS = 50
_PLAIN = re.compile(r"[0-9+\-*/^%!()., ]+")
_SIGNS = frozenset(RELATIONS.values())
_ALGEBRA = frozenset(
    "simplify expand factor cancel together apart trigsimp diff integrate summation product limit series".split()
)
_ALGEBRA |= {"solve", "nsolve", "subs", "eq"}
"""Functions of expressions rather than of numbers."""
_SOLVE = re.compile(
    r" ?solve (?!\()(?:for ([A-Za-z]\w*) ?[:,]? ?(?:in |given )?)?(?:the equation )?",
    re.I,
)
_FOR = re.compile(r",? for ([A-Za-z]\w*) ?\Z")
_LABEL = re.compile(r" ?([A-Za-z]+(?:[ '][A-Za-z_]+)+) ?[=:](?= ?[\d(.\-+$])| ?([A-Za-z_]{2,}) ?:(?= ?[\d(.\-+$])")
_SIDE_BY_SIDE = re.compile(r"=[^=<>!]*\d [A-Za-z]\w* ?=(?![=<>])")
_SYSTEM = re.compile(r",|\band\b")
_LABEL_WORDS = frozenset(("sum", "product", "total_of", "add", "number", "max", "min", "maximum", "minimum"))
"""Names of functions that say in a label only what follows it."""
_NOTHING = "There is nothing to calculate: the words in the expression have no value."


class Goal(NamedTuple):
    """What is asked for."""

    kind: str
    """``value``, ``truth`` or ``solve``."""
    nodes: tuple[Node, ...]
    """The expression, the relation, or the equations (an expression among them means that it equals zero)."""
    lets: tuple[tuple[str, Node], ...] = ()
    """Names with their values, in order."""
    unknowns: tuple[str, ...] = ()
    """What to solve for; empty: whatever is unknown."""


class Reply(TypedDict, total=False):
    """What the worker sends back: `text` and `data`, or `text` and `error`."""

    id: int
    """Of the request."""
    text: Required[str]
    data: dict[str, str]
    error: ErrorKind
    ready: bool
    """Set in the line with which a worker says that it has started."""
    startup_counts_towards_timeout: bool
    """Whether a timeout may be due to the worker's start, so that another try may do better."""


def plan(text: str) -> Goal:
    """Reads a whole text.

    Raises:
        CalcError: if it holds no calculation.
    """
    lines = statements(text)
    if len(lines) == 1 and _PLAIN.fullmatch(lines[0]):  # the common case
        node = parse(lines[0])
        return Goal("value", (node,)) if type(node) is not tuple or node[0] != "list" else single(node, {})
    if len(lines) > MAX_STATEMENTS:
        raise CalcError("There are too many statements.", "limit")
    nodes: list[Node] = []
    unknowns: tuple[str, ...] = ()
    assigned: set[str] = set()
    for line in lines:
        line, wanted = _read_question(line.removesuffix(" ="))
        unknowns += wanted
        if _SIDE_BY_SIDE.search(line):
            raise CalcError("Equations stand side by side: put commas between them.")
        for part in _split(line):
            nodes.append(parse(part, assigned))
            if _is_equation(nodes[-1]) and type(nodes[-1][1]) is str:
                assigned.add(nodes[-1][1])
    names = set().union(*map(variables, nodes))
    nodes = [as_variables(node, names) for node in nodes]
    if unknowns:
        return _equations(nodes, unknowns)
    if lines[-1].endswith(" ="):
        _check_question(lines[-1], nodes[-1])
    goal = single(nodes[0], {}) if len(nodes) == 1 else sequence(nodes)
    if lines[-1].endswith(" =") and any(variables(node) - {name for name, _ in goal.lets} for node in goal.nodes):
        raise CalcError("The right side of an equation is missing.")
    _check_names(goal)
    if goal.kind == "value" and not goal.lets and variables(goal.nodes[0]) == {"i"}:
        goal = Goal("value", (_imaginary(goal.nodes[0]),))
    return goal


def _check_question(line: str, node: Node) -> None:
    """Refuses what ends with an equals sign and is no calculation: a part of one, or a quantity to be converted."""
    if line.startswith(("+", "- ")):
        raise CalcError("An operand is missing before the first sign.")
    value = node[2] if type(node) is tuple and node[0] == "=" and type(node[1]) is str else node
    number = value[1] if type(value) is tuple and value[0] in ("%", "neg") else value
    if type(number) is not tuple or number[0] == "const" or _is_quantity(number):
        raise CalcError("There is nothing to calculate: a number stands alone.")
    if number[0] == "*" and number[-1] == ("%", 100):
        raise CalcError("It is unclear whether the result is to be a percentage: leave out the last factor, or write 100.")


def _check_names(goal: Goal) -> None:
    """Refuses words that a value would still hold, and equations for several words at once."""
    known = {name for name, _ in goal.lets}
    words = {name for node in goal.nodes for name in variables(node) - known if _is_word(name)}
    if words and (goal.kind == "value" or (len(goal.nodes) == 1 and len(words) > 1)):
        raise CalcError(_NOTHING)


def _is_word(name: str) -> bool:
    """Whether a name is no letter, with or without a subscript."""
    return len(name.rstrip("0123456789").partition("_")[0]) > 1 and name not in GREEK


def _imaginary(node: Node) -> Node:
    """Reads i as the imaginary unit, unless a function binds it, as in sum(i, i, 1, 10)."""
    if node == "i":
        return ("const", "I")
    if type(node) is tuple and node[0] == "call" and len(node) > 3:
        return node
    return rebuild(node, _imaginary)


def _read_question(line: str) -> tuple[str, tuple[str, ...]]:
    """Takes "solve ... for x" or a label in words off a line."""
    asked = _SOLVE.match(line)
    if asked:
        line, wanted = line[asked.end() :], asked[1]
        tail = _FOR.search(line)
        if tail:
            line, wanted = line[: tail.start()], tail[1]
        return line, (wanted,) if wanted else ()
    label = _LABEL.match(line)
    if label is None:
        return line, ()
    for word in re.split(r"[ _']+", (label[1] or label[2]).lower()):
        if word in LABEL_TRAPS or (word in STOP_WORDS - _LABEL_STOPS) or (_is_function(word) and word not in _LABEL_WORDS):
            raise CalcError(_NOTHING)
    return line[label.end() :], ()


_LABEL_STOPS = frozenset("the a an of in for on at to is with from he she they it we you i".split())


def _is_function(word: str) -> bool:
    return ALIASES.get(word, word) in FUNCTIONS


def _split(line: str) -> list[str]:
    """Splits "x + y = 5, x - y = 1" into its equations."""
    if "=" in line and not any(bracket in line for bracket in "([{<>!"):
        parts = _SYSTEM.split(line)
        if all("=" in part for part in parts):
            return parts
        parts = line.split(", ")
        if "=" in parts[0]:
            return parts
    return [line]


def single(node: Node, known: Mapping[str, Powers]) -> Goal:
    """Returns the goal of one statement; `known` are the names that have a value, with their units."""
    if type(node) is str and node not in known:
        raise CalcError("There is nothing to calculate: a name alone has no value.")
    head = node[0] if type(node) is tuple else ""
    if head == "list":
        raise CalcError("There is nothing to calculate: a list stands alone.")
    if head == "call" and node[1] == "solve":
        return _solve_call(node)
    if head not in _SIGNS and head != "and":
        return Goal("value", (_plain(node, known)[0],))
    if head in ("=", "=="):
        left, right = node[1:]
        _check_assignable(left)
        for name, value in ((left, right), (right, left)):
            if type(name) is str and name not in known and name not in variables(value):
                return _valued(value, known)
    if variables(node) - known.keys():
        return _equations(list(node[1:]) if head == "and" and all(part[0] in ("=", "==") for part in node[1:]) else [node], ())
    return Goal("truth", (without_units(node, known)[0],))


def _plain(node: Node, known: Mapping[str, Powers]) -> tuple[Node, Powers]:
    """Returns an expression without its units, and the units of its value."""
    free = variables(node) - known.keys()
    if free or _has_algebra(node):
        node = letters_as_variables(node)
    if not has_marks(node):
        return without_units(node, known)
    if free:
        raise CalcError("Words and variables are mixed: write numbers, variables and operators.")
    bare, powers = without_units(node, known)
    if _is_quantity(node) and count_numbers(bare) < 2:
        raise CalcError("There is nothing to calculate: a quantity stands alone.")
    return bare, powers


def _is_quantity(node: Node) -> bool:
    """Whether a tree is a number and its unit, and nothing else."""
    if node[0] == "neg":
        return type(node[1]) is tuple and _is_quantity(node[1])
    numbers = sum(type(factor) in (int, Fraction) for factor in node[1:])
    return node[0] == "*" and numbers == 1 and all(type(f) is tuple and f[0] in MARKS for f in node[1:] if f != node[1])


def _has_algebra(node: Node) -> bool:
    if type(node) is tuple and node[0] == "call" and node[1] in _ALGEBRA:
        return True
    return any(map(_has_algebra, children(node)))


def _equations(nodes: list[Node], unknowns: tuple[str, ...]) -> Goal:
    nodes = [letters_as_variables(node) for node in nodes]
    if any(map(has_marks, nodes)):
        raise CalcError("Units and unknowns are mixed: write the equation without units.")
    return Goal("solve", tuple(nodes), (), unknowns)


def _check_assignable(left: Node) -> None:
    """Refuses e = 5, after which e would be two things."""
    if type(left) is tuple and left[0] == "const":
        raise CalcError("The name on the left is a constant: choose another one.")


def _valued(node: Node, known: Mapping[str, Powers]) -> Goal:
    if type(node) is str and node not in known:
        raise CalcError("There is nothing to calculate: both sides are names.")
    if type(node) is tuple and node[0] == "list":
        raise CalcError("There is nothing to calculate: a list stands alone.")
    if type(node) is tuple and node[:2] == ("call", "solve"):
        return _solve_call(node)
    return Goal("value", (_plain(node, known)[0],))


def sequence(nodes: list[Node]) -> Goal:
    """Returns the goal of several statements: the last one's, with the assignments before it, or a system of equations."""
    lets: dict[str, Node] = {}
    known: dict[str, Powers] = {}
    system = _is_equation(nodes[-1])
    for place, node in enumerate(nodes):
        last = place == len(nodes) - 1
        if type(node) in (int, Fraction):
            raise CalcError("Numbers stand side by side: put an operator between them.")
        if _is_equation(node):
            _check_assignable(node[1])
        assigned = _is_equation(node) and type(node[1]) is str and node[1] not in lets
        if assigned and variables(node[2]) <= lets.keys():
            lets[node[1]], known[node[1]] = _assigned(node[2], known)
        elif system and last and variables(node) and not variables(node[1]) - lets.keys() and variables(node[2]) - lets.keys():
            system = False
        elif system or (not last and type(node) is tuple and node[0] in _SIGNS):
            return _system(nodes)
    final = nodes[-1]
    if system:
        name = final[1]
        if type(name) is str and name in lets:
            return Goal("value", (lets.pop(name),), tuple(lets.items()))
    return single(final, known)._replace(lets=tuple(lets.items()))


def _assigned(node: Node, known: Mapping[str, Powers]) -> tuple[Node, Powers]:
    """Returns the value of an assignment, which may be a quantity alone, and its units."""
    return without_units(letters_as_variables(node) if _has_algebra(node) else node, known)


def _is_equation(node: Node) -> bool:
    return type(node) is tuple and node[0] in ("=", "==")


def _system(nodes: list[Node]) -> Goal:
    if not all(map(_is_equation, nodes)):
        raise CalcError("Equations and expressions are mixed: write either equations to solve or one expression.")
    return _equations(nodes, ())


def _solve_call(node: Node) -> Goal:
    """Reads solve(equations, unknowns)."""

    def items(argument: Node) -> tuple[Node, ...]:
        return argument[1:] if type(argument) is tuple and argument[0] == "list" else (argument,)

    equations = list(items(node[2]))
    wanted = [item for argument in node[3:] for item in items(argument)]
    options = [item for item in wanted if type(item) is tuple and item[0] == "=" and item[1] in ("dict", "set", "domain")]
    wanted = [item for item in wanted if item not in options]
    extra = [item for item in wanted if type(item) is tuple]
    if not all(type(item) is str for item in wanted if item not in extra):
        raise CalcError("solve takes equations and then the names to solve for.")
    return _equations([*equations, *extra], tuple(item for item in wanted if type(item) is str))
