"""Tools as methods that TRL and transformers can read: a signature with type hints, and a docstring with ``Args:``."""

from __future__ import annotations

import functools
import inspect
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal

from swirl_env.arguments import Schema
from swirl_env.errors import ConfigError

RESERVED = frozenset({"reset", "get_reward"})
"""Methods of an environment that TRL does not offer as tools."""
_HINTS: dict[object, Any] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict, "null": type(None),
}  # fmt: skip
_BEYOND_HINTS = ("properties", "required", "minimum", "maximum", "minLength", "maxLength", "pattern", "$ref")


def tool_method(function: Mapping[str, Any]) -> Callable[..., str]:
    """Returns the method of an environment for a tool.

    It takes whatever arguments a model writes: what does not fit the schema is answered with a correction by the engine.

    Args:
        function: name, description and JSON Schema of the parameters, as chat templates are told of them.

    Raises:
        ConfigError: if the name, or that of an argument, cannot be used in Python, or is taken.
    """
    name, schema = function["name"], function["parameters"]
    arguments: Mapping[str, Schema] = schema.get("properties", {})
    for word in (name, *arguments):
        if not word.isidentifier() or word.startswith("_") or word in RESERVED or word == "self":
            raise ConfigError(
                f"TRL offers methods as tools, and {word!r} cannot be the name of one (or of its argument): it begins with '_', "
                f"is no identifier, or is taken. Give the tool {name!r} another tag, or wrap it in a function."
            )

    def method(self: Any, **values: Any) -> str:
        text: str = self._call(name, values)
        return text

    required = set(schema.get("required", ()))
    hints = {key: _hint(inner) for key, inner in arguments.items()}
    nothing, named = inspect.Parameter.empty, inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)] + [
        inspect.Parameter(key, named, annotation=hint, default=nothing if key in required else None)
        for key, hint in hints.items()
    ]
    method.__name__ = method.__qualname__ = name
    method.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
    method.__annotations__ = {**hints, "return": str}
    method.__doc__ = _docstring(str(function["description"]), arguments)
    return method


def _hint(schema: Schema) -> Any:
    """Returns the type hint that stands for a JSON Schema, as far as hints can say it; an unknown one is a text."""
    choices = schema.get("enum")
    if choices and all(isinstance(choice, str | int) for choice in choices):
        return Literal[tuple(choices)]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return functools.reduce(operator.or_, [_hint(inner) for inner in schema[key]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return functools.reduce(operator.or_, [_HINTS.get(one, str) for one in kind])
    if kind == "array" and isinstance(schema.get("items"), Mapping) and schema["items"]:
        return list[_hint(schema["items"])]  # type: ignore[misc]
    return _HINTS.get(kind, str)


def _docstring(description: str, arguments: Mapping[str, Schema]) -> str:
    """Returns description and arguments in Google's style, each in one line; what hints cannot say is written out as JSON."""
    lines = [" ".join(description.split()), "", "Args:"]
    for key, schema in arguments.items():
        note = " ".join(str(schema.get("description", "")).split()) or f"the {key.replace('_', ' ')}"
        beyond = {word: schema[word] for word in _BEYOND_HINTS if word in schema}
        more = f" JSON Schema: {json.dumps(beyond)}" if beyond else ""
        lines.append(f"    {key}: {note}{more}")
    return "\n".join(lines if arguments else lines[:1])
