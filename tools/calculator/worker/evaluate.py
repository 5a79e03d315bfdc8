"""Syntax tree -> value. Runs in the worker only.

No text reaches SymPy except names of variables that the tokenizer checked, and those only as `Symbol(name)`. What is rational
throughout is still computed by `calculator.rational` and `calculator.functions`, with their bounds.
"""

from __future__ import annotations

from fractions import Fraction

import sympy as sp

from swirl_env.tools.calculator.functions import EXACT, OPERATORS
from swirl_env.tools.calculator.linear import COMPARE, agree
from swirl_env.tools.calculator.rational import MAX_LOG_BITS, Irrational, Node, add, bounded, divide, guard, too_large
from swirl_env.tools.calculator.text import CalcError
from swirl_env.tools.calculator.worker.functions import FUNCTIONS, Value

CONSTANTS = {"pi": sp.pi, "E": sp.E, "I": sp.I, "oo": sp.oo, "tau": 2 * sp.pi}
UNDEFINED = "The result is undefined."


def to_sympy(value: Value) -> Value:
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


def evaluate(node: Node, lets: dict[str, Value]) -> Value:
    """Returns the value of a tree."""
    if type(node) in (int, Fraction):
        return node
    if type(node) is str:
        return lets[node] if node in lets else sp.Symbol(node)
    head = node[0]
    if head == "const":
        return CONSTANTS[node[1]]
    if head == "list":
        return [evaluate(item, lets) for item in node[1:]]
    if head == "call":
        return to_exact(apply_call(node[1], [evaluate(argument, lets) for argument in node[2:]]))
    if head in COMPARE:
        return sp.Eq(*(to_sympy(evaluate(side, lets)) for side in node[1:3]), evaluate=False) if head in ("=", "==") else refuse()
    if head == "*":
        return to_exact(multiply(node, lets))
    values = [evaluate(child, lets) for child in node[1:]]
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


def floating(value: Value) -> Value:
    """Returns a rational whose exact form has become too long as a floating-point number."""
    return sp.Float(to_sympy(value), 40)


def refuse() -> Value:
    """For forms that have no value inside an expression."""
    raise CalcError("A comparison cannot stand inside an expression.")


def scalar(value: Value) -> Value:
    """Returns a value as a SymPy expression; lists and truths are refused."""
    value = to_sympy(value)
    if not isinstance(value, sp.Expr):
        raise CalcError("A list or a relation stands where a number belongs.")
    return value


def multiply(node: Node, lets: dict[str, Value]) -> Value:
    """Returns the product of ``("*", a, ("inv", b), ...)``."""
    exact: Value = 1
    rest: list[Value] = []
    for factor in node[1:]:
        inverse = type(factor) is tuple and factor[0] == "inv"
        value = evaluate(factor[1] if inverse else factor, lets)
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


def power(base: Value, exponent: Value) -> Value:
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


def rational_power(base: Value, exponent: Value) -> Value:
    """Returns a power of rationals that `rational.power` leaves alone: a root, or a long number of moderate size."""
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


def holds(node: Node, lets: dict[str, Value]) -> bool:
    """Returns whether a relation between numbers holds."""
    if node[0] == "and":
        return all([holds(part, lets) for part in node[1:]])
    left, right = (evaluate(side, lets) for side in node[1:3])
    if type(left) in (int, Fraction) and type(right) in (int, Fraction):
        return agree(node[0], COMPARE[node[0]](left, right))
    gap = scalar(left) - scalar(right)
    if gap.has(sp.nan, sp.zoo) or gap.free_symbols:
        raise CalcError(UNDEFINED)
    if gap.equals(0):
        return COMPARE[node[0]](0, 0)
    if node[0] in ("=", "==", "!=", "agree"):
        return agree(node[0], bool(node[0] == "!="))
    value = gap.evalf(20)
    if not value.is_real:
        raise CalcError("Complex numbers cannot be ordered.")
    return COMPARE[node[0]](1 if value > 0 else -1, 0)
