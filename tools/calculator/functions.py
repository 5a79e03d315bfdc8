"""Functions and operators over exact numbers; as in `rational` sizes are bounded and what is irrational is the worker's."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from swirl_env.tools.calculator.rational import MAX_BITS, Irrational, Number, add, bounded, divide, power, too_large
from swirl_env.tools.calculator.text import CalcError

MAX_FACTORIAL = 1500


def factorial(value: Number) -> Number:
    """Returns n!."""
    if type(value) is not int:
        raise Irrational
    if value < 0:
        raise CalcError("The factorial of a negative number is undefined.")
    if value > MAX_FACTORIAL:
        raise too_large()
    return math.factorial(value)


def _whole(*values: Number) -> list[int]:
    if any(type(value) is not int for value in values):
        raise CalcError("This function takes whole numbers.")
    return [int(value) for value in values]


def binomial(n: Number, k: Number) -> Number:
    """Returns n choose k."""
    n, k = _whole(n, k)
    if n < 0:
        raise CalcError("The number to choose from must not be negative.")
    if k < 0 or k > n:
        return 0
    k = min(k, n - k)
    if k * n.bit_length() > 4 * MAX_BITS:
        raise too_large()
    return math.comb(n, k)


def perm(n: Number, k: Number) -> Number:
    """Returns the number of ordered choices of k of n."""
    n, k = _whole(n, k)
    if n < 0 or k < 0:
        raise CalcError("The numbers of an ordered choice must not be negative.")
    if min(k, n) * n.bit_length() > MAX_BITS:
        raise too_large()
    return math.perm(n, k)


def modulo(left: Number, right: Number) -> Number:
    """Returns the remainder, with the sign of the divisor."""
    if right == 0:
        raise CalcError("Division by zero is undefined.")
    return left % right


def floor_divide(left: Number, right: Number) -> Number:
    """Returns the quotient, rounded down."""
    if right == 0:
        raise CalcError("Division by zero is undefined.")
    return left // right


def round_half_up(value: Number, places: Number = 0) -> Number:
    """Rounds; halves go away from zero, as taught in schools."""
    if type(places) is not int or abs(places) > 1000:
        raise CalcError("The number of places to round to must be a small whole number.")
    scale = Fraction(10**places) if places >= 0 else Fraction(1, 10**-places)
    scaled = abs(Fraction(value)) * scale
    rounded = math.floor(scaled + Fraction(1, 2)) / scale
    return -rounded if value < 0 else rounded


def root(value: Number, degree: Number) -> Number:
    """Returns the real root of a degree."""
    if degree == 0:
        raise CalcError("A root of degree zero is undefined.")
    return power(value, bounded(Fraction(1) / degree))


def logarithm(value: Number, base: Number | None = None) -> Number:
    """Returns a logarithm that is whole: the natural one of 1, log(8, 2), log_10(0.01)."""
    if value == 1:
        return 0
    if base is None or base <= 0 or base == 1 or value <= 0:
        raise Irrational
    size = (math.log(value.numerator) - math.log(value.denominator)) / (
        math.log(base.numerator) - math.log(base.denominator) or math.inf
    )
    guess = round(size)
    if abs(size - guess) > 1e-9 or not guess or abs(guess) > MAX_BITS or power(base, guess) != value:
        raise Irrational
    return guess


def mean(*values: Number) -> Number:
    """Returns the arithmetic mean."""
    return divide(add(list(values)), len(values))


def median(*values: Number) -> Number:
    """Returns the middle value, or the mean of the two."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else mean(*ordered[half - 1 : half + 1])


def product(*values: Number) -> Number:
    """Returns the product of a list."""
    total: Number = 1
    for value in values:
        total = bounded(total * value)
    return total


def fold_whole(function: Callable[..., int]) -> Callable[..., Number]:
    """Makes gcd and lcm check their arguments."""

    def folded(*values: Number) -> Number:
        whole = _whole(*values)
        if function is math.lcm and sum(value.bit_length() for value in whole) > MAX_BITS:
            raise too_large()
        return function(*whole)

    return folded


def unchanged(value: Number) -> Number:
    """Returns its argument."""
    return value


def _zero_only(function_value: int) -> Callable[[Number], Number]:
    """exp(0) = 1 and sin(0) = 0 need no worker; all else of theirs is irrational."""

    def at(value: Number) -> Number:
        if value != 0:
            raise Irrational
        return function_value

    return at


OPERATORS: dict[str, Callable[..., Number]] = {
    "^": power,
    "!": factorial,
    "%": lambda value: divide(value, 100),
    "pct": lambda value, percent: value * (1 + Fraction(percent) / 100),
    "inv": lambda value: divide(1, value),
}
"""Operator of a syntax tree -> its exact function."""

EXACT: dict[str, Callable[..., Number]] = {
    "sqrt": lambda value: power(value, Fraction(1, 2)),
    "cbrt": lambda value: power(value, Fraction(1, 3)),
    "root": root,
    "pow": power,
    "fraction": divide,
    "abs": abs,
    "sign": lambda value: (value > 0) - (value < 0),
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "integer": math.trunc,
    "round": round_half_up,
    "number": unchanged,
    "simplify": unchanged,
    "expand": unchanged,
    "doit": unchanged,
    "factorial": factorial,
    "binomial": binomial,
    "perm": perm,
    "mod": modulo,
    "floordiv": floor_divide,
    "gcd": fold_whole(math.gcd),
    "lcm": fold_whole(math.lcm),
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "sum": lambda *values: add(list(values)),
    "prod": product,
    "mean": mean,
    "median": median,
    "log": logarithm,
    "ln": logarithm,
    "exp": _zero_only(1),
    "sin": _zero_only(0),
    "tan": _zero_only(0),
    "cos": _zero_only(1),
}
"""Function -> its exact form over rationals."""
