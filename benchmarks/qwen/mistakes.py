"""How an episode went wrong: one kind for each, the first that fits."""

from __future__ import annotations

from swirl_env.types import Answer, Malformed, ToolCall, Trajectory

_RIGHT = "right"
_ERROR = "the agent failed"
_REPEATED = "no answer: the same call again and again"
_UNREAD = "no answer: calls that could not be read"
_OPEN = "no answer: other calls until the last message"
_LOST = "the right value came back, the answer is another"
_GUESS = "an answer after calls that could not be read, none of them read"
_BARE = "an answer without a call"
_OTHER = "a call that was read, an answer that is not its result"
_WRONG = "a call that was read, its result as the answer, and it is wrong"
KINDS = (_RIGHT, _WRONG, _OTHER, _LOST, _GUESS, _BARE, _UNREAD, _REPEATED, _OPEN, _ERROR)
"""In the order of the table."""


def kind_of(trajectory: Trajectory) -> str:
    """Returns the kind (`KINDS`) of an episode."""
    if trajectory.ended == "error":
        return _ERROR
    if trajectory.outcome.correct:
        return _RIGHT
    calls = [step.call for step in trajectory.steps]
    queries = [(call.tool, call.query) for call in calls if isinstance(call, ToolCall)]
    unread = sum(isinstance(call, Malformed) for call in calls)
    answers = [call.text for call in calls if isinstance(call, Answer)]
    if not answers:
        return _REPEATED if len(set(queries)) < len(queries) else _UNREAD if unread * 2 >= len(calls) else _OPEN
    if not queries:
        return _GUESS if unread else _BARE
    results = [step.result.text.strip() for step in trajectory.steps if step.result is not None]
    if trajectory.task.answer in results:
        return _LOST
    return _WRONG if answers[-1].strip() in results else _OTHER
