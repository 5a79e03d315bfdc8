"""What is read of a server's reply, and nothing else: servers add fields of their own, and leave out what they do not have."""

from __future__ import annotations

import math
from typing import Any

import msgspec


class Function(msgspec.Struct):
    """The call of a tool as the server parsed it."""

    name: str
    arguments: str | dict[str, Any] = ""
    """JSON text; some servers send the object itself."""


class Call(msgspec.Struct):
    """An entry of ``tool_calls``."""

    function: Function


class Message(msgspec.Struct):
    """What the model wrote."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    """vLLM and SGLang name the field for reasoning differently."""
    tool_calls: list[Call] | None = None


class Entry(msgspec.Struct):
    """Log-probability of one token."""

    logprob: float


class Logprobs(msgspec.Struct):
    """Log-probabilities of the reply."""

    content: list[Entry] | None = None


class Choice(msgspec.Struct):
    """One completion; the ids are vLLM's."""

    message: Message | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Reply(msgspec.Struct):
    """A chat completion."""

    choices: list[Choice]
    prompt_token_ids: list[int] | None = None

    @property
    def message(self) -> Message:
        """The message of the first choice, which `read_reply` has made sure of."""
        message = self.choices[0].message
        if message is None:
            raise ValueError("the reply holds no message")
        return message


def read_reply(content: object) -> Reply:
    """Returns a reply that holds a message.

    Raises:
        ValueError: if it holds none, so that the server is asked again.
    """
    try:
        reply = msgspec.convert(content, Reply)
    except msgspec.ValidationError as error:
        raise ValueError("the reply is no chat completion") from error
    message = reply.choices[0].message if reply.choices else None
    if message is None or not (isinstance(message.content, str) or reasoning_of(message) or message.tool_calls):
        raise ValueError("the reply holds no message")
    return reply


def reasoning_of(message: Message) -> str | None:
    """Returns the reasoning that a server parsed out of a message."""
    text = message.reasoning_content or message.reasoning
    return text if isinstance(text, str) else None


def sampled(reply: Reply) -> tuple[tuple[int, ...], tuple[float, ...], tuple[int, ...]]:
    """Returns sampled ids [T], their log-probabilities [T] and the prompt's ids [S]; all empty if any is missing."""
    choice = reply.choices[0]
    prompt = reply.prompt_token_ids or choice.prompt_token_ids
    entries = (choice.logprobs.content if choice.logprobs else None) or []
    logprobs = tuple(entry.logprob for entry in entries)
    if not choice.token_ids or not prompt or len(logprobs) != len(choice.token_ids) or not all(map(math.isfinite, logprobs)):
        return (), (), ()
    return tuple(choice.token_ids), logprobs, tuple(prompt)
