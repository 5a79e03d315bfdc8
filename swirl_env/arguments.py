"""Typed arguments of tools: a JSON Schema, the text of a call -> the arguments, or a sentence that says what is wrong.

The part of JSON Schema that describes arguments is checked: ``type``, ``enum``, ``const``, ``properties``, ``required``,
``additionalProperties``, ``items``, bounds of numbers, texts and lists, ``pattern``, ``anyOf``, ``oneOf``, ``allOf`` and local
``$ref``. Other keywords are notes for the reader. Unlike in JSON Schema, an argument that is not declared is an error unless
``additionalProperties`` allows it: it is most likely a misspelt one.

What models write is met half-way if nothing is lost by it: ``"5"`` is a whole number, ``5.0`` too, and 5 a text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from swirl_env.protocols import Tool, TypedTool

Json = Any
"""A value as JSON holds it."""
Schema = Mapping[str, Json]
MAX_DEPTH = 50
"""Deepest nesting of arguments."""

_NAME = re.compile(r"[\w.-]{1,40}", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?(?:[eE][-+]?\d{1,3})?", re.ASCII)
_WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


class _Wrong(Exception):
    """An argument that does not fit; the message is the sentence for the policy."""


def schema_of(tool: Tool) -> Schema | None:
    """Returns the JSON Schema of a tool's arguments; None if it takes one text."""
    return tool.parameters if isinstance(tool, TypedTool) else None


def single(schema: Schema) -> str | None:
    """Returns the one argument that a call needs to name, so that its bare value will do; None if there is no such one."""
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    names = list(properties) if len(properties) == 1 else list(required) if len(required) == 1 else []
    return str(names[0]) if names else None


def example(schema: Schema) -> str:
    """Returns the form of the arguments in one line: ``{"a": a whole number, "b": a text (may be left out)}``."""
    required = schema.get("required", ())
    fields = []
    for name, inner in schema.get("properties", {}).items():
        kind = inner.get("type") if isinstance(inner, Mapping) else None
        options = inner.get("enum") if isinstance(inner, Mapping) else None
        what = " or ".join(map(json.dumps, options)) if options else _WORDS.get(str(kind), "a value")
        fields.append(f'"{name}": {what}{"" if name in required else " (may be left out)"}')
    return "{" + ", ".join(fields) + "}"


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _distinct(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    fields = dict(pairs)
    if len(fields) < len(pairs):  # one of the two values would be lost
        raise ValueError("a key stands twice")
    return fields


DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_distinct)
"""Reads JSON alone: no NaN, no number beyond all bounds, no key twice."""


_LOST_BACKSLASH = re.compile(
    r"(?<!\\)((?:\\\\)*)\\(?:(b)(?=inom|ar\b|ar\{|eta|egin|oldsymbol|ig|mod|ullet)|(f)(?=rac|loor|orall|box|lat)"
    r"|(t)(?=imes|ext|heta|frac)|(r)(?=ight|floor|ceil)|[ac-eg-mo-qsv-zA-Z])"
)
"""A backslash in JSON text that begins LaTeX rather than an escape that is meant; the last letters begin no escape at all."""
_CODES = {"b": "0008", "f": "000c", "t": "0009", "r": "000d"}
LOST_BACKSLASH = 'A backslash in JSON is written twice: "\\\\frac" for \\frac.'


def has_lost_backslash(text: str) -> bool:
    r"""Whether JSON as a model wrote it holds LaTeX with single backslashes: JSON reads ``"\frac"`` as a form feed and "rac"."""
    return "\\" in text and _LOST_BACKSLASH.search(text) is not None


def spell_controls(text: str) -> str:
    """Returns JSON text in which control characters before letters are spelled so that `has_lost_backslash` is false of it."""
    return _LOST_BACKSLASH.sub(lambda m: f"{m[1]}\\u{_CODES[m[2] or m[3] or m[4] or m[5]]}", text)


def loads(text: str) -> Json:
    """Returns what a JSON text says; None if it is none (or null), or holds what `DECODER` refuses."""
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def scalar_text(value: object) -> str | None:
    """Returns a text, number or truth value as text; None for anything else."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def named(name: object) -> str:
    """Returns a field's name in quotes as it may be repeated to a policy: names of another form might be markup."""
    return f'"{name}"' if isinstance(name, str) and _NAME.fullmatch(name) else "of another name"


