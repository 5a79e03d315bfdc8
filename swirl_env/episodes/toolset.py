"""The tools of an engine: made from their specs, by tag, with what action formats and chat templates are told of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from swirl_env.arguments import Schema
from swirl_env.episodes.formats import ANSWER
from swirl_env.episodes.reasoning import THINK
from swirl_env.errors import ConfigError
from swirl_env.protocols import ActionFormat, OffersFunctions, TaskSource, Tool
from swirl_env.registry import Spec, conforming, make

_TAG = re.compile(r"[A-Za-z_][\w.-]*")


def make_tools(specs: Sequence[Spec], tasks: TaskSource) -> dict[str, Tool]:
    """Returns the tools by tag.

    Raises:
        ConfigError: if a tag cannot be one or is taken.
    """
    if isinstance(specs, str | Mapping):
        raise ConfigError(f"tools is a list of names, mappings or tools; got {specs!r} alone. Write tools=[{specs!r}].")
    tools: dict[str, Tool] = {}
    for spec in specs:
        tool = conforming("tool", make("tool", spec, corpus=tasks.corpus))
        if not isinstance(tool.tag, str) or not _TAG.fullmatch(tool.tag):
            raise ConfigError(f"The tag of a tool is made of letters, digits and '_', not a digit first; got {tool.tag!r}.")
        if tool.tag in tools or tool.tag in (ANSWER, THINK):
            raise ConfigError(f"Every tool needs a tag of its own; {tool.tag!r} is taken. Give one of them another tag.")
        tools[tool.tag] = tool
    return tools


def schema_text(tag: str, schema: Schema) -> str:
    """Returns the JSON Schema of a tool's arguments as text.

    Raises:
        ConfigError: for anything else than the schema of an object.
    """
    try:
        text = json.dumps(schema, sort_keys=True)
        named = isinstance(schema, Mapping) and all(isinstance(part, Mapping) for part in schema.get("properties", {}).values())
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"The parameters of the tool {tag!r} are no JSON Schema: {error}.") from error
    if not named:
        raise ConfigError(
            f"The parameters of the tool {tag!r} are a JSON Schema object, "
            f'{{"type": "object", "properties": {{...}}, "required": [...]}}; got {schema!r:.80}.'
        )
    return text


def functions_text(fmt: ActionFormat, tools: Sequence[Tool]) -> str:
    """Returns the tools as the JSON text that chat templates get; empty for formats that say all in the prompt."""
    return json.dumps(fmt.functions(tools), ensure_ascii=False) if tools and isinstance(fmt, OffersFunctions) else ""
