"""Exact numbers and their arithmetic; sizes are bounded before the work is done, so that no input can stall or fill the caller.

A number is an int, or a Fraction that is not whole. What is not rational raises `Irrational`, and the symbolic worker takes over.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from swirl_env.tools.calculator.text import CalcError

Number = int | Fraction
Node = Any
"""Syntax tree, what the parser makes: int | Fraction | str | tuple[str, Node, ...]."""

MAX_DIGITS = 4000
"""Digits of a literal, and about those of any exact number on the way to a result."""
MAX_BITS = int(MAX_DIGITS * 3.33)
MAX_ROOT = 64
"""Highest degree of root that is looked for exactly."""
MAX_LOG_BITS = 7000
"""Powers beyond two to this, up or down, are refused (about ten to the 2,100)."""


class Irrational(Exception):
    """The value is not rational, or its exact form is too long: a matter for the worker."""


def too_large() -> CalcError:
    """The error for a result that is out of bounds."""
    return CalcError("The numbers in this calculation grow too large.", "limit")


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


def divide(left: Number, right: Number) -> Number:
    """Returns the quotient."""
    if right == 0:
        raise CalcError("Division by zero is undefined.")
    return bounded(Fraction(left, right))


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
    results: Number = Fraction(root_of(abs(base.numerator), degree), root_of(base.denominator, degree))
    return power(bounded(-results if base < 0 else results), exponent.numerator)


def root_of(value: int, degree: int) -> int:
    """Returns the whole root of a whole number, at least 0.

    Raises:
        Irrational: if it has none.
    """
    if degree == 2:
        results = math.isqrt(value)
    elif value.bit_length() > 2000:
        raise Irrational
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
        results = low
    if results**degree != value:
        raise Irrational
    return results
