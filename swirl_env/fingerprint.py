"""Short names for plugins with their options: equal names mean equal behaviour. They name verdict tables and cache entries."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Mapping
from pathlib import PurePath

import msgspec

from swirl_env.protocols import Agent, Judge, Tool
from swirl_env.registry import KINDS, Spec, entries, given_options, make


def fingerprint(plugin: Spec, kind: str = "judge") -> str:
    """Returns ``name-hash`` of a plugin: its name, and a hash of its options; valid as part of a file name.

    A plugin with a `fingerprint` of its own has that one. Otherwise the options of its constructor count: its attributes
    of the same names, with or without a leading underscore; if it lacks some of these, the options that the registry built
    it with; if there are none, all its public attributes.

    Args:
        plugin: the object; or a name, or a mapping with ``name`` and options, which is built first.
        kind: its kind, for building it.
    """
    built = make(kind, plugin)
    own = getattr(built, "fingerprint", None)
    if isinstance(own, str):
        return own
    options = _options(type(built))
    values = {key: getattr(built, name) for key in options for name in (f"_{key}", key) if hasattr(built, name)}
    built_with = given_options(built)
    if len(values) < len(options) and built_with is not None:
        values = {**{key: value for key, value in options.items() if value is not inspect.Parameter.empty}, **built_with}
    if options and not values:
        values = {key: value for key, value in getattr(built, "__dict__", {}).items() if not key.startswith("_")}
    return named(_name_of(f"{type(built).__module__}:{type(built).__qualname__}"), values)


def named(name: str, options: Mapping[str, object]) -> str:
    """Returns ``name-hash`` for a name and options; plugins with options that matter use it for their own `fingerprint`."""
    content = msgspec.json.encode(options, enc_hook=_plain, order="deterministic")
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', name)}-{hashlib.blake2b(content, digest_size=6).hexdigest()}"


def _plain(value: object) -> object:
    """Returns a JSON value in place of one that JSON cannot hold."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, Mapping):
        return dict(value)
    # An option that is itself a plugin counts with its options; any other object only by its class.
    plugin = isinstance(getattr(value, "fingerprint", None), str) or isinstance(value, Tool | Judge | Agent)
    return fingerprint(value) if plugin else f"{type(value).__module__}:{type(value).__qualname__}"


def _options(cls: type) -> dict[str, object]:
    """Returns the options that a constructor takes, with their defaults (`inspect.Parameter.empty` if there is none)."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


@functools.cache
def _name_of(path: str) -> str:
    """Returns the registered name of a class, or its path if it has none."""
    return next((entry.name for kind in KINDS for entry in entries(kind).values() if entry.value == path), path)
