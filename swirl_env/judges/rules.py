"""The rules judge: programmatic verdicts from a task's gold plan, its supporting passages and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swirl_env.gold_plan import Plan, Progress, forget, is_computation, plan_of
from swirl_env.grading import grade
from swirl_env.types import Answer, Malformed, Outcome, ParsedAction, State, SubTrajectory, ToolCall, ToolResult, Verdict

_NAME = "rules"
_UNKNOWN_NEED = Verdict("unscored", critique="What this question needs is not known.", judge=_NAME)
_NO_RULE = Verdict("unscored", critique="There is no rule for this tool.", judge=_NAME)


class RulesJudge:
    """Rates each step by the plan, evidence and answer of its task, without a model.

    - **Search**: GOOD if the passages hold evidence for a step of the gold plan (without a plan: a supporting passage) that is
      not yet resolved and whose own needs have been shown; see `swirl_env.gold_plan`. BAD if it repeats an earlier query, skips
      ahead, or brings nothing new. If neither plan nor evidence is known: BAD for a repetition or no results, otherwise
      unscored.
    - **Calculation**: GOOD if it is more than a bare number and its value is the result of a plan step that is not yet
      resolved, by numbers that have been shown. Without a plan: GOOD unless bare or repeated; unscored in tasks with
      supporting passages.
    - **Answer**: GOOD if it is right, all evidence has been shown, and, if the plan computes, its last value (or one equal to
      the answer) has been computed: mental arithmetic does not count, since the tool is there to be used. Unscored if the
      task has no gold answer.
    - Malformed actions and calls with an error are BAD. A tool that was ``unavailable`` is nobody's fault: unscored.

    Args:
        good: reward of a GOOD step.
        bad: reward of a BAD step.
        require_evidence: whether a right answer is BAD until all evidence has been shown.
        require_computed: whether a right answer is BAD until its value has been computed.
    """

    pure = True
    spent: Mapping[str, int] = {}
    """It asks no model."""
    needs_results = True
    """A search is rated by the passages it brings (see `swirl_env.protocols.RatesResults`)."""

    def __init__(self, good: float = 1.0, bad: float = 0.0, require_evidence: bool = True, require_computed: bool = True) -> None:
        self._good = float(good)
        self._bad = float(bad)
        self._require_evidence = require_evidence
        self._require_computed = require_computed

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step."""
        rate = self._call
        return [
            rate(step.state, call, step.result) if type(call := step.call) is ToolCall else self._other(step, call)
            for step in steps
        ]

    def _other(self, step: SubTrajectory, call: ParsedAction) -> Verdict:
        if step.action.error is not None:
            return Verdict("unscored", critique="The agent could not act.", judge=_NAME)
        if type(call) is Answer:
            return self._answer(step.state, step.outcome or grade(step.state.task, call.text))
        return self._no(call.reason if type(call) is Malformed else "The action could not be read.")

    def _yes(self, critique: str) -> Verdict:
        return Verdict("scored", self._good, "GOOD", critique, _NAME)

    def _no(self, critique: str) -> Verdict:
        return Verdict("scored", self._bad, "BAD", critique, _NAME)

    def _call(self, state: State, call: ToolCall, result: ToolResult | None) -> Verdict:
        if result is None:
            return Verdict("failed", critique="There is no result to judge the call by.", judge=_NAME)
        if result.error is not None:
            if result.error == "unavailable":
                return Verdict("unscored", critique="The tool was not available.", judge=_NAME)
            return self._no(f"The tool could not use this call ({result.error}).")
        plan = plan_of(state.task)
        if not plan.size or (not plan.steps and "ids" not in result.data):
            return self._unguided(state, plan, call, result)
        before, after, hit = plan.follow(state.steps, call, result)
        # Only what was already in sight can be resolved by a repetition.
        if not hit or (not hit & ~before[0] and _is_repeated(state, call)):
            return self._no(self._why_bad(state, plan, call, result, before, after))
        return self._yes(_why_good(plan, hit))

    def _why_bad(self, state: State, plan: Plan, call: ToolCall, result: ToolResult, before: Progress, after: Progress) -> str:
        if _is_repeated(state, call):
            return "The call repeats an earlier one."
        if plan.steps and all(step.tool != call.tool for step in plan.steps):
            return "The question does not need this tool."
        if "ids" not in result.data:
            if not is_computation(call.query):
                return "A bare number computes nothing."
            return "The value is not one that the question needs at this point."
        if after[0] & ~before[0]:
            return "The search skips ahead of what has been found so far."
        if any(passage in plan.by_passage for passage in result.data["ids"]):
            return "The search brings only what has been found before."
        return "The search brings nothing that the question needs."

    def _unguided(self, state: State, plan: Plan, call: ToolCall, result: ToolResult) -> Verdict:
        """Judges a call that neither a plan nor supporting passages say anything about."""
        if _is_repeated(state, call):
            return self._no("The call repeats an earlier one.")
        data = result.data
        if "ids" in data:
            if not data["ids"]:
                return self._no("The search brings nothing.")
            return _UNKNOWN_NEED
        if "value" not in data:
            return _NO_RULE
        if not is_computation(call.query):
            return self._no("A bare number computes nothing.")
        if plan.size:
            return Verdict("unscored", critique="Whether this question needs a calculation is not known.", judge=_NAME)
        return self._yes("A calculation that works and is new.")

    def _answer(self, state: State, outcome: Outcome) -> Verdict:
        task = state.task
        correct = outcome.correct
        if correct is None and task.answer is None:
            return Verdict("unscored", critique="The task has no gold answer.", judge=_NAME)
        if correct is None:
            return Verdict.failed("The answer was not graded.", _NAME)
        if not correct:
            return self._no("The answer is wrong.")
        plan = plan_of(task)
        if plan.size:
            progress = plan.progress(state.steps)
            forget(task)
            if self._require_evidence and not plan.all_evidence_seen(progress):
                return self._no("The answer is right, but the results so far do not show it.")
            if self._require_computed and not plan.is_computed(progress):
                return self._no("The answer is right, but it has not been computed.")
        return self._yes("The answer is right and follows from the results.")


def _is_repeated(state: State, call: ToolCall) -> bool:
    """Whether an earlier call that got a result was the same."""
    for step in state.steps:
        earlier, result = step.call, step.result
        same = type(earlier) is ToolCall and earlier.query == call.query and earlier.tool == call.tool
        if same and result is not None and result.error is None:
            return True
    return False


def _why_good(plan: Plan, hit: int) -> str:
    if not plan.steps:
        return "The search brings a supporting passage that had not been seen."
    step = plan.steps[hit.bit_length() - 1]
    return f"{'Brings what was needed:' if step.evidence else 'Computes'} {step.query}."
