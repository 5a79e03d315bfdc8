"""A plain function as a tool.

    @swirl_env.tool
    def reverse(text: str) -> str:
        "writes a word backwards."
        return text[::-1]

    @swirl_env.tool
    def power(base: float, exponent: int = 2) -> str:
        "raises a number to a power."
        return str(base**exponent)

    gym.make("swirl_env/Ledger-v0", tools=["calculator", reverse, power])

Names and types of the arguments come from the signature, and what the prompt says of them from the section ``Args:`` of the
docstring. By name a function is ``"my_package.my_module:reverse"``.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import msgspec

from swirl_env.arguments import read_arguments
from swirl_env.errors import ConfigError, log_once
from swirl_env.types import UNAVAILABLE, ToolResult

Answering = Callable[..., "str | ToolResult"]
"""What can become a tool: returns the result for its arguments, or raises ``ValueError`` with a sentence that says what is
wrong."""

_ARGUMENT = re.compile(r"^\s+\*{0,2}(\w+)(?: \([^)]*\))?:\s+(.*)$")


class FunctionTool:
    """A tool that calls a function for each query; it can still be called as the function.

    A ``ValueError`` becomes a result with the error ``invalid`` and its message; anything else that is raised is the tool's
    own failure, ``unavailable`` for that query alone.

    Args:
        function: takes the arguments and returns text, or a `ToolResult`.
        tag: what a policy writes; None takes the function's name.
        description: what the prompt says of it; None takes the first line of its docstring.
    """

    def __init__(self, function: Answering, tag: str | None = None, description: str | None = None) -> None:
        self.function = function
        self.tag: str = tag or str(getattr(function, "__name__", ""))
        self.description = description or (inspect.getdoc(function) or "").partition("\n")[0].strip()
        if not self.tag.isidentifier() or not self.description:
            raise ConfigError(
                f"A function becomes a tool by a tag and a description: got {self.tag!r} and {self.description!r}. Give it a "
                f"name and a docstring, or write @tool(tag=..., description=...)."
            )
        refuse_unfinished(function, f"the tool {self.tag!r}")
        arguments = _arguments(function, self.tag)
        self._hints = _hints(function, arguments, self.tag)
        self._positional = len(arguments) == 1 and arguments[0].kind is not inspect.Parameter.KEYWORD_ONLY
        self.parameters: Mapping[str, Any] = _schema(inspect.getdoc(function) or "", arguments, self._hints, self.tag)
        """JSON Schema of the arguments."""

    def run(self, queries: Sequence[str | Mapping[str, Any]]) -> list[ToolResult]:
        """Returns one result per query: arguments, or text that states them."""
        return [self._one(query) for query in queries]

    def __call__(self, *values: Any, **named: Any) -> str | ToolResult:
        """Calls the function itself."""
        return self.function(*values, **named)

    def _one(self, query: str | Mapping[str, Any]) -> ToolResult:
        arguments = read_arguments(self.parameters, query) if isinstance(query, str) else query
        if isinstance(arguments, str):
            return ToolResult(arguments, "invalid")
        try:
            values = {name: msgspec.convert(value, self._hints[name]) for name, value in arguments.items()}
            result = self.function(*values.values()) if self._positional else self.function(**values)
            return result if isinstance(result, ToolResult) else ToolResult(_text(result))
        except ValueError as error:  # also of a value that the type of its argument does not take
            return ToolResult(str(error) or "The tool cannot use this input.", "invalid")
        except Exception as error:
            log_once(self, f"tool {self.tag}", error, query)
            return UNAVAILABLE


def refuse_unfinished(function: Callable[..., Any], what: str) -> None:
    """Refuses a function whose call returns before it has done anything.

    Raises:
        ConfigError: for an async function, or one that yields.
    """
    call = called(function)
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        raise ConfigError(f"The function of {what} is async, and nothing would wait for it. Write it as a plain function.")
    if inspect.isgeneratorfunction(call):
        raise ConfigError(f"The function of {what} yields. Return the whole result in place of its parts.")


def called(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that a call runs in the end: that of a `functools.partial`, the method of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or isinstance(function, type):
        return function
    inner: Callable[..., Any] = getattr(function, "__wrapped__", None) or type(function).__call__  # `functools.cache` wraps
    return inner


def _text(result: object) -> str:
    """Returns what a function returned as text.

    Raises:
        TypeError: for what says nothing.
    """
    if result is None or inspect.isawaitable(result) or isinstance(result, Iterator):
        raise TypeError(f"expected text or a ToolResult, got {type(result).__name__}")
    return str(result)


def _arguments(function: Answering, tag: str) -> list[inspect.Parameter]:
    """Returns the arguments of a function; those of a built-in without a signature are one text."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [inspect.Parameter("query", inspect.Parameter.POSITIONAL_ONLY)]
    nameless = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not parameters or any(p.kind in nameless or (p.kind is p.POSITIONAL_ONLY and len(parameters) > 1) for p in parameters):
        raise ConfigError(
            f"The function of the tool {tag!r} takes at least one argument, each with a name of its own; "
            f"got {inspect.signature(function)}. Write it as f(a, b=...)."
        )
    return parameters


