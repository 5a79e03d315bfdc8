"""JSON tool calls of current open models, as in Hermes and Qwen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from swirl_env.arguments import LOST_BACKSLASH, has_lost_backslash, loads, named, scalar_text, schema_of, single, spell_controls
from swirl_env.episodes.formats.scanner import ANSWER, TagScanner, unread
from swirl_env.episodes.reasoning import reasoning_end
from swirl_env.protocols import Tool
from swirl_env.types import Answer, Malformed, ParsedAction, ToolCall

_FENCE = "```"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""What a JSON escape can write and no file can hold."""
QUERY = "query"
"""The name under which a tool without typed arguments takes its text; other names of a single argument are taken too."""


class HermesFormat:
    """JSON tool calls: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``.

    A tool without typed arguments takes one text, whatever its name in the call. ``parameters`` is read as ``arguments``, an
    object written as a JSON string is decoded, and a number is taken as the text that it is written with. A code fence around the
    call, a list of one call, and ``{"function": {"name": ..., "arguments": ...}}`` are read too.

    Args:
        tools: tags of the tools.
        parameters: tag -> JSON Schema of the arguments, for tools with typed arguments.
    """

    stop: tuple[str, ...] = ("</tool_call>", f"</{ANSWER}>")

    def __init__(self, tools: Sequence[str], parameters: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.tools = tuple(tools)
        self.parameters = dict(parameters or {})
        self.scanner = TagScanner(("tool_call", ANSWER))

    def parse(self, text: str, opened: bool = False) -> ParsedAction:
        """Reads an action (see `ActionFormat.parse`)."""
        element = self.scanner.first(text, opened)
        if isinstance(element, str):
            return Malformed(unread(element), 0, len(text))
        tag, start, inner, inner_end, end = element
        content = text[inner:inner_end].strip()
        if tag == ANSWER:
            return Answer(content, start, end) if content else Malformed("The answer was empty.", start, end)
        return self._call(content, start, end)

    def _call(self, content: str, start: int, end: int) -> ParsedAction:
        call = loads(_unfenced(content))
        if has_lost_backslash(content):
            return Malformed(LOST_BACKSLASH, start, end)
        if call is None:
            return Malformed("The tool call was not valid JSON.", start, end)
        if isinstance(call, list) and call and all(isinstance(one, dict) for one in call):
            if len(call) > 1:
                return Malformed(f"The message held {len(call)} tool calls; it may hold one.", start, end)
            call = call[0]
        if isinstance(call, dict) and isinstance(call.get("function"), dict) and "name" not in call:
            call = call["function"]
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return Malformed('The tool call had no "name".', start, end)
        return self._named(call["name"], call["arguments"] if "arguments" in call else call.get("parameters"), start, end)

    def _named(self, name: str, arguments: Any, start: int, end: int) -> ParsedAction:
        if name not in self.tools:
            return Malformed("There is no tool of that name.", start, end)
        read = self._query(name, arguments)
        if isinstance(read, Malformed):
            return Malformed(read.reason, start, end)
        return ToolCall(name, whole_text(read), start, end)

    def _query(self, tag: str, arguments: Any) -> str | Malformed:
        """Returns the arguments of a call as text: a JSON object, or the value alone for a tool that takes one text."""
        schema = self.parameters.get(tag)
        only = QUERY if schema is None else single(schema)
        inner = loads(arguments) if isinstance(arguments, str) else None
        if isinstance(arguments, str) and arguments.lstrip().startswith('{"') and has_lost_backslash(arguments):
            return Malformed(LOST_BACKSLASH, 0, 0)
        if isinstance(inner, dict) and (schema is not None or len(inner) == 1):
            arguments = inner
        if only and (text := scalar_text(arguments)) is not None:
            return text if text.strip() else _missing(tag, only)
        if (arguments is None or arguments in ({}, "")) and (schema is None or schema.get("required")):
            return _missing(tag, *([QUERY] if schema is None else schema.get("required", ())))
        if arguments is None or arguments == "":
            arguments = {}
        if not isinstance(arguments, dict):
            return Malformed('The "arguments" of the tool call were not an object.', 0, 0)
        if only and len(arguments) == 1:
            ((name, value),) = arguments.items()
            text = scalar_text(value)
            # The text alone reads better in the transcript, unless it would be read as the arguments themselves.
            if text is not None and (schema is None or (name in (only, QUERY) and not text.lstrip().startswith("{"))):
                return text.strip()
            if schema is not None and name == QUERY:
                arguments = {only: value}
        if schema is None:
            if len(arguments) == 1:
                return Malformed(f"The argument {named(next(iter(arguments)))} was not a text.", 0, 0)
            fields = ", ".join(named(name) for name in arguments)
            return Malformed(f'The tool takes one text, {{"{QUERY}": "..."}}; the call had the arguments {fields}.', 0, 0)
        return spell_controls(json.dumps(arguments, ensure_ascii=False))

    def call(self, tool: str, query: str) -> str:
        """Writes a tool call."""
        arguments: Any = {QUERY: query}
        if tool in self.parameters and isinstance(inner := loads(query), dict):
            arguments = inner
        body = spell_controls(json.dumps({"name": tool, "arguments": arguments}, ensure_ascii=False))
        # A "</tool_call>" inside the query would end the call early; the escape is the same string to a JSON reader.
        return f"<tool_call>{body.replace('<', chr(92) + 'u003c')}</tool_call>"

    def answer(self, text: str) -> str:
        """Writes a final answer."""
        return f"<{ANSWER}>{text}</{ANSWER}>"

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Tells a policy how to write calls and answers, with the JSON Schema of typed arguments."""
        lines = [f'- "{tool.tag}": {tool.description}{_advertised(tool)}' for tool in tools]
        form = '<tool_call>{"name": "<tool>", "arguments": {"query": "..."}}</tool_call>'
        head = f"To use a tool, write {form}. The tools:"
        end = f"To finish, write <{ANSWER}>...</{ANSWER}> with your final answer, as short as possible."
        return "\n".join([head, *lines, end])

    def correction(self, malformed: Malformed) -> str:
        """The environment's reply to an action that could not be read."""
        names = ", ".join(f'"{name}"' for name in self.tools)
        return f"{malformed.reason} Write one <tool_call> with a JSON object (tools: {names}), or one <{ANSWER}>."


class HermesBareFormat(HermesFormat):
    """`HermesFormat` that also reads a call without its tag: a JSON object with a name on the last line or in a last fence."""

    def parse(self, text: str, opened: bool = False) -> ParsedAction:
        """Reads an action (see `ActionFormat.parse`); a tagged call or answer comes first."""
        read = super().parse(text, opened)
        if not isinstance(read, Malformed) or (read.start, read.end) != (0, len(text)):
            return read
        start, end = _last_part(text)
        start = max(start, reasoning_end(text, opened))
        start += len(text[start:end]) - len(text[start:end].lstrip())
        call = loads(_unfenced(text[start:end])) if text[start:end].startswith(("{", _FENCE)) else None
        if not isinstance(call, dict) or "name" not in call:
            return read
        return self._call(text[start:end], start, end)


def whole_text(text: str) -> str:
    """Returns text out of JSON with lone surrogates replaced."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def _last_part(text: str) -> tuple[int, int]:
    """Returns where the last line, or a code fence at the end of a text, begins and ends."""
    end = len(text.rstrip())
    if text.endswith(_FENCE, 0, end):
        return max(text.rfind(_FENCE, 0, end - len(_FENCE)), 0), end
    return text.rfind("\n", 0, end) + 1, end


def _unfenced(text: str) -> str:
    """Returns what stands in a code fence around a whole text; a text without one as it is."""
    if not (text.startswith(_FENCE) and text.endswith(_FENCE) and len(text) >= 2 * len(_FENCE)):
        return text
    _, _, inner = text[: -len(_FENCE)].partition("\n")
    return inner


def _missing(tag: str, *names: str) -> Malformed:
    fields = ", ".join(f'"{name}": ...' for name in names)
    return Malformed(f'The call of "{tag}" had no arguments; give "arguments": {{{fields}}}.', 0, 0)


def _advertised(tool: Tool) -> str:
    schema = schema_of(tool)
    return "" if schema is None else f" Arguments: {json.dumps(schema, ensure_ascii=False)}"
