"""Goal -> reply: evaluates or solves, and shows what comes out. Runs in the worker only."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import sympy as sp

from swirl_env.tools.calculator.format import MAX_TEXT, decimal_text, number_text
from swirl_env.tools.calculator.goal import Reply
from swirl_env.tools.calculator.linear import ANYTHING, NO_SOLUTION, as_equation
from swirl_env.tools.calculator.rational import Node
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.worker.evaluate import UNDEFINED, evaluate, holds, scalar, to_exact
from swirl_env.tools.calculator.worker.functions import Value
from swirl_env.tools.calculator.worker.solve import Region, Solutions, solve


def answer(kind: str, nodes: Sequence[Node], lets: Sequence[tuple[str, Node]], unknowns: Sequence[str]) -> Reply:
    """Returns the reply to a goal: ``{"text", "data"}``.

    Raises:
        CalcError: if there is none.
    """
    known: dict[str, Value] = {}
    for name, node in lets:
        known[name] = evaluate(node, known)
    if kind == "truth":
        text = "true" if holds(nodes[0], known) else "false"
        return {"text": text, "data": {"value": text}}
    if kind == "value":
        text, exact = show(evaluate(nodes[0], known))
        return {"text": text, "data": {"value": exact}}
    equations = [part for node in map(as_equation, nodes) for part in (node[1:] if node[0] == "and" else (node,))]
    relations = [(e[0], *(scalar(evaluate(side, known)) for side in e[1:3])) for e in equations]
    result = solve(relations, [sp.Symbol(name) for name in unknowns])
    if isinstance(result, Solutions):
        return show_solutions(result)
    if isinstance(result, Region):
        return show_region(result)
    return {"text": result, "data": {"value": {NO_SOLUTION: "[]", ANYTHING: "true"}[result]}}


def show_solutions(solutions: Solutions) -> Reply:
    """Returns ``x = -2 or x = 2``, or ``x = 6, y = 4`` for several unknowns."""
    shown = [[(str(name), *show(value)) for name, value in solution] for solution in solutions.each]
    text = " or ".join(", ".join(f"{name} = {value}" for name, value, _ in solution) for solution in shown)
    data: dict[str, str] = {}
    if all(len(solution) == 1 for solution in shown):
        exact = [solution[0][2] for solution in shown]
        data["variable"] = shown[0][0][0]
    else:
        exact = ["{" + ", ".join(f"{name}: {value}" for name, _, value in solution) + "}" for solution in shown]
    data["value"] = bounded_text(exact[0] if len(exact) == 1 else f"[{', '.join(exact)}]")
    return {"text": bounded_text(text + (" (numerical, there may be others)" if solutions.numerical else "")), "data": data}


def show_region(region: Region) -> Reply:
    """Returns ``x < -2 or x > 2``."""
    parts = region.values.args if isinstance(region.values, sp.Union) else (region.values,)
    text = bounded_text(" or ".join(show_interval(part, region.name) for part in parts))
    return {"text": text, "data": {"value": text, "variable": region.name}}


def show_interval(part: Value, name: str) -> str:
    """Returns ``x > 1 and x <= 4``, or ``x = 2`` for single points."""
    if isinstance(part, sp.FiniteSet):
        return " or ".join(f"{name} = {show(item)[0]}" for item in part)
    if not isinstance(part, sp.Interval):
        raise CalcError("No solution was found in closed form.")
    low = "" if part.start == -sp.oo else f"{name} {'>' if part.left_open else '>='} {show(part.start)[0]}"
    high = "" if part.end == sp.oo else f"{name} {'<' if part.right_open else '<='} {show(part.end)[0]}"
    return " and ".join(filter(None, (low, high)))


def show(value: Value) -> tuple[str, str]:
    """Returns a value as shown and as it is exactly.

    Raises:
        CalcError: if it is undefined, unevaluated or too long.
    """
    value = to_exact(value)
    if type(value) in (int, Fraction):
        return number_text(value)
    if isinstance(value, (bool, sp.logic.boolalg.BooleanAtom)):
        text = "true" if value else "false"
        return text, text
    if isinstance(value, (list, tuple)):
        shown = [show(item) for item in value]
        return bounded_text(f"[{', '.join(text for text, _ in shown)}]"), bounded_text(f"[{', '.join(e for _, e in shown)}]")
    if not isinstance(value, sp.Expr):
        raise CalcError("The result is no number and no expression.")
    if value.has(sp.nan, sp.zoo, sp.AccumBounds):  # bounds: what oscillates has no limit
        raise CalcError(UNDEFINED)
    if value.is_number and not value.is_infinite:
        text = number(value)
        return text, text
    if value.has(sp.Integral, sp.Sum, sp.Product, sp.Limit, sp.Derivative):
        raise CalcError("No closed form was found.")
    text = bounded_text(str(value))
    return text, text


def bounded_text(text: str) -> str:
    """Returns a reply that is short enough."""
    if len(text) > MAX_TEXT:
        raise CalcError("The result is too long to show.", "limit")
    return text


def number(value: Value) -> str:
    """Returns a real or complex number to twelve significant digits."""
    approximate = value.evalf(25)
    real, imaginary = approximate.as_real_imag()
    if not (real.is_Number and imaginary.is_Number) or real.has(sp.nan, sp.oo, sp.zoo):
        raise CalcError("The value cannot be computed.")
    size = max(abs(real), abs(imaginary))
    if size.is_Float and size._prec <= 10:  # all digits cancelled: SymPy's mark of a zero that it could not prove
        if value.equals(0):
            return "0"
        raise CalcError("The value is too close to zero to be computed.")
    parts = [decimal(part) if abs(part) > size * sp.Float("1e-18") else "0" for part in (real, imaginary)]
    if parts[1] == "0":
        return parts[0]
    unit = {"1": "I", "-1": "-I"}.get(parts[1], f"{parts[1]}*I")
    if parts[0] == "0":
        return unit
    return f"{parts[0]} - {unit[1:]}" if unit[0] == "-" else f"{parts[0]} + {unit}"


def decimal(value: Value) -> str:
    """Returns a SymPy number as decimal text."""
    return decimal_text(Decimal(str(sp.Float(value, 20))))
