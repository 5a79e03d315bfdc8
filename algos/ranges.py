"""Checks on the options of algorithms and of the trainer: a number outside its range is one clear sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from swirl_env.errors import ConfigError


def check_count(least: int, **options: int) -> None:
    """Refuses options that are not whole numbers from `least` on.

    Raises:
        ConfigError: names the option, what it may be, and what came.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} is a whole number, {least} or more; got {value!r}.")


def check_number(
    options: Mapping[str, float], low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Refuses options that are not finite numbers between `low` and `high`.

    Args:
        options: values by name.
        low: smallest value.
        high: largest value; infinity for no limit.
        open_low: whether `low` itself is refused.
        open_high: whether `high` itself is refused.

    Raises:
        ConfigError: names the option, what it may be, and what came.
    """
    for name, value in options.items():
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
        below = number <= low if open_low else number < low
        above = number >= high if open_high else number > high
        if not math.isfinite(number) or below or above:
            least = ("above " if open_low else "at least ") + f"{low:g}"
            most = "" if math.isinf(high) else (", below " if open_high else ", at most ") + f"{high:g}"
            bounds = "" if math.isinf(low) else f", {least}{most}"
            raise ConfigError(f"{name} is a finite number{bounds}; got {value!r}.")


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Refuses an option that is none of the known words.

    Raises:
        ConfigError: names the option and the words.
    """
    if value not in known:
        raise ConfigError(f"{name} is one of {', '.join(known)}; got {value!r}.")
