"""Statements -> one goal: a value, a truth or unknowns to solve for, with the assignments made on the way to it."""

from __future__ import annotations

import re
from typing import NamedTuple, TypedDict

from swirl_env.tools.calculator.names import GREEK, MEASURES, UNIT_LETTERS
from swirl_env.tools.calculator.parser import RELATIONS, parse
from swirl_env.tools.calculator.rational import Node
from swirl_env.tools.calculator.text import CalcError, ErrorKind, statements

MAX_STATEMENTS = 50
_PLAIN = re.compile(r"[0-9+\-*/^%!()., ]+")
_SIGNS = frozenset(RELATIONS.values())
_SOLVE = re.compile(r"\s*solve\s+(?!\()(?:for\s+([A-Za-z]\w*)\s*[:,]?\s*(?:in\s+|given\s+)?)?(?:the\s+equation\s+)?", re.I)
_FOR = re.compile(r",?\s+for\s+([A-Za-z]\w*)\s*\Z")
_LABEL = re.compile(r"\s*[A-Za-z][A-Za-z]*(?:[ _']+[A-Za-z]+)+\s*[=:]\s*(?=[\d(.\-+ $])|\s*[A-Za-z]{2,}\s*:\s*(?=[\d(.\-+])")
_SYSTEM = re.compile(r",|\band\b")


class Goal(NamedTuple):
    """What is asked for."""

    kind: str
    """``value``, ``truth`` or ``solve``."""
    nodes: tuple[Node, ...]
    """The expression, the relation, or the equations (an expression among them means that it equals zero)."""
    lets: tuple[tuple[str, Node], ...] = ()
    """Names given a value before, in order."""
    unknowns: tuple[str, ...] = ()
    """What to solve for; empty: whatever is unknown."""


class Reply(TypedDict, total=False):
    """What the worker sends back: `text` and `data`, or `text` and `error`."""

    id: int
    """Of the request."""
    text: str
    data: dict[str, str]
    error: ErrorKind
    ready: bool
    """Set in the line with which a worker says that it has started."""
    startup_counts_towards_timeout: bool
    """Whether a timeout may be due to the worker's start, so that another try may do better."""


def plan(text: str) -> Goal:
    """Reads a whole text.

    Raises:
        CalcError: where it holds no calculation.
    """
    lines = statements(text)
    if len(lines) == 1 and _PLAIN.fullmatch(lines[0]):  # the common case
        return Goal("value", (parse(lines[0]),))
    if len(lines) > MAX_STATEMENTS:
        raise CalcError("There are too many statements.", "limit")
    nodes: list[Node] = []
    unknowns: tuple[str, ...] = ()
    for line in lines:
        line, wanted = _asked(line)
        unknowns += wanted
        nodes += [parse(part) for part in _split(line)]
    if unknowns:
        return Goal("solve", tuple(symbols_for_units(node) for node in nodes), (), unknowns)
    goal = single(nodes[0]) if len(nodes) == 1 else sequence(nodes)
    if goal.kind == "value" and not goal.lets and names(goal.nodes[0]) == {"i"}:
        goal = Goal("value", (_imaginary(goal.nodes[0]),))
    if goal.kind == "value" and not goal.lets and not any(map(str.isdigit, text)) and _is_wordy(names(goal.nodes[0])):
        raise CalcError("There is nothing to calculate: the words in the expression have no value.")
    return goal


def _imaginary(node: Node) -> Node:
    """Reads i as the imaginary unit, unless a function binds it, as in sum(i, i, 1, 10)."""
    if node == "i":
        return ("const", "I")
    if type(node) is not tuple or (node[0] == "call" and len(node) > 3) or node[0] == "const":
        return node
    return (node[0], *(_imaginary(child) for child in node[1:]))


def _is_wordy(found: set[str]) -> bool:
    return any(len(name) > 2 and name not in GREEK for name in found)


