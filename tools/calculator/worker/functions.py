"""Functions of the worker: name -> what it does to SymPy objects. Arguments are expressions, relations and lists of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mpmath  # type: ignore[import-untyped]
import sympy as sp

from swirl_env.tools.calculator.text import CalcError

Value = Any
"""int | Fraction | SymPy object | list of them; SymPy's own annotations are too few to check against."""

MAX_ORDER = 50
"""Highest derivative and longest series."""
MAX_EVALF = 50
"""Most digits that `N(x, digits)` may ask for."""


SIX, FIFTEEN = sp.Integer(6), sp.Integer(15)


def variable_of(expression: Value) -> Value:
    """Returns the one variable of an expression."""
    free = sorted(expression.free_symbols, key=str)
    if len(free) != 1:
        raise CalcError("Name the variable, as in: diff(x*y, x).")
    return free[0]


def symbol(value: Value) -> Value:
    """Returns a value that has to be a variable."""
    if not isinstance(value, sp.Symbol):
        raise CalcError("A variable was expected as an argument.")
    return value


def derivative(expression: Value, *rest: Value) -> Value:
    """diff(f), diff(f, x), diff(f, x, 2), diff(f, (x, 2)), diff(f, x, y)."""
    flat = [item for part in rest for item in (part if isinstance(part, list) else [part])] or [variable_of(expression)]
    variables: list[Value] = []
    for item in flat:
        if isinstance(item, sp.Integer) and variables:
            if not 0 < item <= MAX_ORDER:
                raise CalcError("The order of the derivative is out of bounds.", "limit")
            variables += [variables[-1]] * (int(item) - 1)
        else:
            variables.append(symbol(item))
    return sp.diff(expression, *variables)


def ranges(expression: Value, rest: tuple[Value, ...], need_limits: bool) -> list[Value]:
    """Returns ``(k, a, b)`` triples from (k, a, b) lists, from loose k, a, b, or bare variables."""
    if not rest:
        rest = (variable_of(expression),)
    if not any(isinstance(part, list) for part in rest) and len(rest) == 3 and not isinstance(rest[1], sp.Symbol):
        rest = (list(rest),)
    result: list[Value] = []
    for part in rest:
        items = part if isinstance(part, list) else [part]
        if len(items) not in ((3,) if need_limits else (1, 3)):
            raise CalcError("Limits are written as (k, first, last).")
        result.append((symbol(items[0]), *items[1:]) if len(items) == 3 else symbol(items[0]))
    return result


def whole_ranges(expression: Value, rest: tuple[Value, ...]) -> list[Value]:
    """Returns the ranges of a sum or product, which go from whole number to whole number."""
    result = ranges(expression, rest, need_limits=True)
    if any(bound.is_integer is False and not bound.is_infinite for _, *bounds in result for bound in bounds):
        raise CalcError("A sum or product goes from a whole number to a whole number.")
    return result


def limit(expression: Value, variable: Value, point: Value) -> Value:
    """Two-sided limit where both sides agree, else an error."""
    variable = symbol(variable)
    if point.is_infinite:
        return sp.limit(expression, variable, point)
    right, left = sp.limit(expression, variable, point, "+"), sp.limit(expression, variable, point, "-")
    if right != left and not (right - left).equals(0):
        raise CalcError("The limits from the two sides differ.")
    return right


def series(expression: Value, variable: Value = None, point: Value = sp.S.Zero, terms: Value = SIX) -> Value:
    """Taylor series without its order term."""
    if not (isinstance(terms, sp.Integer) and 0 < terms <= MAX_ORDER):
        raise CalcError("The number of terms is out of bounds.", "limit")
    return sp.series(expression, symbol(variable or variable_of(expression)), point, int(terms)).removeO()


def evalf(expression: Value, digits: Value = FIFTEEN) -> Value:
    """The expression itself: numbers are shown as decimals anyway."""
    if not (isinstance(digits, sp.Integer) and 0 < digits <= MAX_EVALF):
        raise CalcError("The number of digits is out of bounds.", "limit")
    return expression.doit() if expression.is_number else expression.evalf(int(digits))


def nsolve(equation: Value, *rest: Value) -> Value:
    """A root near a starting point, by the secant method on exact evaluation (SymPy's own generates code)."""
    expression: Value = cast("sp.Expr", equation.lhs) - cast("sp.Expr", equation.rhs) if isinstance(equation, sp.Eq) else equation
    variable, start = rest if len(rest) == 2 else (variable_of(expression), rest[0])
    return root_near(expression, symbol(variable), start)


