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
from swirl_env.registry import KINDS, Spec, entries, load


def fingerprint(plugin: Spec, kind: str = "judge") -> str:
    """Returns ``name-hash`` of a plugin: what it is called, and a hash of its options; fit for a file name.

    A plugin that has a `fingerprint` of its own is taken at its word. Else the options are those of its constructor: for a
    spec the given ones and the defaults, for an object its attributes of the same names (all its public ones where it has
    options but no attribute is named like one).

    Args:
        plugin: a name, a mapping with ``name`` and options, or the object.
        kind: what it is, to find out what a spec's factory takes by default.
    """
    if isinstance(plugin, str):
        plugin = {"name": plugin}
    if isinstance(plugin, Mapping):
        given = dict(plugin)
        name = str(given.pop("name", ""))
        return named(name, {**_defaults(load(kind, name)), **given})
    own = getattr(plugin, "fingerprint", None)
    if isinstance(own, str):
        return own
    options = _defaults(type(plugin), every=True)
    taken = {key: getattr(plugin, key) for key in options if hasattr(plugin, key)}
    if options and not taken:
        taken = {key: value for key, value in getattr(plugin, "__dict__", {}).items() if not key.startswith("_")}
    return named(_name_of(type(plugin)), taken)


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


def _defaults(factory: Any, every: bool = False) -> dict[str, Any]:
    """Returns the options of a factory with their defaults; with `every`, those without a default too."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if every or p.default is not p.empty}


@functools.cache
def _name_of(cls: type) -> str:
    """Returns the registered name of a class, or where it stands."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    return next((entry.name for kind in KINDS for entry in entries(kind).values() if entry.value == path), path)