def _asked(line: str) -> tuple[str, tuple[str, ...]]:
    """Takes "solve ... for x" or a label in words off a line."""
    asked = _SOLVE.match(line)
    if asked:
        line, wanted = line[asked.end() :], asked[1]
        tail = _FOR.search(line)
        if tail:
            line, wanted = line[: tail.start()], tail[1]
        return line, (wanted,) if wanted else ()
    label = _LABEL.match(line)
    return (line[label.end() :] if label and label.end() < len(line) else line), ()


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


def single(node: Node) -> Goal:
    """Returns the goal of one statement."""
    if type(node) is not tuple:
        if type(node) is str:
            raise CalcError("There is nothing to calculate: a name alone has no value.")
        return Goal("value", (node,))
    head = node[0]
    if head == "call" and node[1] == "solve":
        return _solve_call(node)
    if head == "and" and all(part[0] in ("=", "==") for part in node[1:]) and names(node):
        return Goal("solve", tuple(symbols_for_units(part) for part in node[1:]))
    if head not in _SIGNS and head != "and":
        return Goal("value", (without_units(node),))
    if head in ("=", "=="):
        node = symbols_for_units(node)
        left, right = node[1:]
        _assignable(left)
        if type(left) is str and left not in names(right):
            return _valued(right)
        if type(right) is str and right not in names(left):
            return _valued(left)
    else:
        node = without_units(node)
    return Goal("solve" if names(node) else "truth", (node,))


def _assignable(left: Node) -> None:
    """Refuses e = 5, after which e would be two things."""
    if type(left) is tuple and left[0] == "const":
        raise CalcError("The name on the left is a constant: choose another one.")


def _valued(node: Node) -> Goal:
    if type(node) is str:
        raise CalcError("There is nothing to calculate: both sides are names.")
    return Goal("value", (node,)) if type(node) is not tuple or node[:2] != ("call", "solve") else _solve_call(node)


def sequence(nodes: list[Node]) -> Goal:
    """Returns the goal of several statements: the last one's, with the assignments before it, or a system of equations."""
    assigned_names = {node[1] for node in nodes if type(node) is tuple and node[0] in ("=", "==") and type(node[1]) is str}
    nodes = [_known_units(node, assigned_names) for node in nodes]
    for node in nodes:
        _assignable(node[1] if type(node) is tuple and node[0] in ("=", "==") else 0)
    lets: dict[str, Node] = {}
    system = type(nodes[-1]) is tuple and nodes[-1][0] in ("=", "==")
    for node in nodes:
        assigned = type(node) is tuple and node[0] in ("=", "==") and type(node[1]) is str and node[1] not in lets
        if assigned and names(node[2]) <= lets.keys():
            lets[node[1]] = without_units(node[2])
        elif system and node is nodes[-1] and names(node) and not names(node[1]) - lets.keys() and names(node[2]) - lets.keys():
            system = False
        elif system or (node is not nodes[-1] and type(node) is tuple and node[0] in _SIGNS):
            return _system(nodes)
    if system:
        name = nodes[-1][1]
        value = lets.pop(name) if type(name) is str and name in lets else nodes[-1]
        goal = Goal("value", (value,)) if value is not nodes[-1] else single(value)
    else:
        last = nodes[-1]
        goal = Goal("value", (last,)) if type(last) is str and last in lets else single(last)
        if goal.kind == "solve" and all(names(node) <= lets.keys() for node in goal.nodes):
            goal = goal._replace(kind="truth")
    return goal._replace(lets=tuple(lets.items()))


def _system(nodes: list[Node]) -> Goal:
    if not all(type(node) is tuple and node[0] in ("=", "==") for node in nodes):
        raise CalcError("Equations and expressions are mixed: write either equations to solve or one expression.")
    return Goal("solve", tuple(symbols_for_units(node) for node in nodes))