def root_near(expression: Value, variable: Value, start: Value) -> Value:
    """Returns a numerical root near a starting point."""

    def at(point: Value) -> Value:
        value = expression.subs(variable, sp.Float(point, 40)).evalf(35)
        if not value.is_Float and not value.is_Number:
            raise CalcError("No numerical solution was found.")
        return mpmath.mpf(str(value))

    with mpmath.workdps(30):
        try:
            root = mpmath.findroot(at, mpmath.mpf(str(sp.Float(start, 30))), tol=1e-40)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise CalcError("No numerical solution was found.") from error
        return sp.Float(str(root), 30)


def round_to(value: Value, places: Value = sp.S.Zero) -> Value:
    """Rounds an irrational number, which has no halves."""
    if not (value.is_real and value.is_number and isinstance(places, sp.Integer) and abs(places) <= 100):
        raise CalcError("Only a real number can be rounded.")
    return sp.Rational(sp.floor(value * 10**places + sp.Rational(1, 2)), 1) / sp.Integer(10) ** places


def logarithm(value: Value, base: Value = None) -> Value:
    """The natural logarithm, or that to a base."""
    if value.is_zero or (base is not None and (base.is_zero or base == 1)):
        raise CalcError("This logarithm is undefined.")
    return sp.log(value) if base is None else sp.log(value, base)


def truth(function: Callable[[int], bool]) -> Callable[[Value], Value]:
    """Makes a question about whole numbers."""
    return lambda value: bool(function(whole(value)))


def whole(value: Value) -> int:
    """Returns a value that has to be a whole number."""
    if not isinstance(value, sp.Integer):
        raise CalcError("This function takes whole numbers.")
    return int(value)


def small(function: Callable[[int], Value], most: int) -> Callable[[Value], Value]:
    """Bounds the argument of a function of one whole number."""

    def bounded(value: Value) -> Value:
        if not 0 <= whole(value) <= most:
            raise CalcError("The argument of this function is out of bounds.", "limit")
        return function(int(value))

    return bounded


def mean(*values: Value) -> Value:
    """The arithmetic mean."""
    items = spread(values)
    return sp.Add(*items) / len(items)


def spread(values: tuple[Value, ...]) -> list[Value]:
    """Returns arguments with lists unpacked."""
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def factors(value: Value) -> list[Value]:
    """Prime factors with repetition."""
    powers = sp.factorint(whole(value))
    return [sp.Integer(prime) for prime, power in sorted(powers.items()) for _ in range(power)]


def over_list_or_range(of_list: Callable[..., Value], of_range: Callable[..., Value]) -> Callable[..., Value]:
    """Makes a function of sum([a, b]) as well as of a range, as in sum(k, (k, 1, 10)) and sum(k, k, 1, 10)."""

    def either(*values: Value) -> Value:
        listed = len(values) == 2 and isinstance(values[1], list) and len(values[1]) == 3 and not isinstance(values[0], list)
        if listed or (len(values) == 4 and isinstance(values[1], sp.Symbol)):
            return of_range(*values)
        return of_list(*spread(values))

    return either


def summation(expression: Value, *rest: Value) -> Value:
    """A sum over ranges."""
    return sp.summation(expression, *whole_ranges(expression, rest))


def product(expression: Value, *rest: Value) -> Value:
    """A product over ranges."""
    return sp.product(expression, *whole_ranges(expression, rest))


def integral(expression: Value, *rest: Value) -> Value:
    """An integral, which numerical evaluation must not contradict: SymPy's are wrong now and then, as over |sin(x)|.

    Raises:
        CalcError: if it is contradicted, or if nothing confirms one whose integrand has corners or jumps.
    """
    limits = ranges(expression, rest, need_limits=False)
    result = sp.integrate(expression, *limits)
    if len(limits) != 1 or result.has(sp.Integral, sp.nan, sp.zoo):
        return result
    definite = isinstance(limits[0], tuple)
    agrees = _agrees_over(result, expression, *limits[0]) if definite else _agrees(result, expression, limits[0])
    if agrees is False or (agrees is None and _has_corners(expression)):
        raise CalcError("No integral was found that numerical evaluation confirms.")
    return result


def _has_corners(expression: Value) -> bool:
    return bool(expression.has(sp.Abs, sp.sign, sp.floor, sp.ceiling, sp.Mod, sp.Max, sp.Min, sp.re, sp.im))


