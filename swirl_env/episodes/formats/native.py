"""Tool calls as the model's own chat template has them: the template offers the tools, and each family has its notation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from swirl_env.arguments import DECODER, Schema, loads, scalar_text, schema_of, single, spell_controls
from swirl_env.episodes.formats.hermes import QUERY, HermesFormat, whole_text
from swirl_env.episodes.formats.scanner import ANSWER, unread
from swirl_env.episodes.reasoning import CLOSE, THINK
from swirl_env.errors import ConfigError
from swirl_env.protocols import Tool
from swirl_env.types import Answer, Malformed, ParsedAction

CALL = "tool_call"
_ANSWERS: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": ANSWER,
        "description": "Gives the final answer, as short as possible, and ends the conversation.",
        "parameters": {
            "type": "object",
            "properties": {ANSWER: {"type": "string", "description": "the final answer"}},
            "required": [ANSWER],
        },
    },
}
"""How a final answer is offered among the tools: models that were trained to call functions may write nothing else."""
_MARKUP = re.compile(r"<(?=[A-Za-z/|!?_]|[^\x00-\x7f])")
_TAG = rf"<(?P<closing>/?)(?P<tag>{CALL}|{ANSWER}|{THINK})>"
_BARE = r"(?P<bare>(?:^[ \t]*|\[TOOL_CALLS\]\s*|<\|python_tag\|>\s*){name}(?:\{{(?=\s*[\"}}])|\[(?=\s*\{{\s*\")))"
_BUILT_IN = r"(?P<built_in><\|python_tag\|>\s*(?P<called>{names})\.call\()"
_NAMED_ARGUMENT = re.compile(r"\s*(\w+)\s*=\s*")


class _Element(NamedTuple):
    """A complete element of an action: its tag (`CALL` for every notation of calls), its content and its span."""

    tag: str
    content: Any
    start: int
    end: int


class NativeFormat(HermesFormat):
    """Tool calls in the notation of the model's family; the tools are offered by its chat template (see `functions`).

    Read are, outside think blocks:

    - ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` (Hermes, Qwen);
    - the same object bare, at the beginning of a line, with ``arguments`` or ``parameters`` (Llama 3.2, small models), and
      behind ``<|python_tag|>``, where ``NAME.call(query="...")`` is read too (Llama 3.1);
    - ``[TOOL_CALLS][{"name": ..., "arguments": {...}}]`` and ``[TOOL_CALLS]NAME[ARGS]{...}`` (Mistral), with or without
      the control tokens, which decoding leaves out;
    - ``<answer>...</answer>``, and a call of the function ``answer`` in any of these notations.

    The first that is complete decides. A bare object is complete with its last brace, and none counts inside a tag. An object
    that names no tool and has no arguments is no call.

    Args:
        tools: tags of the tools.
        parameters: tag -> JSON Schema of the arguments, for tools with typed arguments.

    Raises:
        ConfigError: if a tool has the name of the function that answers.
    """

    def __init__(self, tools: Sequence[str], parameters: Mapping[str, Schema] | None = None) -> None:
        if ANSWER in tools:
            raise ConfigError(f"With format=native a call of {ANSWER!r} is the final answer. Give the tool another tag.")
        super().__init__(tools, {tag: schema for tag, schema in (parameters or {}).items() if tag in tools})
        self._names = (*self.tools, ANSWER)
        names = "|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True))
        bare = _BARE.format(name=rf"(?:(?P<name>{names})(?:\[ARGS\])?\s*)?")
        self._token = re.compile("|".join((_TAG, bare, _BUILT_IN.format(names=names))), re.MULTILINE)

    def parse(self, text: str, opened: bool = False) -> ParsedAction:
        """Reads an action (see `ActionFormat.parse`)."""
        element = self._first(text, opened)
        if isinstance(element, str):
            return Malformed(element, 0, len(text))
        tag, content, start, end = element
        if tag == ANSWER:
            return Answer(content, start, end) if content else Malformed("The answer was empty.", start, end)
        if isinstance(content, list) and len(content) > 1:
            return Malformed(f"The message held {len(content)} tool calls.", start, end)
        return self._call(content if isinstance(content, str) else json.dumps(content), start, end)

    def _first(self, text: str, opened: bool) -> _Element | str:
        """Returns the first complete element, or the sentence that says why there is none."""
        starts: dict[str, tuple[int, int]] = {}
        thinking, last = opened, THINK if opened else ""
        first: _Element | None = None
        broken = False
        at = 0
        while token := self._token.search(text, at):
            at = token.end()
            tag = token["tag"]
            if tag == THINK:
                starts.clear()
                if token["closing"]:  # one that closes no block: all of the text before it is reasoning
                    first, last, broken = first if thinking else None, "", broken and thinking
                elif not first:
                    last = THINK
                thinking = not token["closing"]
            elif thinking or first:
                continue
            elif tag and not token["closing"]:
                starts[tag], last = token.span(), tag
            elif tag:
                if tag in starts:
                    start, inner = starts[tag]
                    first = _Element(tag, text[inner : token.start()].strip(), start, at)
            elif not starts:
                element, at = self._untagged(text, token)
                first = element if isinstance(element, _Element) else None
                broken = broken or element is None
            if first and text.find(CLOSE, first.end) < 0:
                return first
        return first or (unread(last) if last or not broken else "The tool call was not valid JSON.")

    def _untagged(self, text: str, token: re.Match[str]) -> tuple[_Element | bool | None, int]:
        """Returns the call that a token begins, False if it is none, None if it cannot be read; and where to read on."""
        start = token.start() + len(token[0]) - len(token[0].lstrip())
        if token["called"]:
            return _read_built_in(text, token["called"], start, token.end())
        try:
            value, end = DECODER.raw_decode(text, token.end() - 1)
        except json.JSONDecodeError as error:
            # What was read once is not read again, so that the whole takes linear time.
            return None, max(error.pos, token.end())
        except (ValueError, RecursionError):
            return None, len(text)
        if token["name"]:
            value = {"name": token["name"], "arguments": value}
        items = [_unwrapped(item) for item in (value if isinstance(value, list) else [value])]
        if not all(_is_call(item, self._names) for item in items):
            return False, end
        return _Element(CALL, items if len(items) > 1 else items[0], start, end), end

    def _named(self, name: str, arguments: Any, start: int, end: int) -> ParsedAction:
        if name != ANSWER:
            return super()._named(name, arguments, start, end)
        text = _answer_of(arguments)
        if text is None:
            form = f'{{"name": "{ANSWER}", "arguments": {{"{ANSWER}": "..."}}}}'
            return Malformed(f"The answer was no text alone; write {form}.", start, end)
        return Answer(text, start, end) if text else Malformed("The answer was empty.", start, end)

    def arguments(self, tool: str, query: str) -> dict[str, Any]:
        """Returns the arguments of a call as an object: what the text of a `ToolCall` stands for."""
        schema = self.parameters.get(tool)
        inner = loads(query) if schema is not None else None
        if isinstance(inner, dict):
            return inner
        return {QUERY if schema is None else single(schema) or QUERY: query}

    def call(self, tool: str, query: str) -> str:
        """Writes a tool call in tags; the model's own template writes it in its own way."""
        body = f'{{"name": {json.dumps(tool)}, "arguments": {arguments_text(self.arguments(tool, query))}}}'
        return f"<{CALL}>\n{body}\n</{CALL}>"

    def functions(self, tools: Sequence[Tool]) -> list[dict[str, Any]]:
        """Returns the tools, and the function that answers, as chat templates and servers are told of them."""
        offered = [
            {
                "type": "function",
                "function": {"name": tool.tag, "description": tool.description, "parameters": _parameters(tool)},
            }
            for tool in tools
        ]
        return [*offered, _ANSWERS]

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Tells a policy what it may call and how it answers; how calls are written is the template's business."""
        lines = [f"- a call of {tool.tag}: {tool.description}" for tool in tools]
        return "\n".join([*lines, f"- a call of {ANSWER}, or <{ANSWER}>...</{ANSWER}>: your final answer, as short as possible."])

    def correction(self, malformed: Malformed) -> str:
        """The environment's reply to an action that could not be read."""
        names = ", ".join(f'"{name}"' for name in self.tools)
        form = '{"name": "...", "arguments": {...}}'
        return f'{malformed.reason} Write one tool call, {form} (tools: {names}), or call "{ANSWER}" with your final answer.'


def arguments_text(arguments: Mapping[str, Any] | str) -> str:
    """Returns arguments, or a name, as JSON in which no tag and no control token can be read."""
    return _MARKUP.sub(r"\\u003c", spell_controls(json.dumps(arguments, ensure_ascii=False)))


def _read_built_in(text: str, tool: str, start: int, at: int) -> tuple[_Element | None, int]:
    """Reads ``query="...", n=3)`` behind ``NAME.call(``."""
    arguments: dict[str, Any] = {}
    while argument := _NAMED_ARGUMENT.match(text, at):
        try:
            arguments[argument[1]], at = DECODER.raw_decode(text, argument.end())
        except json.JSONDecodeError as error:
            return None, max(error.pos, argument.end())
        except (ValueError, RecursionError):
            return None, len(text)
        at += text.startswith(",", at)
    if not text.startswith(")", at):
        return None, at
    return _Element(CALL, {"name": tool, "arguments": arguments}, start, at + 1), at + 1


def _answer_of(arguments: Any) -> str | None:
    """Returns the answer that a call states, whatever its argument is called; None if it is no text or number alone."""
    inner = loads(arguments) if isinstance(arguments, str) else arguments
    if isinstance(inner, dict) and len(inner) == 1:
        (arguments,) = inner.values()
    text = "" if arguments in (None, {}) else scalar_text(arguments)
    return None if text is None else whole_text(text).strip()


def _unwrapped(item: Any) -> Any:
    """Returns the call inside ``{"type": "function", "function": {...}}``; other values as they are."""
    inner = item.get("function") if isinstance(item, dict) else None
    return inner if isinstance(inner, dict) else item


def _is_call(item: Any, names: Sequence[str]) -> bool:
    """Returns whether an object is meant as a call: by its arguments, or by its name."""
    return (
        isinstance(item, dict)
        and isinstance(name := item.get("name"), str)
        and bool(name in names or {"arguments", "parameters"} & item.keys())
    )


def _parameters(tool: Tool) -> Schema:
    schema = schema_of(tool)
    return schema or {"type": "object", "properties": {QUERY: {"type": "string"}}, "required": [QUERY]}
