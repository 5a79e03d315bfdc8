"""A rollout as TRL records it, and the steps of its environment: which message of the policy took which steps.

TRL runs every call of a message, and answers calls that name no tool by itself, so messages and steps are not one to one:

- a message with one call is one step;
- a message with several calls is several steps, which share its tokens;
- a call that never reached the environment is a malformed step, as it would have been in our own rollouts;
- what follows the end of an episode is no step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from swirl_env.episodes.formats.native import CALL, arguments_text
from swirl_env.episodes.reasoning import THINK
from swirl_env.types import Action, Malformed, ParsedAction, Step

Message = Mapping[str, Any]
Call = tuple[str, Any]
"""Name and arguments, as the model wrote them."""
Parse = Callable[[str], ParsedAction]
NO_SUCH_CALL = "The message held no call that could be read."


class Turns(NamedTuple):
    """The steps of an episode in the order of its messages."""

    steps: list[Step]
    owned: list[list[int]]
    """For each message of the policy the places of its steps; none for a message after the end."""


def policy_messages(messages: Sequence[Message]) -> list[Message]:
    """Returns the messages that the policy wrote."""
    return [message for message in messages if message["role"] == "assistant"]


def calls_of(message: Message) -> Iterator[Call]:
    """Yields the calls of a message."""
    for call in message.get("tool_calls") or ():
        function = call.get("function") or call
        yield str(function.get("name")), function.get("arguments")


def call_text(name: str, arguments: Any) -> str:
    """Writes a call in which no tag and no control token can be read."""
    return f'<{CALL}>\n{{"name": {arguments_text(name)}, "arguments": {arguments_text(arguments)}}}\n</{CALL}>'


def join_turns(messages: Sequence[Message], calls: Sequence[Call], steps: Sequence[Step], over: bool, parse: Parse) -> Turns:
    """Returns the steps of an episode with those that its environment did not see.

    Args:
        messages: the messages of the policy.
        calls: what the environment's steps came from, in their order; a last step without a call came from the last message.
        steps: the environment's steps.
        over: whether the episode has ended.
        parse: reads an action.
    """
    joined, owned, taken = list[Step](), list[list[int]](), 0
    for message in messages:
        own: list[int] = []
        for name, arguments in calls_of(message):
            if taken < len(calls) and calls[taken] == (name, arguments):
                step, taken = steps[taken], taken + 1
            elif taken == len(steps) and over:
                continue
            else:
                step = text_step(call_text(name, arguments), parse)
            own.append(len(joined))
            joined.append(step if len(own) > 1 else _with_reasoning(step, message, parse))
        if message is messages[-1] and len(steps) > len(calls):
            own.append(len(joined))
            joined.append(_with_reasoning(steps[-1], {**message, "content": ""}, parse))
        owned.append(own)
    return Turns(joined, owned)


def text_step(text: str, parse: Parse) -> Step:
    """Returns the malformed step of a text in which TRL saw no call that it could run."""
    call = parse(text)
    reason = call.reason if isinstance(call, Malformed) else NO_SUCH_CALL
    return Step(Action(text), Malformed(reason, 0, len(text)), observation=reason)


def _with_reasoning(step: Step, message: Message, parse: Parse) -> Step:
    """Returns a step whose action begins with what the policy wrote before its call, unless that would be read as a call."""
    thought = message.get("reasoning_content") or message.get("thinking") or ""
    parts = (f"<{THINK}>\n{thought}\n</{THINK}>" if thought else "", str(message.get("content") or ""))
    before = "".join(f"{part}\n" for part in parts if part)
    call = replace(step.call, start=step.call.start + len(before), end=step.call.end + len(before))
    text = before + step.action.text
    if not before or (parse(text) != call and not isinstance(call, Malformed)):
        return step
    if isinstance(call, Malformed):
        call = replace(call, start=0)
    return replace(step, action=replace(step.action, text=text), call=call)