def _agrees(result: Value, expression: Value, variable: Value) -> bool | None:
    """Whether the derivative of an antiderivative is the integrand at some points, None if no point tells."""
    gap = sp.diff(result, variable) - expression
    if gap.free_symbols - {variable}:
        return None
    values = [gap.subs(variable, sp.Rational(point, 100)).evalf(15, maxn=50) for point in (-731, -237, -41, 37, 121, 283, 911)]
    sizes = [abs(value) for value in values if value.is_number and value.is_finite and value.is_comparable]
    return all(size < 1e-8 for size in sizes) if sizes else None


def _agrees_over(result: Value, expression: Value, variable: Value, low: Value, high: Value) -> bool | None:
    """Whether a definite integral is near what two Gauss rules of different fineness agree on, None if they do not."""
    if not (low.is_number and high.is_number and low.is_finite and high.is_finite and low.is_real and high.is_real):
        return None
    if expression.free_symbols - {variable} or not result.is_number:
        return None
    panels = 100 if _has_corners(expression) else 30
    (fine, size), (coarse, _) = (_gauss(expression, variable, low, high, count) for count in (panels * 3 // 2, panels))
    if not abs(fine - coarse) <= 1e-3 * size:  # nor for nan
        return None
    return bool(abs(complex(result) - fine) <= 5e-3 * size)


def _gauss(expression: Value, variable: Value, low: Value, high: Value, panels: int) -> tuple[complex, float]:
    """Returns the integral and that of the magnitude, by the two-point Gauss rule on equal panels; nan if it has no values."""
    start, width = float(low), (float(high) - float(low)) / panels
    total, size = 0j, 0.0
    for panel in range(panels):
        for offset in (0.5 - 12**-0.5, 0.5 + 12**-0.5):
            value = expression.evalf(15, subs={variable: sp.Float(start + (panel + offset) * width)})
            if not (value.is_number and value.is_finite):
                return complex("nan"), 0.0
            total += complex(value)
            size += abs(complex(value))
    return total * width / 2, size * abs(width) / 2


FUNCTIONS: dict[str, Callable[..., Value]] = {
    **{name: getattr(sp, name) for name in ("sin cos tan sec csc cot asin acos atan sinh cosh tanh asinh acosh atanh").split()},
    **{name: getattr(sp, name) for name in ("exp floor sign factorial binomial gamma re im conjugate atan2").split()},
    **{name: getattr(sp, name) for name in ("simplify expand factor cancel together trigsimp").split()},
    "ln": logarithm,
    "log": logarithm,
    "abs": sp.Abs,
    "ceil": sp.ceiling,
    "trunc": lambda value: sp.sign(value) * sp.floor(abs(value)),
    "integer": lambda value: sp.sign(value) * sp.floor(abs(value)),
    "round": round_to,
    "number": lambda value: value,
    "fraction": lambda top, bottom: top / bottom,
    "radians": lambda value: value * sp.pi / 180,
    "degrees": lambda value: value * 180 / sp.pi,
    "mod": sp.Mod,
    "floordiv": lambda left, right: sp.floor(left / right),
    "perm": sp.ff,
    "hypot": lambda *values: sp.sqrt(sp.Add(*(value**2 for value in spread(values)))),
    "min": lambda *values: sp.Min(*spread(values)),
    "max": lambda *values: sp.Max(*spread(values)),
    "gcd": lambda *values: sp.gcd_list(spread(values)),
    "lcm": lambda *values: sp.lcm_list(spread(values)),
    "sum": over_list_or_range(sp.Add, summation),
    "prod": over_list_or_range(sp.Mul, product),
    "mean": mean,
    "apart": lambda value, *rest: sp.apart(value, *map(symbol, rest)),
    "doit": lambda value: value.doit(),
    "diff": derivative,
    "integrate": integral,
    "summation": summation,
    "product": product,
    "limit": limit,
    "series": series,
    "nsolve": nsolve,
    "eq": lambda left, right: sp.Eq(left, right, evaluate=False),
    "subs": lambda value, old, new: value.subs(symbol(old), new),
    "evalf": evalf,
    "isprime": truth(sp.isprime),
    "nextprime": lambda value: sp.Integer(sp.nextprime(whole(value))),
    "prevprime": lambda value: sp.Integer(sp.prevprime(whole(value))),
    "totient": lambda value: sp.totient(whole(value)),
    "factorint": factors,
    "divisors": lambda value: [sp.Integer(d) for d in sp.divisors(whole(value))],
    "prime": small(lambda n: sp.Integer(sp.prime(n)), 100_000),
    "fibonacci": small(lambda n: sp.fibonacci(n), 9000),
}
"""Canonical name -> function of SymPy objects."""
