"""Worked conversations that stand before an episode as messages of their own: few-shot examples in the model's own layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from swirl_env.episodes.formats.scanner import ANSWER
from swirl_env.errors import ConfigError
from swirl_env.texts import read_text

_FORM = (
    'a JSON list of messages such as {"role": "user", "content": "..."}, {"role": "assistant", "content": "...", '
    '"tool_calls": [{"name": "...", "arguments": {...}}]} and {"role": "tool", "content": "..."}; the user begins, and an '
    'assistant\'s message without calls, or a call of "answer", ends'
)


def read_shots(value: str) -> list[dict[str, Any]]:
    """Returns the messages that an option means, as chat templates take them.

    Args:
        value: a JSON list of messages, the path of a file with one, or a name (see `swirl_env.texts`). A call of an assistant's
            message is ``{"name", "arguments"}``, or the same as a ``function``; the messages of the role ``tool`` behind it
            answer the calls in their order. A message of the role ``tool`` behind an assistant's text answers the call that
            is written there, for models that write calls in another way than their template.

    Raises:
        ConfigError: for a text that is no such list.
        DataNotFound, UnknownName: as `read_text` does.
    """
    text = read_text(value, "shots")
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"shots is {_FORM}; it is no JSON: {str(error)[:100]}.") from error
    if not isinstance(messages, list) or not messages:
        raise ConfigError(f"shots is {_FORM}; got {text!r:.60}.")
    open_calls: list[tuple[str, str]] = []
    read: list[dict[str, Any]] = []
    for message in messages:
        read.append(_message(message, read, open_calls))
    roles = [message["role"] for message in read]
    if (roles[0], roles[-1]) != ("user", "assistant") or open_calls:
        raise ConfigError(f"shots is {_FORM}; it goes from {roles[0]} to {roles[-1]} with {len(open_calls)} open calls.")
    return read


def for_server(messages: Sequence[dict[str, Any]], tool_role: str) -> list[dict[str, Any]]:
    """Returns messages as an OpenAI-compatible request takes them.

    Args:
        messages: as `read_shots` returns them.
        tool_role: role of results that answer no structured call.
    """
    return [_for_server(message, tool_role) for message in messages]


def _for_server(message: dict[str, Any], tool_role: str) -> dict[str, Any]:
    if "tool_calls" in message:
        return {**message, **_spelled(message["tool_calls"])}
    return {**message, "role": tool_role} if message["role"] == "tool" and "tool_call_id" not in message else message


def _spelled(calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    texts = [json.dumps(call["function"]["arguments"], ensure_ascii=False) for call in calls]
    return {
        "tool_calls": [
            {**call, "function": {**call["function"], "arguments": text}} for call, text in zip(calls, texts, strict=True)
        ]
    }


def _message(message: Any, before: Sequence[dict[str, Any]], open_calls: list[tuple[str, str]]) -> dict[str, Any]:
    """Returns a message with ids for its calls; `open_calls` are the ids and names of calls that no result has answered yet."""
    number = len(before) + 1
    if not isinstance(message, dict) or not message.keys() <= {"role", "content", "tool_calls"}:
        raise _bad(number, message, "another form, or another key than role, content and tool_calls")
    role, content, calls = message.get("role"), message.get("content", ""), message.get("tool_calls") or []
    if role not in ("user", "assistant", "tool") or not isinstance(content, str) or not isinstance(calls, list):
        raise _bad(number, message, "another role than user, assistant or tool, or no text")
    in_text = bool(before) and before[-1]["role"] == "assistant" and "tool_calls" not in before[-1]
    if role == "tool" and not open_calls and in_text:
        return {"role": role, "content": content}
    if bool(open_calls) != (role == "tool"):
        raise _bad(number, message, "a result without its call, or a call without its result before it")
    if role == "tool":
        call_id, name = open_calls.pop(0)
        return {"role": role, "name": name, "tool_call_id": call_id, "content": content}
    if not calls:
        return {"role": role, "content": content}
    if role == "user":
        raise _bad(number, message, "a call by the user")
    made = [_call(call, f"shot{number:03d}{place:02d}") for place, call in enumerate(calls)]
    if any(call is None for call in made):
        raise _bad(number, message, "a call without a name and an object of arguments")
    named = [(call["id"], call["function"]["name"]) for call in made if call]
    open_calls += [(call_id, name) for call_id, name in named if name != ANSWER]  # nothing answers an answer
    return {"role": role, "content": content, "tool_calls": made}


def _call(call: Any, call_id: str) -> dict[str, Any] | None:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        return None
    if not isinstance(function.get("arguments"), dict):
        return None
    return {"id": call_id, "type": "function", "function": {"name": function["name"], "arguments": function["arguments"]}}


def _bad(number: int, message: Any, reason: str) -> ConfigError:
    return ConfigError(f"Message {number} of shots has {reason}: {message!r:.100}. shots is {_FORM}.")
