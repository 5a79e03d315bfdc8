"""The evidence judge: rates a search by the gold evidence that it brings for the first time, less what had been shown before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swirl_env.errors import ConfigError
from swirl_env.gold_plan import Plan, plan_of
from swirl_env.grading import grade
from swirl_env.types import Answer, SubTrajectory, ToolCall, Verdict

_NAME = "evidence"


class EvidenceJudge:
    """Rates a search by gain of evidence minus redundancy (StepSearch, arXiv 2505.15107).

        reward = gain - redundancy * repeated

    The gain is the share of the gold evidence that the search shows and no earlier one did; what is repeated is the share of its
    passages that an earlier search had shown. Gold evidence is the passages that state the results of the task's plan, or its
    supporting passages if it has no plan. The paper compares texts by TF-IDF cosine with the best match so far; corpora here have
    ids, so a passage either is the evidence or is not.

    - An answer gets its token F1 as in the paper (1 if it is right); unscored if the task has no gold answer.
    - Malformed actions, and searches that the tool could not use, bring nothing: 0.
    - Calls of other tools are unscored (evidence says nothing about them), and so is every search if no evidence is known.

    A step is GOOD if it brings evidence or is a right answer.

    Args:
        redundancy: what a search of nothing but known passages costs; 0.6 as in the published runs.
        answer: weight of an answer's F1.
    """

    pure = True
    spent: Mapping[str, int] = {}
    """It asks no model."""
    needs_results = True
    """A search is rated by the passages it brings (see `swirl_env.protocols.RatesResults`)."""

    def __init__(self, redundancy: float = 0.6, answer: float = 1.0) -> None:
        for name, value in (("redundancy", redundancy), ("answer", answer)):
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is a weight of 0 or above; got {value!r}.")
        self._redundancy, self._answer = float(redundancy), float(answer)

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step."""
        return [self._one(step) for step in steps]

    def _one(self, step: SubTrajectory) -> Verdict:
        if step.action.error is not None:
            return Verdict.unscored("The agent could not act.", _NAME)
        call, result = step.call, step.result
        if type(call) is Answer:
            return rate_answer(step, self._answer, _NAME)
        if type(call) is not ToolCall:
            return _nothing("The action could not be read.")
        if result is None:
            return Verdict.failed("There is no result to judge the call by.", _NAME)
        if result.error == "unavailable":
            return Verdict.unscored("The tool was not available.", _NAME)
        if result.error is not None:
            return _nothing(f"The tool could not use this call ({result.error}).")
        if "ids" not in result.data:
            return Verdict.unscored("Evidence says nothing about this tool.", _NAME)
        plan = plan_of(step.state.task)
        if not plan.search_steps:
            return Verdict.unscored("The evidence for this question is not known.", _NAME)
        return self._search(step, plan, [str(passage) for passage in result.data["ids"]])

    def _search(self, step: SubTrajectory, plan: Plan, passages: Sequence[str]) -> Verdict:
        gain, repeated = evidence_gain(step, plan, passages)
        reward = gain - self._redundancy * repeated
        critique = f"Brings {gain:.0%} of the gold evidence; {repeated:.0%} of its passages were known."
        parts = {"gain": gain, "redundancy": repeated}
        return Verdict("scored", reward, "GOOD" if gain > 0 else "BAD", critique, _NAME, parts)


def evidence_gain(step: SubTrajectory, plan: Plan, passages: Sequence[str]) -> tuple[float, float]:
    """Returns the share of gold evidence that a search shows first, and the share of its passages shown before.

    Args:
        step: the search, in its state.
        plan: the gold plan of its task, with `search_steps`.
        passages: ids of the passages that it shows.
    """
    shown = {passage for earlier in step.state.steps for passage in _passages(earlier.result)}
    before = after = 0
    for passage in shown:
        before |= plan.by_passage.get(passage, 0)
    for passage in passages:
        after |= plan.by_passage.get(passage, 0)
    gain = (after & ~before & plan.search_steps).bit_count() / plan.search_steps.bit_count()
    return gain, sum(passage in shown for passage in passages) / max(len(passages), 1)


def rate_answer(step: SubTrajectory, weight: float, judge: str) -> Verdict:
    """Returns a verdict on a final answer: `weight` times its token F1, or times 1 if it is right, which makes it GOOD."""
    call, task = step.call, step.state.task
    outcome = step.outcome or grade(task, call.text if type(call) is Answer else "")
    if outcome.correct is None or outcome.f1 is None:
        if task.answer is None:
            return Verdict.unscored("The task has no gold answer.", judge)
        return Verdict.failed("The answer was not graded.", judge)
    if outcome.correct:
        return Verdict("scored", weight, "GOOD", "The answer is right.", judge)
    return Verdict("scored", weight * outcome.f1, "BAD", "The answer is wrong.", judge)


def _passages(result: object) -> Sequence[str]:
    data = getattr(result, "data", {})
    return [str(passage) for passage in data.get("ids", ())]


def _nothing(critique: str) -> Verdict:
    return Verdict("scored", 0.0, "BAD", critique, _NAME)
