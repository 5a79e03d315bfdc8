"""A state as the messages of a request, and the message of a reply as the text of an action."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from swirl_env.agents.openai.replies import Message, reasoning_of
from swirl_env.arguments import loads
from swirl_env.episodes.formats.native import arguments_text
from swirl_env.episodes.transcript import result_of
from swirl_env.protocols import ActionFormat, OffersFunctions
from swirl_env.registry import format_of, make_format
from swirl_env.types import Role, Settings, State, ToolCall

ToolRole = Literal["user", "tool"]


def functions_of(settings: Settings) -> list[dict[str, Any]]:
    """Returns the tools that the server offers to the model (``tools`` of a request); none if the prompt offers them."""
    functions: list[dict[str, Any]] = json.loads(settings.functions) if settings.functions else []
    return functions


def stops_of(settings: Settings) -> list[str]:
    """Returns the strings at which a server stops. Structured calls end their turn, and servers want them whole."""
    fmt = format_of(settings)
    ending = fmt.answer("x")
    return [stop for stop in fmt.stop if not settings.functions or ending.endswith(stop)]


def messages_of(
    state: State, system: str | None, tool_role: ToolRole, shots: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Returns the messages of a request.

    Args:
        state: the state to act in.
        system: a system message; None for none.
        tool_role: role of results that answer no structured call.
        shots: messages that stand between the system message and the episode.
    """
    opening: list[dict[str, Any]] = [{"role": "system", "content": system}] if system is not None else []
    messages = [*opening, *shots]
    fmt = format_of(state.settings)
    if state.settings.functions and isinstance(fmt, OffersFunctions):
        return messages + _structured(state, fmt, fmt)
    roles: dict[Role, str] = {"user": "user", "assistant": "assistant", "tool": tool_role}
    return messages + [{"role": roles[turn.role], "content": turn.text} for turn in state.turns]


def _structured(state: State, fmt: ActionFormat, functions: OffersFunctions) -> list[dict[str, Any]]:
    """Returns messages in which calls are objects and results name the call that they answer."""
    messages: list[dict[str, Any]] = []
    call_id, steps = "", iter(state.steps)
    for n, turn in enumerate(state.turns):
        if turn.role == "tool":
            step = next(steps, None)
            content = turn.text if step is None else result_of(step)
            answered = {"role": "tool", "tool_call_id": call_id, "content": content}
            messages.append(answered if call_id else {"role": "user", "content": turn.text})
            continue
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        if turn.role == "assistant":
            call = fmt.parse(turn.text)
            call_id = f"call{n:05d}" if isinstance(call, ToolCall) else ""
            if isinstance(call, ToolCall):
                arguments = json.dumps(functions.arguments(call.tool, call.query), ensure_ascii=False)
                function = {"name": call.tool, "arguments": arguments}
                message["content"] = turn.text[: call.start].rstrip()
                message["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
        messages.append(message)
    return messages


def text_of(message: Message, settings: Settings) -> str:
    """Returns a message as the model wrote it, with its reasoning and its first tool call put back where servers cut them out."""
    text = message.content if isinstance(message.content, str) else ""
    if reasoning := reasoning_of(message):
        text = f"<think>\n{reasoning.strip()}\n</think>\n\n{text}"
    if not message.tool_calls:
        return text
    call = message.tool_calls[0].function
    if settings.functions:
        gap = "\n" if text.strip() and not text[-1].isspace() else ""
        return f"{text}{gap}{_call_text(call.name, call.arguments)}"
    return text + make_format(settings.format, settings.tools).call(call.name, _query(call.arguments))


def _call_text(name: str, arguments: str | dict[str, Any]) -> str:
    """Returns a structured call in tags; arguments that are no JSON stay as they are, so that they are corrected."""
    value = loads(arguments) if isinstance(arguments, str) else arguments
    written = arguments_text(value) if isinstance(value, dict) else arguments
    return f'<tool_call>\n{{"name": {arguments_text(name)}, "arguments": {written}}}\n</tool_call>'


def _query(arguments: str | dict[str, Any]) -> str:
    """Returns the one string argument of a tool call, or all arguments as they came."""
    value = loads(arguments) if isinstance(arguments, str) else arguments
    values = list(value.values()) if isinstance(value, dict) else []
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def completed(text: str, finish_reason: str | None, settings: Settings) -> str:
    """Returns the text with the stop string at its end that servers cut off by default."""
    fmt = format_of(settings)
    stops: Sequence[str] = fmt.stop
    if finish_reason != "stop" or any(text.endswith(stop) for stop in stops):
        return text
    malformed = type(fmt.parse(text))
    for stop in stops:
        if fmt.parse(text).end == len(text) and type(fmt.parse(text + stop)) is not malformed:
            return text + stop
    return text
