"""Kinds of steps, and of mistakes, told by what the gold plan asks for and what an episode has shown so far."""

from __future__ import annotations

from swirl_env.gold_plan import Plan
from swirl_env.types import Answer, SubTrajectory, ToolCall

GOOD_KINDS = {
    "search": "brings evidence that had not been shown",
    "calculation": "computes a value that the plan asks for",
    "answer": "a right answer that follows from the results",
}
MISTAKES = {
    "malformed": "no complete call or answer",
    "tool_error": "the tool could not use the call",
    "repeated": "the same call as an earlier one",
    "wrong_entity": "a search about something else than what the plan asks for now",
    "wrong_relation": "a search about the right entity that does not bring the fact",
    "redundant": "a search for evidence that has been shown, in other words",
    "needless": "a call though everything is known, or to a tool that the plan does not ask for",
    "wrong_calculation": "a calculation whose value nothing asks for",
    "premature": "a wrong answer before the results allow one",
    "wrong_answer": "a wrong answer though everything is known",
    "unsupported": "a right answer that the results do not show",
}
KINDS = {**GOOD_KINDS, **MISTAKES, "ungraded": "an answer without a grade"}
"""Kind -> what it means."""


def kind_of(plan: Plan, step: SubTrajectory, seen: int, progress: bool) -> str:
    """Returns the kind of a step.

    Args:
        plan: the task's plan.
        step: the step.
        seen: the plan steps that had been seen before it, as bits.
        progress: whether the step is a call that leaves less of the plan to be done.
    """
    call, result = step.call, step.result
    if isinstance(call, Answer):
        return _answer(plan, None if step.outcome is None else step.outcome.correct, seen)
    if not isinstance(call, ToolCall):
        return "malformed"
    if result is None or result.error is not None:
        return "tool_error"
    is_search = "ids" in result.data
    if progress:
        return "search" if is_search else "calculation"
    if _is_repeated(step, call):
        return "repeated"
    if plan.all_evidence_seen((seen, 0)) and (is_search or plan.is_computed((seen, 0))):
        return "needless"
    if is_search:
        return _search(plan, call.query, list(result.data["ids"]), seen)
    return "wrong_calculation" if "value" in result.data else "needless"


def _answer(plan: Plan, correct: bool | None, seen: int) -> str:
    if correct is None:
        return "ungraded"
    known = plan.all_evidence_seen((seen, 0)) and plan.is_computed((seen, 0))
    if correct:
        return "answer" if known else "unsupported"
    return "wrong_answer" if known else "premature"


def _search(plan: Plan, query: str, ids: list[str], seen: int) -> str:
    """Returns what is wrong with a search that brings nothing new while evidence is missing."""
    words = _plain(query)
    subjects = [plan.steps[i].subject for i in plan.open((seen, seen))]
    if any(subject and _plain(subject) in words for subject in subjects):
        return "wrong_relation"
    return "redundant" if ids and plan.by_passage.get(ids[0], 0) & seen else "wrong_entity"


def _is_repeated(step: SubTrajectory, call: ToolCall) -> bool:
    """Whether an earlier call that got a result was the same, but for case and blanks."""
    words = _plain(call.query)
    return any(
        isinstance(earlier.call, ToolCall)
        and earlier.call.tool == call.tool
        and _plain(earlier.call.query) == words
        and earlier.result is not None
        and earlier.result.error is None
        for earlier in step.state.steps
    )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
