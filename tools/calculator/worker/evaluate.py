"""Syntax tree -> SymPy objects -> reply. Runs in the worker only.

No text reaches SymPy but names of variables that the tokenizer checked, and those only as `Symbol(name)`. What is rational
throughout is still computed by `calc_rational` and `calc_functions`, with their bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import sympy as sp

from swirl_env.tools.calculator.cursor import Node
from swirl_env.tools.calculator.format import MAX_TEXT, decimal_text, number_text
from swirl_env.tools.calculator.functions import EXACT, OPERATORS
from swirl_env.tools.calculator.linear import COMPARE, as_equation
from swirl_env.tools.calculator.rational import MAX_LOG_BITS, Irrational, add, bounded, divide, guard, too_large
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.worker.functions import FUNCTIONS

Value = Any
"""int | Fraction | sympy object | list of them"""

CONSTANTS = {"pi": sp.pi, "E": sp.E, "I": sp.I, "oo": sp.oo, "tau": 2 * sp.pi}
UNDEFINED = "The result is undefined."


def to_sympy(value: Value) -> Any:
    """Returns a value as a SymPy object."""
    if type(value) is int:
        return sp.Integer(value)
    if type(value) is Fraction:
        return sp.Rational(value.numerator, value.denominator)
    return [to_sympy(item) for item in value] if type(value) is list else value


def to_exact(value: Value) -> Value:
    """Returns a rational SymPy number as int or Fraction, anything else unchanged."""
    if isinstance(value, sp.Rational):
        try:
            return bounded(Fraction(int(value.p), int(value.q)))
        except Irrational:
            return floating(value)
    return value


def build(node: Node, lets: dict[str, Value]) -> Value:
    """Returns the value of a tree."""
    if type(node) in (int, Fraction):
        return node
    if type(node) is str:
        return lets[node] if node in lets else sp.Symbol(node)
    head = node[0]
    if head == "const":
        return CONSTANTS[node[1]]
    if head == "list":
        return [build(item, lets) for item in node[1:]]
    if head == "call":
        return to_exact(apply_call(node[1], [build(argument, lets) for argument in node[2:]]))
    if head in COMPARE:
        return sp.Eq(*(to_sympy(build(side, lets)) for side in node[1:3]), evaluate=False) if head in ("=", "==") else refuse()
    if head == "*":
        return to_exact(multiply(node, lets))
    values = [build(child, lets) for child in node[1:]]
    if head == "+":
        exact = [value for value in values if type(value) in (int, Fraction)]
        rest = [scalar(value) for value in values if type(value) not in (int, Fraction)]
        try:
            total = add(exact)
        except Irrational:
            total = sp.Add(*map(floating, exact))
        return to_exact(sp.Add(to_sympy(total), *rest)) if rest else total
    if head == "neg":
        return -values[0] if type(values[0]) in (int, Fraction) else to_exact(-scalar(values[0]))
    return to_exact(apply_operator(head, values))


def floating(value: Value) -> Any:
    """Returns a rational whose exact form has become too long as a floating-point number."""
    return sp.Float(to_sympy(value), 40)


def refuse() -> Any:
    """For forms that have no value inside an expression."""
    raise CalcError("A comparison cannot stand inside an expression.")


def scalar(value: Value) -> Any:
    """Returns a value as a SymPy expression; lists and truths are refused."""
    value = to_sympy(value)
    if not isinstance(value, sp.Expr):
        raise CalcError("A list or a relation stands where a number belongs.")
    return value


def multiply(node: Node, lets: dict[str, Value]) -> Value:
    """Returns the product of ``("*", a, ("inv", b), ...)``."""
    exact: Any = 1
    rest: list[Any] = []
    for factor in node[1:]:
        inverse = type(factor) is tuple and factor[0] == "inv"
        value = build(factor[1] if inverse else factor, lets)
        if type(value) in (int, Fraction):
            try:
                exact = divide(exact, value) if inverse else bounded(exact * value)
            except Irrational:
                rest.append(floating(exact) / floating(value) if inverse else floating(exact) * floating(value))
                exact = 1
        else:
            value = scalar(value)
            if inverse and value.is_number and (value.is_zero or value.equals(0)):
                raise CalcError("Division by zero is undefined.")
            rest.append(1 / value if inverse else value)
    return sp.Mul(to_sympy(exact), *rest) if rest else exact


def apply_operator(head: str, values: list[Value]) -> Value:
    """Returns the value of an operator other than plus and times."""
    if all(type(value) in (int, Fraction) for value in values):
        try:
            return bounded(OPERATORS[head](*values))
        except Irrational:
            pass
    operands = [scalar(value) for value in values]
    if head == "^":
        return power(*operands)
    if head == "!":
        return sp.factorial(operands[0])
    if head in ("%", "pct"):
        return operands[0] / 100 if head == "%" else operands[0] * (1 + operands[1] / 100)
    raise CalcError("The expression cannot be evaluated.")


def power(base: Any, exponent: Any) -> Any:
    """Returns base ** exponent; sizes are bounded first, since SymPy would compute any power of numbers in full."""
    if base.is_zero and exponent.is_negative:
        raise CalcError("Division by zero is undefined.")
    if not (base.is_number and exponent.is_number) or base in (0, 1, sp.E) or base.is_infinite or exponent.is_infinite:
        return base**exponent
    if base.is_Rational and exponent.is_Rational:
        return rational_power(base, exponent)
    size = abs(sp.log(abs(base)).evalf(10) * exponent.evalf(10)) / 0.69
    if size.is_comparable and size > MAX_LOG_BITS:
        raise too_large()
    return base**exponent


def rational_power(base: Any, exponent: Any) -> Any:
    """Returns a power of rationals whose exact value `calc_rational` left alone: a root, or too long but of moderate size."""
    top, bottom = int(exponent.p), int(exponent.q)
    guard(Fraction(int(base.p), int(base.q)), Fraction(top, bottom))
    long = max(int(base.p).bit_length(), int(base.q).bit_length()) * abs(top) > 4000 * bottom
    if base < 0 and bottom % 2:
        return (-1) ** (top % 2) * rational_power(-base, exponent)
    if long or bottom > 64 or int(base.p).bit_length() > 200:
        if base < 0 and bottom > 1:
            raise too_large()
        return sp.Float(base, 40) ** (exponent if bottom == 1 else sp.Float(exponent, 40))
    return base**exponent


def apply_call(name: str, arguments: list[Value]) -> Value:
    """Returns the value of a function."""
    values = [item for argument in arguments for item in (argument if type(argument) is list else [argument])]
    if name in EXACT and all(type(value) in (int, Fraction) for value in values):
        try:
            return bounded(EXACT[name](*values))
        except Irrational:
            pass
        except TypeError as error:
            raise CalcError(f"{name} takes another number of arguments.") from error
    if name in ("sqrt", "cbrt", "root", "pow"):
        base = scalar(arguments[0])
        exponent = {"sqrt": sp.Rational(1, 2), "cbrt": sp.Rational(1, 3)}.get(name)
        if exponent is None:
            exponent = scalar(arguments[1]) if name == "pow" else 1 / scalar(arguments[1])
        return apply_operator("^", [to_exact(base), to_exact(exponent)])
    if name not in FUNCTIONS:
        raise CalcError("This function cannot stand inside an expression.")
    result = FUNCTIONS[name](*to_sympy(arguments))
    if isinstance(result, sp.Expr) and result.has(sp.zoo, sp.nan):
        raise CalcError(UNDEFINED)
    return result


def answer(kind: str, nodes: Sequence[Node], lets: Sequence[tuple[str, Node]], unknowns: Sequence[str]) -> dict[str, Any]:
    """Returns the reply to a goal: ``{"text", "data"}``.

    Raises:
        CalcError: where there is none.
    """
    known: dict[str, Value] = {}
    for name, node in lets:
        known[name] = build(node, known)
    if kind == "truth":
        text = "true" if holds(nodes[0], known) else "false"
        return {"text": text, "data": {"value": text}}
    if kind == "value":
        text, exact = show(build(nodes[0], known))
        return {"text": text, "data": {"value": exact}}
    from swirl_env.tools.calculator.worker.solve import solve

    equations = [as_equation(node) for node in nodes]
    pairs = [(e[0], *(scalar(build(side, known)) for side in e[1:3])) for e in relations(equations)]
    return solve(pairs, [sp.Symbol(name) for name in unknowns])


def relations(nodes: Sequence[Node]) -> list[Node]:
    """Takes chains apart."""
    return [part for node in nodes for part in (node[1:] if node[0] == "and" else (node,))]


def holds(node: Node, lets: dict[str, Value]) -> bool:
    """Returns whether a relation between numbers holds."""
    if node[0] == "and":
        return all([holds(part, lets) for part in node[1:]])
    left, right = (build(side, lets) for side in node[1:3])
    if type(left) in (int, Fraction) and type(right) in (int, Fraction):
        return COMPARE[node[0]](left, right)
    gap = scalar(left) - scalar(right)
    if gap.has(sp.nan, sp.zoo) or gap.free_symbols:
        raise CalcError(UNDEFINED)
    if gap.equals(0):
        return COMPARE[node[0]](0, 0)
    if node[0] in ("=", "==", "!="):
        return bool(node[0] == "!=")
    value = gap.evalf(20)
    if not value.is_real:
        raise CalcError("Complex numbers cannot be ordered.")
    return COMPARE[node[0]](1 if value > 0 else -1, 0)


def show(value: Value) -> tuple[str, str]:
    """Returns a value as shown and as it is exactly.

    Raises:
        CalcError: where it is undefined, unevaluated or too long.
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
    if value.has(sp.nan, sp.zoo):
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


def number(value: Any) -> str:
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


def decimal(value: Any) -> str:
    """Returns a SymPy number as decimal text."""
    return decimal_text(Decimal(str(sp.Float(value, 20))))
