"""Text -> `ToolCall`, `Answer` or `Malformed`: pure functions, total over all strings, linear in their length.

Both formats share one rule: reading from the left, the first element that is complete decides.
So `parse(text + more) == parse(text)` whenever `text` already holds a call or an answer, and a generation that stops at the
first closing tag means the same as one that runs on. Think blocks are not read (`swirl_env.episodes.reasoning`); the one
exception to the rule is a ``</think>`` in `more` that closes no block, which turns all text before it into reasoning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from swirl_env.episodes.reasoning import CLOSE, THINK
from swirl_env.protocols import Tool
from swirl_env.types import Answer, Malformed, ParsedAction, ToolCall

ANSWER = "answer"
Element = tuple[str, int, int, int, int]
"""``(tag, start, inner_start, inner_end, end)``"""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""What a JSON escape can write and no file can hold."""


class TagScanner:
    """Finds the first complete ``<tag>...</tag>`` among a fixed set of tags, outside think blocks."""

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = tuple(tags)
        names = "|".join(re.escape(tag) for tag in sorted({*self.tags, THINK}, key=len, reverse=True))
        self._token = re.compile(f"<(/?)({names})>")
        self._plain = re.compile(f"[^<]*+<(?!{THINK}>)({names})>([^<]*+)</\\1>")
        """A text that holds no other ``<`` up to the end of its first element, as most actions do."""

    def first(self, text: str, opened: bool = False) -> Element | str:
        """Returns the first complete element, or the tag that was left open, or ``""``.

        Of several openings the last before the closing counts: the ones before it are prose about tags. An element with a
        think block inside is not complete.

        Args:
            text: what the policy wrote.
            opened: whether it begins inside a think block.
        """
        plain = None if opened else self._plain.match(text)
        if plain is not None:  # half the time that the tokens take
            end = plain.end()
            if end == len(text) or text.find(CLOSE, end) < 0:
                tag, (inner, inner_end) = plain[1], plain.span(2)
                return tag, inner - len(tag) - 2, inner, inner_end, end
        starts: dict[str, tuple[int, int]] = {}
        thinking, last = opened, THINK if opened else ""
        first: Element | None = None
        for token in self._token.finditer(text):
            closing, tag = token.groups()
            if tag == THINK:
                starts.clear()
                if closing:
                    # One that closes no block was opened by the generation prompt: all of the text before it is reasoning.
                    first = first if thinking else None
                    last = ""
                elif not first:
                    last = THINK
                thinking = not closing
            elif thinking or first:
                continue
            elif not closing:
                starts[tag] = token.span()
                last = tag
            elif tag in starts:
                start, inner = starts[tag]
                first = tag, start, inner, token.start(), token.end()
                if text.find(CLOSE, token.end()) < 0:
                    return first
        return first or last


class XmlFormat:
    """The paper's format: ``<search_query>...</search_query>``, ``<math_exp>...</math_exp>``, ``<answer>...</answer>``."""

    def __init__(self, tools: Sequence[str]) -> None:
        self.scanner = TagScanner((*tools, ANSWER))
        self.stop = tuple(f"</{tag}>" for tag in self.scanner.tags)
        self._forms = ", ".join(f"<{tag}>...</{tag}>" for tag in self.scanner.tags)

    def parse(self, text: str, opened: bool = False) -> ParsedAction:
        """Reads an action (see `ActionFormat.parse`)."""
        found = self.scanner.first(text, opened)
        if isinstance(found, str):
            return Malformed(_unread(found), 0, len(text))
        tag, start, inner, inner_end, end = found
        content = text[inner:inner_end].strip()
        if tag != ANSWER:
            return ToolCall(tag, content, start, end)
        if not content:
            return Malformed("The answer was empty.", start, end)
        return Answer(content, start, end)

    def call(self, tool: str, query: str) -> str:
        """Writes a tool call."""
        return f"<{tool}>{query}</{tool}>"

    def answer(self, text: str) -> str:
        """Writes a final answer."""
        return f"<{ANSWER}>{text}</{ANSWER}>"

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Tells a policy how to write calls and answers."""
        lines = [f"- <{tool.tag}>...</{tool.tag}>: {tool.description}" for tool in tools]
        return "\n".join([*lines, f"- <{ANSWER}>...</{ANSWER}>: your final answer, as short as possible."])

    def correction(self, malformed: Malformed) -> str:
        """The environment's reply to an action that could not be read."""
        return f"{malformed.reason} Write exactly one of {self._forms}."


class HermesFormat:
    """JSON tool calls of current open models: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``.

    A single string argument becomes the query itself; several become the JSON object.
    """

    stop = ("</tool_call>", f"</{ANSWER}>")

    def __init__(self, tools: Sequence[str]) -> None:
        self.tools = tuple(tools)
        self.scanner = TagScanner(("tool_call", ANSWER))

    def parse(self, text: str, opened: bool = False) -> ParsedAction:
        """Reads an action (see `ActionFormat.parse`)."""
        found = self.scanner.first(text, opened)
        if isinstance(found, str):
            return Malformed(_unread(found), 0, len(text))
        tag, start, inner, inner_end, end = found
        content = text[inner:inner_end].strip()
        if tag == ANSWER:
            return Answer(content, start, end) if content else Malformed("The answer was empty.", start, end)
        read = _read_json_call(content)
        if isinstance(read, str):
            return Malformed(read, start, end)
        if read[0] not in self.tools:
            return Malformed("There is no tool of that name.", start, end)
        return ToolCall(read[0], _LONE_SURROGATE.sub("\ufffd", read[1]), start, end)

    def call(self, tool: str, query: str) -> str:
        """Writes a tool call."""
        body = json.dumps({"name": tool, "arguments": {"query": query}}, ensure_ascii=False)
        # A "</tool_call>" inside the query would end the call early; the escape is the same string to a JSON reader.
        return f"<tool_call>{body.replace('<', chr(92) + 'u003c')}</tool_call>"

    def answer(self, text: str) -> str:
        """Writes a final answer."""
        return f"<{ANSWER}>{text}</{ANSWER}>"

    def instructions(self, tools: Sequence[Tool]) -> str:
        """Tells a policy how to write calls and answers."""
        lines = [f'- "{tool.tag}": {tool.description}' for tool in tools]
        form = '<tool_call>{"name": "<tool>", "arguments": {"query": "..."}}</tool_call>'
        head = f"To use a tool, write {form}. The tools:"
        end = f"To finish, write <{ANSWER}>...</{ANSWER}> with your final answer, as short as possible."
        return "\n".join([head, *lines, end])

    def correction(self, malformed: Malformed) -> str:
        """The environment's reply to an action that could not be read."""
        names = ", ".join(f'"{name}"' for name in self.tools)
        return f"{malformed.reason} Write one <tool_call> with a JSON object (tools: {names}), or one <{ANSWER}>."


def _unread(opened: str) -> str:
    return f"<{opened}> was opened but not closed." if opened else "No tool call and no answer was found."


def _read_json_call(content: str) -> tuple[str, str] | str:
    """Returns ``(name, query)``, or the sentence that says what is wrong."""
    try:
        call = json.loads(content)
    except (ValueError, RecursionError):
        return "The tool call was not valid JSON."
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return 'The tool call had no "name".'
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        return call["name"], arguments
    if not isinstance(arguments, dict):
        return 'The "arguments" of the tool call were not an object.'
    values = list(arguments.values())
    if len(values) == 1 and isinstance(values[0], str):
        return call["name"], values[0].strip()
    return call["name"], json.dumps(arguments, ensure_ascii=False)
