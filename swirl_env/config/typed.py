"""Values of the configuration checked against the types that signatures ask for."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Literal, get_args, get_origin

import msgspec

from swirl_env.errors import ConfigError


def convert_option(key: str, value: object, hint: object) -> object:
    """Returns a value as the type that an option asks for; types that msgspec cannot check pass as they are.

    Raises:
        ConfigError: if the value is of another type; the message begins with `key`.
    """
    if hint is typing.Any or not _is_checked(hint):
        return value
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{key}: {describe_mismatch(error, hint, value)}.") from error


def describe_mismatch(error: msgspec.ValidationError, hint: object, value: object) -> str:
    """Returns what a value should have been, e.g. ``expected one of full, calls; got 'ful'``."""
    text = str(error).partition(" - at ")[0].replace("`", "")
    if get_origin(hint) is Literal:
        text = f"Expected one of {', '.join(map(str, get_args(hint)))}"
    if text.startswith("Invalid enum value"):
        text = f"Expected one of {', '.join(map(str, _named(hint)))}"
    if text.startswith("Expected array") and not isinstance(value, list | tuple | dict):
        text = f"Expected a list, [{value}] for a single one"
    return f"{text[:1].lower()}{text[1:]}; got {value!r}"


def _named(hint: object) -> list[object]:
    """Returns the values that a type names, in a union too; of other types nothing."""
    return list(get_args(hint)) if get_origin(hint) is Literal else [name for part in get_args(hint) for name in _named(part)]


def _is_checked(hint: object) -> bool:
    """Whether msgspec can check a type exactly; objects of plugins and protocols are left to their factory."""
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType, list, tuple, dict, Sequence, Mapping, Literal):
        return origin is Literal or all(map(_is_checked, get_args(hint)))
    return hint in (str, int, float, bool, type(None), typing.Any, Ellipsis)
