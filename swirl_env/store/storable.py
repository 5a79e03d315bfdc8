"""Values on their way into a file: converted if nothing is lost by that, else refused with the place where they are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from swirl_env.errors import StoreError

T = TypeVar("T")
_SURROGATE = re.compile("[\ud800-\udfff]")


def encode_value(value: T, kind: Any, encode: Callable[[T], bytes | None], what: str) -> bytes:
    """Returns ``encode(value)``; values that JSON does not know are converted first, if nothing is lost by that.

    Raises:
        StoreError: if there is a value that cannot be stored, saying which it is and why.
    """
    reason: object = None
    try:
        if (line := encode(value)) is not None:
            return line
    except _REFUSALS as error:
        reason = error
    try:
        plain = msgspec.to_builtins(value, enc_hook=_to_json)
        reason = next(_unstorable(plain, ""), None)
        if reason is None and (line := encode(msgspec.convert(_with_lists(plain), kind))) is not None:
            return line
    except _REFUSALS as error:
        reason = error
    raise StoreError(f"{what} cannot be stored: {reason or 'JSON would change a value in it'}. Check what made it.") from None


_REFUSALS = (TypeError, ValueError, AttributeError, RecursionError, OverflowError)
"""Exceptions of what cannot be encoded, those of msgspec and `BadLine` included."""
_FOREIGN = "\0foreign"


def _to_json(value: object) -> object:
    """Returns numbers and arrays of numpy and torch as plain ones, and a mark in place of other objects."""
    if callable(convert := getattr(value, "tolist", None)) and isinstance(plain := convert(), int | float | str | bool | list):
        return plain
    return {_FOREIGN: type(value).__name__}


def _with_lists(value: object) -> object:
    """Returns a value with its tuples as lists, as they come back from JSON."""
    if isinstance(value, dict):
        return {key: _with_lists(inner) for key, inner in value.items()}
    return [_with_lists(inner) for inner in value] if isinstance(value, list | tuple) else value


def _unstorable(value: object, path: str) -> Iterator[str]:
    """Yields a sentence on each value that JSON cannot hold, with the place where it is."""
    place = path.lstrip(".") or "a value"
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place} is {value}, and numbers have to be finite"
    elif isinstance(value, str) and not value.isascii() and (match := _SURROGATE.search(value)):
        yield f"{place} holds the lone surrogate {match[0]!a}; replace it first (swirl_env.episodes.transcript.clean)"
    elif isinstance(value, dict) and _FOREIGN in value:
        yield f"{place} is an object of type {value[_FOREIGN]}, which JSON cannot hold"
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                yield f"{place} has the key {key!r}, and the keys of mappings have to be text"
            yield from _unstorable(key, f"a key of {place}")
            yield from _unstorable(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _unstorable(inner, f"{path}[{i}]")
