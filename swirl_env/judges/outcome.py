"""The outcome judge: reward 0 until the end, then whether the answer is right. The outcome-only baseline as a plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swirl_env.grading import grade
from swirl_env.types import Answer, SubTrajectory, Verdict

_NAME = "outcome"
_SILENT = Verdict("scored", 0.0, None, "", _NAME)
_RIGHT = Verdict.good("The answer is right.", _NAME)
_WRONG = Verdict.bad("The answer is wrong.", _NAME)


class OutcomeJudge:
    """Reward 1 for a right final answer, or another successful end; 0 for a wrong one and for every step before.

    A step that is no answer has no label. Failed if the task has no gold answer to compare with.
    """

    pure = True
    spent: Mapping[str, int] = {}
    """It asks no model."""

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step."""
        return [_one(step) for step in steps]


def _one(step: SubTrajectory) -> Verdict:
    if step.action.error is not None:
        return Verdict("unscored", critique="The agent could not act.", judge=_NAME)
    if step.outcome is not None:
        correct = step.outcome.correct
    elif type(step.call) is Answer:
        correct = grade(step.state.task, step.call.text).correct
    else:
        return _SILENT
    if correct is None:
        why = "The task has no gold answer to compare with." if step.state.task.answer is None else "The answer was not graded."
        return Verdict.failed(why, _NAME)
    return _RIGHT if correct else _WRONG