def _solve_call(node: Node) -> Goal:
    """Reads solve(equations, unknowns)."""

    def items(argument: Node) -> tuple[Node, ...]:
        return argument[1:] if type(argument) is tuple and argument[0] == "list" else (argument,)

    equations = tuple(symbols_for_units(item) for item in items(node[2]))
    wanted = [item for argument in node[3:] for item in items(argument)]
    options = [item for item in wanted if type(item) is tuple and item[0] == "=" and item[1] in ("dict", "set", "domain")]
    wanted = [item for item in wanted if item not in options]
    extra = [item for item in wanted if type(item) is tuple]
    if not all(type(item) is str for item in wanted if item not in extra):
        raise CalcError("solve takes equations and then the names to solve for.")
    return Goal("solve", (*equations, *extra), (), tuple(item for item in wanted if type(item) is str))


def names(node: Node) -> set[str]:
    """Returns all variables of a tree, units among them."""
    if type(node) is str:
        return {node}
    if type(node) is not tuple or node[0] == "const":
        return set()
    if node[0] == "unit":
        return {node[1]}
    return set().union(*(names(child) for child in node[2 if node[0] == "call" else 1 :]))


def symbols_for_units(node: Node) -> Node:
    """Reads units as variables, as in an equation."""
    if type(node) is not tuple or node[0] == "const":
        return node
    return node[1] if node[0] == "unit" else (node[0], *(symbols_for_units(child) for child in node[1:]))


def without_units(node: Node) -> Node:
    """Takes the units off a tree.

    Raises:
        CalcError: where different units are added or compared.
    """
    if not _has_unit(node):
        return node
    if _bare_names(node) - UNIT_LETTERS:  # "rate * 2 / distance": words among variables are variables
        return symbols_for_units(node)
    return _measure(node)[0]


def _known_units(node: Node, known: set[str]) -> Node:
    """Reads those units as variables that were given a value."""
    if type(node) is not tuple or node[0] == "const":
        return node
    if node[0] == "unit":
        return node[1] if node[1] in known else node
    return (node[0], *(_known_units(child, known) for child in node[1:]))


def _bare_names(node: Node) -> set[str]:
    """Returns the variables of a tree, without its units."""
    if type(node) is not tuple:
        return names(node)
    if node[0] in ("const", "unit"):
        return set()
    return set().union(*(_bare_names(child) for child in node[2 if node[0] == "call" else 1 :]))


def _has_unit(node: Node) -> bool:
    return type(node) is tuple and (node[0] == "unit" or any(_has_unit(child) for child in node[1:]))


def _measure(node: Node) -> tuple[Node, dict[str, int]]:
    """Returns a tree without units and the powers of the units that it had."""
    if type(node) is str and node in UNIT_LETTERS:
        return 1, {node: 1}
    if type(node) is not tuple or node[0] == "const":
        return node, {}
    if node[0] == "unit":
        return 1, {_singular(node[1]): 1}
    start = 2 if node[0] == "call" else 1
    parts = [_measure(child) for child in node[start:]]
    bare: Node = (*node[:start], *(part for part, _ in parts))
    units = [unit for _, unit in parts if unit]
    if node[0] in _SIGNS or node[0] in ("+", "pct", "call", "list", "and"):
        if any(unit != units[0] for unit in units):
            raise CalcError("The units differ: convert them to one unit first.")
        if units and node[0] == "+" and len(units) < len(parts) and not MEASURES.isdisjoint(units[0]):
            raise CalcError("A number with a unit cannot be added to one without.")
        return bare, units[0] if units and node[0] in ("+", "pct", "call") else {}
    sign = -1 if node[0] == "inv" else 1
    total: dict[str, int] = {}
    for unit in units:
        for name, power in unit.items():
            total[name] = total.get(name, 0) + sign * power
    return bare, {name: power for name, power in total.items() if power}


def _singular(name: str) -> str:
    return name[:-1].lower() if name.endswith("s") and len(name) > 2 else name.lower()
