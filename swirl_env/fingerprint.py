"""Short names for plugins with their options: equal names mean equal behaviour. They name verdict tables and cache entries."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from swirl_env.protocols import Agent, Judge, Tool
from swirl_env.registry import KINDS, Spec, entries, given_options, make


def fingerprint(plugin: Spec, kind: str = "judge") -> str:
    """Returns ``name-hash`` of a plugin: what it is called, and a hash of its options; fit for a file name.

    A plugin that has a `fingerprint` of its own is taken at its word. Else the options of its constructor count: its
    attributes of the same names, with or without an underscore before them; where it has not all of these, what the
    registry was given to build it; else the attributes there are.

    Args:
        plugin: the object; or a name, or a mapping with ``name`` and options, which is built to find out.
        kind: what it is, for building it.
    """
    built = make(kind, plugin)
    own = getattr(built, "fingerprint", None)
    if isinstance(own, str):
        return own
    options = _options(type(built))
    held = {key: getattr(built, name) for key in options for name in (f"_{key}", key) if hasattr(built, name)}
    given = given_options(built)
    if len(held) < len(options) and given is not None:
        held = {**{key: value for key, value in options.items() if value is not inspect.Parameter.empty}, **given}
    if options and not held:
        held = {key: value for key, value in getattr(built, "__dict__", {}).items() if not key.startswith("_")}
    return named(_name_of(f"{type(built).__module__}:{type(built).__qualname__}"), held)


def named(name: str, options: Mapping[str, Any]) -> str:
    """Returns ``name-hash`` for a name and options; plugins with options that matter use it for their own `fingerprint`."""
    said = msgspec.json.encode(options, enc_hook=_plain, order="deterministic")
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', name)}-{hashlib.blake2b(said, digest_size=6).hexdigest()}"


def _plain(value: object) -> object:
    """Returns what stands for a value that JSON does not know."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, Mapping):
        return dict(value)
    # An option that is itself a plugin counts with its options; any other object only by what it is an instance of.
    plugin = isinstance(getattr(value, "fingerprint", None), str) or isinstance(value, Tool | Judge | Agent)
    return fingerprint(value) if plugin else f"{type(value).__module__}:{type(value).__qualname__}"


def _options(cls: Any) -> dict[str, Any]:
    """Returns the options that a constructor takes, with their defaults (`inspect.Parameter.empty` where there is none)."""
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


@functools.cache
def _name_of(path: str) -> str:
    """Returns the registered name of a class, or its path where it has none."""
    return next((entry.name for kind in KINDS for entry in entries(kind).values() if entry.value == path), path)
