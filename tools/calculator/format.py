"""Exact numbers -> text: whole numbers and short decimals as they are, all else to twelve significant digits."""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction

from swirl_env.tools.calculator.rational import Number, too_large

DIGITS = 12
SHORT = 20
"""Most significant digits of a decimal that is shown in full."""
MAX_EXACT = 300
"""Longest exact form of a number that is no whole one."""
MAX_TEXT = 2000
"""Longest reply, in characters."""

_ROUND = Context(prec=DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN)


def number_text(value: Number) -> tuple[str, str]:
    """Returns a number as shown and as it is exactly (``("3.33333333333", "10/3")``).

    Raises:
        CalcError: for one that is too long to show.
    """
    if isinstance(value, int):
        text = str(value)
        if len(text) > MAX_TEXT:
            raise too_large()
        return text, text
    exact = terminating(value)
    if exact is not None and len(exact.strip("-0").replace(".", "").lstrip("0")) <= SHORT and len(exact) <= 2 * SHORT:
        return exact, exact
    text = decimal_text(_ROUND.divide(Decimal(value.numerator), Decimal(value.denominator)))
    exact = exact or f"{value.numerator}/{value.denominator}"
    return text, exact if len(exact) <= MAX_EXACT else text


def terminating(value: Fraction) -> str | None:
    """Returns a fraction as a decimal, None if that would not end (or not soon)."""
    rest, twos, fives = value.denominator, 0, 0
    twos = (rest & -rest).bit_length() - 1
    rest >>= twos
    while rest % 5 == 0:
        rest //= 5
        fives += 1
    places = max(twos, fives)
    if rest != 1 or places > MAX_TEXT:
        return None
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def decimal_text(value: Decimal) -> str:
    """Returns a rounded decimal: plain unless very large or very small."""
    value = _ROUND.plus(value)
    if value == 0:
        return "0"
    if -10 <= value.adjusted() < 21:
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = format(value, f".{DIGITS - 1}e").partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent):+03d}"