def read_arguments(schema: Schema, text: str) -> dict[str, Json] | str:
    """Returns the arguments that the text of a call states, or the sentence that says what is wrong with them.

    Args:
        schema: JSON Schema of the arguments.
        text: a JSON object; or the bare value, if the tool needs one argument only.
    """
    only, properties = single(schema), schema.get("properties", {})
    stripped = text.strip()
    arguments: Json = loads(stripped) if stripped.startswith("{") else None
    if only and not (isinstance(arguments, dict) and (not arguments or arguments.keys() & properties.keys())):
        arguments = {only: _bare(schema, properties.get(only, {}), stripped)}
    elif not stripped:
        arguments = {}
    elif isinstance(arguments, dict) and has_lost_backslash(stripped):
        return LOST_BACKSLASH
    if not isinstance(arguments, dict):
        return f"The arguments were no JSON object; write {example(schema)}."
    return check_arguments(schema, arguments)


def check_arguments(schema: Schema, arguments: Mapping[str, Json]) -> dict[str, Json] | str:
    """Returns arguments that fit a schema, or the sentence that names the field that does not."""
    try:
        checked: dict[str, Json] = _object(schema, {**schema, "type": "object"}, arguments, "", 0)
    except _Wrong as wrong:
        return str(wrong)
    return checked


def _bare(root: Schema, schema: Json, text: str) -> Json:
    """Returns the value of a bare text: itself if a text is wanted, else what it says in JSON."""
    kinds = _kinds(_resolved(root, schema, 0))
    if not kinds or "string" in kinds:
        return text
    value = loads(text)
    return text if value is None and text != "null" else value


def _kinds(schema: Json) -> tuple[str, ...]:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    return (kind,) if isinstance(kind, str) else tuple(kind or ())


def _resolved(root: Schema, schema: Json, depth: int) -> Json:
    """Follows local references, ``{"$ref": "#/$defs/Name"}``."""
    while (
        isinstance(schema, Mapping) and isinstance(ref := schema.get("$ref"), str) and ref.startswith("#") and depth < MAX_DEPTH
    ):
        target: Json = root
        for part in ref.removeprefix("#").strip("/").split("/"):
            target = (
                target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, Mapping) and part else target
            )
        schema, depth = target, depth + 1
    return schema


def _fits(root: Schema, schema: Json, value: Json, place: str, depth: int) -> Json:
    """Returns a value that fits a schema, converted if nothing is lost by it.

    Raises:
        _Wrong: if it does not fit.
    """
    if depth > MAX_DEPTH:
        raise _Wrong(f"The argument {place} was nested too deep.")
    schema = _resolved(root, schema, depth)
    if schema is False:
        raise _Wrong(f"The argument {place} is not allowed.")
    if not isinstance(schema, Mapping):
        return value
    kinds = _kinds(schema)
    if kinds:
        value = _typed(kinds, value, place)
    if isinstance(value, Mapping):
        value = _object(root, schema, value, place, depth)
    elif isinstance(value, list):
        value = _list(root, schema, value, place, depth)
    if "enum" in schema and value not in schema["enum"]:
        value = _in_enum(schema["enum"], value)
    _bounds(schema, value, place)
    for choices in (schema.get("anyOf"), schema.get("oneOf")):
        if choices:
            value = _any_of(root, choices, value, place, depth)
    for inner in schema.get("allOf", ()):
        value = _fits(root, inner, value, place, depth + 1)
    return value


def _list(root: Schema, schema: Schema, value: list[Json], place: str, depth: int) -> list[Json]:
    first, rest = schema.get("prefixItems", ()), schema.get("items", True)
    forms = [*first, *([rest] * (len(value) - len(first)))]
    return [_fits(root, form, item, f"{place}[{i}]", depth + 1) for i, (form, item) in enumerate(zip(forms, value, strict=False))]


def _any_of(root: Schema, choices: Json, value: Json, place: str, depth: int) -> Json:
    # A choice that takes the value as it is comes before one that would convert it.
    results, errors = [], []
    for choice in choices:
        try:
            results.append(_fits(root, choice, value, place, depth + 1))
        except _Wrong as wrong:
            errors.append(wrong)
    if not results:
        kinds = [_kinds(_resolved(root, choice, depth)) for choice in choices]
        if all(kinds) and not any(_is(kind, value) for some in kinds for kind in some):
            raise _mismatch([kind for some in kinds for kind in some], value, place)
        # A form of the right kind says best what is wrong.
        right = [wrong for some, wrong in zip(kinds, errors, strict=True) if any(_is(kind, value) for kind in some)]
        raise (right or errors)[0]
    return next((result for result in results if type(result) is type(value) and result == value), results[0])