def _hints(function: Answering, parameters: Sequence[inspect.Parameter], tag: str) -> dict[str, Any]:
    """Returns the type of each argument; one without a type hint is a text."""
    target = called(function)
    try:
        hints = typing.get_type_hints(target) if hasattr(target, "__annotations__") else {}
    except (NameError, TypeError) as error:
        raise ConfigError(f"The type hints of the tool {tag!r} cannot be read: {error}.") from error
    return {p.name: hints.get(p.name, str) for p in parameters}


def _schema(doc: str, parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any], tag: str) -> dict[str, Any]:
    """Returns the JSON Schema of the arguments."""
    try:
        schemas, definitions = msgspec.json.schema_components(hints.values(), ref_template="#/$defs/{name}")
    except TypeError as error:
        raise ConfigError(f"The tool {tag!r} has an argument whose type has no form in JSON: {error}.") from error
    notes = _described(doc)
    properties = {
        name: {**schema, "description": notes[name]} if name in notes else schema
        for name, schema in zip(hints, schemas, strict=True)
    }
    required = [p.name for p in parameters if p.default is p.empty]
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {**schema, "$defs": definitions} if definitions else schema


def _described(doc: str) -> dict[str, str]:
    """Returns what the section ``Args:`` of a docstring says of each argument, in one line."""
    notes: dict[str, str] = {}
    name = None
    _, _, section = doc.partition("\nArgs:\n")
    for line in section.splitlines():
        if not line[:1].isspace():
            break
        argument = _ARGUMENT.match(line)
        if argument:
            name = argument[1]
            notes[name] = argument[2].strip()
        elif name:
            notes[name] = f"{notes[name]} {line.strip()}".strip()
    return notes


@overload
def tool(function: Answering, /) -> FunctionTool: ...
@overload
def tool(*, tag: str | None = None, description: str | None = None) -> Callable[[Answering], FunctionTool]: ...
def tool(function: Answering | None = None, /, *, tag: str | None = None, description: str | None = None) -> Any:
    """Makes a tool of a function: ``@tool``, or ``@tool(tag="reverse", description="...")``."""
    if function is None:
        return lambda function: _tool(function, tag, description)
    return _tool(function, tag, description)


def _tool(function: Answering, tag: str | None, description: str | None) -> Any:
    if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), "") == "self":
        return _ToolMethod(function, tag, description)
    return FunctionTool(function, tag, description)


class _ToolMethod:
    """A tool in the body of a class: each object of the class has its own, as it has its methods."""

    def __init__(self, function: Any, tag: str | None, description: str | None) -> None:
        self.function, self.tag, self.description = function, tag, description

    def __get__(self, owner: object, kind: type | None = None) -> Any:
        return self if owner is None else FunctionTool(self.function.__get__(owner, kind), self.tag, self.description)
