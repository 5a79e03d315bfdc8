"""The format of the paper: one tag per tool."""

from __future__ import annotations

from collections.abc import Sequence

from swirl_env.arguments import example, schema_of, single
from swirl_env.episodes.formats.scanner import ANSWER, TagScanner, unread
from swirl_env.episodes.reasoning import CLOSE
from swirl_env.protocols import Tool
from swirl_env.types import Answer, Malformed, ParsedAction, ToolCall


class XmlFormat:
    """The paper's format: ``<search_query>...</search_query>``, ``<math_exp>...</math_exp>``, ``<answer>...</answer>``.

    A tool with typed arguments takes a JSON object between its tags or, if it needs one argument only, the bare text.
    """

    def __init__(self, tools: Sequence[str]) -> None:
        self.scanner = TagScanner((*tools, ANSWER))
        self._plain = self.scanner.plain
        self.stop = tuple(f"</{tag}>" for tag in self.scanner.tags)
        self._forms = ", ".join(f"<{tag}>...</{tag}>" for tag in self.scanner.tags)

    def parse(self, text: str, opened: bool = False) -> ParsedAction:
        """Reads an action (see `ActionFormat.parse`)."""
        plain = None if opened else self._plain(text)
        if plain is not None:  # as most actions
            end = plain.end()
            if end == len(text) or text.find(CLOSE, end) < 0:
                tag, content = plain.groups()
                if tag != ANSWER:
                    return ToolCall(tag, content.strip(), plain.start(1) - 1, end)
        element = self.scanner.first(text, opened)
        if isinstance(element, str):
            return Malformed(unread(element), 0, len(text))
        tag, start, inner, inner_end, end = element
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
        lines = [f"- <{tool.tag}>{_content(tool)}</{tool.tag}>: {tool.description}" for tool in tools]
        return "\n".join([*lines, f"- <{ANSWER}>...</{ANSWER}>: your final answer, as short as possible."])

    def correction(self, malformed: Malformed) -> str:
        """The environment's reply to an action that could not be read."""
        return f"{malformed.reason} Write exactly one of {self._forms}."


def _content(tool: Tool) -> str:
    """Returns what to write between the tags of a tool: its arguments as JSON if there are several."""
    schema = schema_of(tool)
    return "..." if schema is None or single(schema) else example(schema)