def _typed(kinds: tuple[str, ...], value: Json, place: str) -> Json:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    for kind in kinds:
        if kind == "integer" and is_number and value == int(value):
            return int(value)
        exact = {"string": str, "boolean": bool, "array": list, "object": Mapping, "null": type(None)}.get(kind)
        if (kind == "number" and is_number) or (exact is not None and isinstance(value, exact)):
            return value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = loads(value.strip())
        if number is not None and ("number" in kinds or ("integer" in kinds and number == int(number))):
            return number if "number" in kinds and not isinstance(number, int) else int(number)
    if isinstance(value, str) and "boolean" in kinds and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if is_number and "string" in kinds:
        return json.dumps(value)
    if isinstance(value, str) and ("array" in kinds or "object" in kinds):  # written as JSON within JSON
        inner = loads(value)
        if (isinstance(inner, list) and "array" in kinds) or (isinstance(inner, dict) and "object" in kinds):
            return inner
    raise _mismatch(kinds, value, place)


def _mismatch(kinds: Sequence[str], value: Json, place: str) -> _Wrong:
    wanted = " or ".join(dict.fromkeys(_WORDS.get(kind, kind) for kind in kinds))
    got = next((word for kind, word in _WORDS.items() if _is(kind, value)), "something else")
    return _Wrong(f"The argument {place} must be {wanted}; it was {got}.")


def _is(kind: str, value: Json) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    types: dict[str, Json] = {"string": str, "integer": int, "number": float, "array": list, "object": Mapping}
    return kind in types and isinstance(value, types[kind])


def _object(root: Schema, schema: Schema, value: Mapping[str, Json], place: str, depth: int) -> dict[str, Json]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise _Wrong(f"The argument {_place(place, name)} is missing.")
    rest = schema.get("additionalProperties", not properties and bool(place))
    checked = {}
    for name, item in value.items():
        inner = properties.get(name, rest)
        if inner is False:
            names = ", ".join(f'"{known}"' for known in properties) or "none"
            raise _Wrong(f"There is no argument {_place(place, name)}; the arguments are {names}.")
        checked[name] = _fits(root, inner, item, _place(place, name), depth + 1)
    return checked


def _place(place: str, name: object) -> str:
    return named(name) if not place else f"{named(name)} of {place}"


def _in_enum(choices: Sequence[Json], value: Json) -> Json:
    """Returns the one choice that is written as a value is: ``"3"`` and 3 are the same to a model."""
    same = [choice for choice in choices if scalar_text(choice) is not None and scalar_text(choice) == scalar_text(value)]
    return same[0] if len(same) == 1 else value


def _bounds(schema: Schema, value: Json, place: str) -> None:
    if "enum" in schema and value not in schema["enum"]:
        raise _Wrong(f"The argument {place} must be one of {', '.join(map(json.dumps, schema['enum']))}.")
    if "const" in schema and value != schema["const"]:
        raise _Wrong(f"The argument {place} must be {json.dumps(schema['const'])}.")
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        checks = (
            ("minimum", value >= schema.get("minimum", value), "at least"),
            ("maximum", value <= schema.get("maximum", value), "at most"),
            ("exclusiveMinimum", value > schema.get("exclusiveMinimum", value - 1), "above"),
            ("exclusiveMaximum", value < schema.get("exclusiveMaximum", value + 1), "below"),
        )
        for keyword, ok, word in checks:
            if keyword in schema and not ok:
                raise _Wrong(f"The argument {place} must be {word} {schema[keyword]}.")
    low, high = ("minItems", "maxItems") if isinstance(value, list) else ("minLength", "maxLength")
    if isinstance(value, list | str):
        what = "items" if isinstance(value, list) else "characters"
        if len(value) < schema.get(low, 0):
            raise _Wrong(f"The argument {place} must have at least {schema[low]} {what}; it had {len(value)}.")
        if len(value) > schema.get(high, len(value)):
            raise _Wrong(f"The argument {place} must have at most {schema[high]} {what}; it had {len(value)}.")
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        raise _Wrong(f"The argument {place} must match the pattern {schema['pattern']}.")
