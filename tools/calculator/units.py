"""Units: which words after numbers may be dropped, and which make an expression unclear.

A unit is dropped if it cannot change the value: the same one on all terms of a sum, or any in a product. Nothing is converted:
if different units of one dimension meet (``1 hour / 5 minutes``, ``60 miles/hour * 30 minutes``), the expression is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fractions import Fraction

from swirl_env.tools.calculator.names import ANGLES, RATES, SYNONYMS, UNITS
from swirl_env.tools.calculator.rational import Node
from swirl_env.tools.calculator.text import CalcError

Powers = Mapping[str, int]
"""Unit (singular) -> its power."""

SIGNS = frozenset(("=", "==", "!=", "<", ">", "<=", ">="))
MARKS = frozenset(("unit", "unit?", "per", "letter"))
"""Heads of the nodes that hold words."""
_SAME_UNIT = frozenset("abs floor ceil round trunc integer number min max sum mean median simplify evalf".split())
"""Functions whose result has the unit of their arguments."""
_MIXED = "A number with a unit cannot be added to or compared with one without."
_DIFFERENT = "The units differ: convert them to one unit first."
_DOZEN = 12
_CONFLICT = "?"
"""Marks, among the units of a product, that two of them would have to be converted unless a wider product cancels them."""


def children(node: Node) -> tuple[Node, ...]:
    """Returns the operands of a tree."""
    if type(node) is not tuple or node[0] == "const" or node[0] in MARKS:
        return ()
    return node[2:] if node[0] == "call" else node[1:]


def rebuild(node: Node, change: Callable[[Node], Node]) -> Node:
    """Returns a tree with its operands changed."""
    parts = children(node)
    return (*node[: len(node) - len(parts)], *map(change, parts)) if parts else node


def has_marks(node: Node) -> bool:
    """Whether a tree holds units, or letters that may be ones."""
    return type(node) is tuple and (node[0] in MARKS or any(map(has_marks, children(node))))


def variables(node: Node) -> set[str]:
    """Returns the names that a tree uses as variables."""
    if type(node) is str:
        return {node}
    return set().union(*map(variables, children(node)))


def as_variables(node: Node, names: Collection[str]) -> Node:
    """Reads those units as variables that are variables elsewhere, and any letter inside a function."""
    if type(node) is not tuple:
        return node
    if node[0] in MARKS:
        if node[1] not in names:
            return node
        return ("inv", node[1]) if node[0] == "per" else node[1]
    return rebuild(node, lambda child: as_variables(child, names))


def letters_as_variables(node: Node) -> Node:
    """Reads every letter as a variable, as in an equation."""
    return node[1] if type(node) is tuple and node[0] == "letter" else rebuild(node, letters_as_variables)


def without_units(node: Node, known: Mapping[str, Powers]) -> tuple[Node, Powers]:
    """Returns a tree without its units, and the powers of the units that its value has.

    Args:
        node: a tree in which names are only those of known values.
        known: units of the known values.

    Raises:
        CalcError: if a unit may change the value.
    """
    if not has_marks(node) and not any(known.get(name) for name in variables(node)):
        return node, {}
    bare, powers = _settled(node, known)
    if "dozen" in powers:
        if powers["dozen"] != 1 or count_numbers(node) != 1:
            raise CalcError("It is unclear what the dozens count: write the number instead.")
        return ("*", bare, _DOZEN), {unit: power for unit, power in powers.items() if unit != "dozen"}
    return bare, powers


def count_numbers(node: Node) -> int:
    """Returns how many numbers a tree holds."""
    return 1 if type(node) in (int, Fraction) else sum(map(count_numbers, children(node)))


def _measure(node: Node, known: Mapping[str, Powers]) -> tuple[Node, Powers]:
    """Returns a tree without its units, and the units of its value."""
    if type(node) is str:
        return node, known.get(node, {})
    if type(node) is not tuple or node[0] == "const":
        return node, {}
    head = node[0]
    if head in ("unit", "unit?"):
        return 1, powers_of(node[1])
    if head == "per":
        return 1, {unit: -power for unit, power in powers_of(node[1]).items()}
    if head == "letter":
        raise CalcError("A letter right after a number may be a variable, a unit or a scale: write it out.")
    if head == "^":
        return _power(node, known)
    if head == "*":
        return _product(node, known)
    if head == "neg" or head == "inv":
        bare, powers = _measure(node[1], known)
        return (head, bare), powers if head == "neg" else {unit: -power for unit, power in powers.items()}
    parts = [_settled(child, known) for child in children(node)]
    bare = (*node[: len(node) - len(parts)], *(part for part, _ in parts))
    units = [powers for _, powers in parts]
    if head == "%":
        return bare, units[0]
    if head == "+":
        return _sum(parts)
    if head in SIGNS:
        return _relation(bare, parts)
    if head == "and" or not any(units):
        return bare, {}
    if head == "call" and node[1] in ANGLES:
        return _angle(bare, units[0])
    if (head == "list" or (head == "call" and node[1] in _SAME_UNIT)) and _one_unit(node, units):
        return bare, units[0]
    if head == "call" and node[1] in ("mod", "floordiv") and units[0] == units[1]:
        return bare, units[0] if node[1] == "mod" else {}
    raise CalcError(_DIFFERENT if len(units) > 1 else "A number with a unit stands where only a plain one can.")


def _one_unit(node: Node, units: list[Powers]) -> bool:
    if node[1] in ("round", "evalf"):
        return not any(units[1:])
    return all(powers == units[0] for powers in units)


def _sum(parts: list[tuple[Node, Powers]]) -> tuple[Node, Powers]:
    """A sum: its terms have the same unit, but dozens may meet single things."""
    dozens = ["dozen" in powers for _, powers in parts]
    if any(dozens) and not all(dozens):
        if any(_is_percentage(part) for part, _ in parts):
            raise CalcError(_MIXED)
        parts = [
            (("*", part, _DOZEN), {unit: power for unit, power in powers.items() if unit != "dozen"}) if dozen else (part, powers)
            for (part, powers), dozen in zip(parts, dozens, strict=True)
        ]
    units = [powers for part, powers in parts if part != ("dots",)]
    if any(powers != units[0] for powers in units):
        raise CalcError(_DIFFERENT if all(units) else _MIXED)
    return ("+", *(part for part, _ in parts)), units[0]


def _is_percentage(node: Node) -> bool:
    return type(node) is tuple and (node[0] == "%" or (node[0] == "neg" and _is_percentage(node[1])))


def _relation(bare: Node, parts: list[tuple[Node, Powers]]) -> tuple[Node, Powers]:
    """A relation: a result may have a unit that its calculation lacks, if it is the right one."""
    (left, left_units), (right, right_units) = parts
    if left_units == right_units:
        return bare, {}
    if left_units and right_units:
        raise CalcError(_DIFFERENT)
    if bare[0] not in ("=", "==") or not any(type(side) is tuple and count_numbers(side) > 1 for side in (left, right)):
        raise CalcError(_MIXED)
    return ("agree", left, right), {}


def _power(node: Node, known: Mapping[str, Powers]) -> tuple[Node, Powers]:
    base, units = _settled(node[1], known)
    exponent, other = _settled(node[2], known)
    if other or (units and type(exponent) is not int):
        raise CalcError("A number with a unit stands where only a plain one can.")
    return ("^", base, exponent), {unit: power * exponent for unit, power in units.items() if exponent}


def _angle(bare: Node, units: Powers) -> tuple[Node, Powers]:
    """A function of an angle: degrees become radians."""
    if units == {"degree": 1}:
        return (*bare[:2], ("*", bare[2], ("inv", 180), ("const", "pi")), *bare[3:]), {}
    if units == {"radian": 1}:
        return bare, {}
    raise CalcError("A number with a unit stands where only a plain one can.")


def _settled(node: Node, known: Mapping[str, Powers]) -> tuple[Node, Powers]:
    """Returns a tree without its units, and the units of its value, none of which would have to be converted."""
    bare, powers = _measure(node, known)
    if _CONFLICT in powers:
        raise CalcError(_DIFFERENT)
    return bare, powers


def _product(node: Node, known: Mapping[str, Powers]) -> tuple[Node, Powers]:
    """A product: units multiply, and equal ones cancel.

    What is left of one dimension has to be one unit, unless all of it comes from rates within the dimension: ``60 minutes/hour *
    5`` is 300 minutes per hour to whoever writes it, but ``60 miles/hour * 30 minutes`` and ``1 hour / 5 minutes`` need a
    conversion, of which the words do not tell whether it was thought of.
    """
    total: dict[str, int] = {}
    quantities: set[str] = set()
    factors = []
    for place, child in enumerate(node[1:], 1):
        bare, powers = _measure(child, known)
        if type(child) is not tuple or child[0] not in MARKS:
            factors.append(bare)
        for unit, power in powers.items():
            total[unit] = total.get(unit, 0) + power
        neighbour = node[place - 1 : place] if type(child) is tuple and child[0] == "per" else node[place + 1 : place + 2]
        if not _is_rate(child, *neighbour):
            quantities |= dimensions_of(powers)
    rest = {unit: power for unit, power in total.items() if power and unit != _CONFLICT}
    if "degree" in rest and any(type(child) is tuple and child[0] == "call" and child[1] in ANGLES for child in node[1:]):
        raise CalcError("It is unclear what the angle is: write it in parentheses after the function.")  # sin 2*30°
    shared = [dimension for unit in rest for dimension in UNITS.get(unit, ())]
    if any(shared.count(dimension) > 1 for dimension in quantities):
        rest[_CONFLICT] = 1
    return factors[0] if len(factors) == 1 else ("*", *factors) if factors else 1, rest


def _is_rate(*pair: Node) -> bool:
    """Whether two factors are a unit and one of its dimension per which it is: the words of ``60 minutes/hour``."""
    if len(pair) < 2 or {node[0] for node in pair if type(node) is tuple} not in ({"unit", "per"}, {"unit?", "per"}):
        return False
    return not dimensions_of(powers_of(pair[0][1])).isdisjoint(dimensions_of(powers_of(pair[1][1])))


def dimensions_of(units: Collection[str]) -> set[str]:
    """Returns the dimensions of units; a count noun has none."""
    return set().union(*(UNITS.get(unit, set()) for unit in units))


def powers_of(words: str) -> dict[str, int]:
    """Returns the units that words stand for: "square feet" is foot squared, "dozen eggs" dozens of eggs."""
    lower = words.lower().replace("_", "").split()
    parts = [singular(word) for word in lower]
    if len(parts) == 2 and lower[0] in ("square", "cubic", "sq", "cu") and parts[1] in UNITS:
        return {parts[1]: 2 if lower[0].startswith("sq") else 3}
    if len(parts) == 1 and parts[0] in RATES:
        way, time = RATES[parts[0]]
        return {way: 1, time: -1}
    if parts[0] == "dozen":
        if "dozen" in parts[1:]:
            raise CalcError("It is unclear what the dozens count: write the number instead.")
        return {"dozen": 1} | ({_one_form("".join(parts[1:])): 1} if len(parts) > 1 else {})
    return {_one_form("".join(parts)): 1}  # "pine cones" are pinecones, "T-shirts" tshirts


def singular(word: str) -> str:
    """Returns the singular of a word, near enough to tell whether two of them are one."""
    if word in SYNONYMS:
        return SYNONYMS[word]
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("ches", "shes", "sses", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2:
        word = word[:-1]
    return SYNONYMS.get(word, word)


def _one_form(word: str) -> str:
    """Brings what `singular` leaves apart to one form: movies and movie, buses and bus, knives and knife, berries and berry."""
    stem = word.removesuffix("e")
    if word in UNITS or len(stem) < 3:
        return word
    return stem[:-1] + {"y": "i", "f": "v"}.get(stem[-1], stem[-1])
