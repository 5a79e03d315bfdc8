"""Exact rational evaluation in process. Every size is bounded before the work is done, so no input can stall or fill the caller.

A number is an int, or a Fraction that is not whole. What is not rational raises `Irrational`, and the symbolic worker takes over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise

from swirl_env.tools.calc_parse import MAX_DIGITS, Node
from swirl_env.tools.calc_text import CalcError

Number = int | Fraction

MAX_BITS = int(MAX_DIGITS * 3.33)
MAX_FACTORIAL = 1500
MAX_ROOT = 64
"""Highest degree of root that is looked for exactly."""
MAX_LOG_BITS = 7000
"""Powers beyond two to this, up or down, are refused (about ten to the 2,100)."""


class Irrational(Exception):
    """The value is not rational, or its exact form is too long: a matter for the worker."""


def too_large() -> CalcError:
    """The error for a result that is out of bounds."""
    return CalcError("The numbers in this calculation grow too large.", "limit")


def evaluate(node: Node, names: Mapping[str, Number]) -> Number:
    """Returns the exact value of a syntax tree.

    Args:
        node: what `calc_parse.parse` gave.
        names: values of variables.

    Raises:
        Irrational: where the worker has to take over.
        CalcError: where there is no value.
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


def bounded(value: Number) -> Number:
    """Returns a number in normal form, if its size is in bounds."""
    if type(value) is Fraction:
        if value.denominator == 1:
            value = value.numerator
        elif value.denominator.bit_length() > MAX_BITS:
            raise Irrational
    if value.numerator.bit_length() > MAX_BITS:
        raise too_large() if type(value) is int else Irrational
    return value


def add(values: list[Number]) -> Number:
    """Returns the sum."""
    total: Number = 0
    for value in values:
        total = total + value
        if type(total) is not int:
            total = bounded(total)
    return bounded(total)


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


def divide(left: Number, right: Number) -> Number:
    """Returns the quotient."""
    if right == 0:
        raise CalcError("Division by zero is undefined.")
    return bounded(Fraction(left, right))


def progression(values: list[Number], dots: int) -> Number:
    """Returns 1 + 2 + 3 + ... + 10, where `dots` terms stand before the dots.

    Raises:
        CalcError: where the terms are no arithmetic progression.
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


def power(base: Number, exponent: Number) -> Number:
    """Returns base ** exponent; a negative base with an odd root gives the real root."""
    if isinstance(exponent, Fraction):
        return _rational_power(base, exponent)
    if exponent == 0 or base == 1:
        return 1
    if base == 0:
        if exponent < 0:
            raise CalcError("Division by zero is undefined.")
        return 0
    if base == -1:
        return -1 if exponent % 2 else 1
    top, bottom = abs(base.numerator), base.denominator
    if max(top.bit_length(), bottom.bit_length()) * abs(exponent) > MAX_BITS:
        # A Fraction's power can be long and yet of moderate size, as in compound interest: the worker has floats.
        if bottom == 1 and exponent > 0:
            raise too_large()
        guard(base, exponent)
        raise Irrational
    return bounded(Fraction(base) ** exponent if type(base) is int and exponent < 0 else base**exponent)


def guard(base: Number, exponent: Number) -> None:
    """Refuses powers whose size is out of bounds, without computing them."""
    if exponent.numerator.bit_length() - exponent.denominator.bit_length() > 60:
        raise too_large()
    size = math.log2(abs(base.numerator)) - math.log2(base.denominator)
    if abs(size) < 1e-9:
        size = float(abs(Fraction(base)) - 1) / math.log(2)
    if abs(size) * abs(float(exponent)) > MAX_LOG_BITS:
        raise too_large()


def _rational_power(base: Number, exponent: Fraction) -> Number:
    degree = exponent.denominator
    if base == 0:
        if exponent < 0:
            raise CalcError("Division by zero is undefined.")
        return 0
    guard(base, exponent)
    if degree > MAX_ROOT:
        raise Irrational
    if base < 0 and degree % 2 == 0:
        raise Irrational
    found: Number = Fraction(root_of(abs(base.numerator), degree), root_of(base.denominator, degree))
    return power(bounded(-found if base < 0 else found), exponent.numerator)


def root_of(value: int, degree: int) -> int:
    """Returns the whole root of a whole number, at least 0.

    Raises:
        Irrational: where it has none.
    """
    if degree == 2:
        found = math.isqrt(value)
    elif value.bit_length() > 2000:
        raise Irrational
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
        found = low
    if found**degree != value:
        raise Irrational
    return found


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
    return multiply(("*", *values), {})


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
