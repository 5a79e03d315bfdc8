"""States and how they grow: s_{i+1} = s_i + a_i + the environment's reply.

One implementation for the running episode and for a stored one, so that a state rebuilt from a trajectory is the state that
the policy saw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from swirl_env.types import (
    Action,
    Answer,
    Malformed,
    ParsedAction,
    Settings,
    State,
    Step,
    SubTrajectory,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
)

_MISTRAL = "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS"
_TAG = re.compile(r"<(?=[A-Za-z/|!?_]|[^\x00-\x7f])")
_BRACKET = re.compile(rf"\[(?=\||/?(?:{_MISTRAL})\])")
_MAYBE_BRACKET = re.compile(r"\[[|/ISAT]").search
"""Finds what `_BRACKET` matches, and more."""


def escape(text: str) -> str:
    """Returns `text` such that no tag and no control token of a chat template can be read in it.

    ``<`` is written ``&lt;`` wherever markup could begin with it (a letter, ``/``, ``|``, ``!``, ``?``, ``_`` or a character
    outside ASCII, as the wide bar of DeepSeek's tokens, follows), and ``[`` is written ``&#91;`` before a bar and in Mistral's
    ``[INST]`` and its relatives. Comparisons such as ``3 < 4`` stay as they are.
    """
    # Most results hold neither (but "[1]" for a passage), and looking costs less than half of what replacing does.
    if "<" in text:
        text = _TAG.sub("&lt;", text)
    if "[" in text and _MAYBE_BRACKET(text) is not None:
        text = _BRACKET.sub("&#91;", text)
    return text


def clean(text: str) -> str:
    """Returns `text` with lone surrogates replaced by U+FFFD, since no file or terminal can hold them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def observe(call: ParsedAction, result: ToolResult | None, correction: str = "") -> str:
    """Returns the environment's reply to an action: ``QUERY -> RESULT``, a correction, or nothing after an answer.

    Tool text and the policy's own query are escaped on the way.
    """
    if result is None or type(call) is not ToolCall:
        return correction
    shown = f"error ({result.error}): {result.text}" if result.error else result.text
    return escape(f"{call.query} -> {shown}")


def result_of(step: Step) -> str:
    """Returns an observation without the query before it, for conversations in which a result names the call it answers."""
    if not isinstance(step.call, ToolCall):
        return step.observation
    return step.observation.removeprefix(escape(f"{step.call.query} -> "))


def initial_state(task: Task, prompt: str, settings: Settings, seed: int = 0) -> State:
    """Returns s_1: the prompt alone."""
    return State(task, settings, (Turn("user", prompt),), (), seed, len(prompt))


def next_state(state: State, step: Step) -> State:
    """Returns s_{i+1} for s_i and the step taken in it.

    Text after the first complete call or answer stays in the record (`Step.action`) and out of the state.
    """
    settings, observation, call = state.settings, step.observation, step.call
    text = step.action.text[: call.end] if settings.history == "full" else kept_text(step.action, call, settings)
    # A sum of tuples takes two thirds of the time of unpacking them.
    turns = state.turns + (Turn("assistant", text), Turn("tool", observation))  # noqa: RUF005
    steps = state.steps + (step,)  # noqa: RUF005
    chars = state.chars + len(text) + len(observation)
    return State(state.task, settings, turns, steps, state.seed, chars, state.sessions)


def kept_text(action: Action, call: ParsedAction, settings: Settings) -> str:
    """Returns the part of an action that later states hold.

    ``history=full``: up to the end of the first complete call; ``history=calls``: the call alone. A malformed action has no
    call to cut out and is kept whole, so that the correction after it makes sense.
    """
    if settings.history == "calls" and not isinstance(call, Malformed):
        return action.text[call.start : call.end]
    return action.text[: call.end]


def subtrajectories(trajectory: Trajectory) -> Iterator[SubTrajectory]:
    """Yields (s_i, a_i) with what the tool gave, for each of the K steps of a stored trajectory."""
    state = initial_state(trajectory.task, trajectory.prompt, trajectory.settings, trajectory.seed)
    for number, step in enumerate(trajectory.steps, 1):
        # The grade that the episode was recorded with decides for judges too. A call may have ended the episode, as in a game.
        ends = isinstance(step.call, Answer) or (trajectory.terminated and number == len(trajectory.steps))
        outcome = trajectory.outcome if ends else None
        yield SubTrajectory(state, step.action, step.call, step.result, outcome)
        state = next_state(state, step)
