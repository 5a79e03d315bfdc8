"""Calls of plugins by the engine: whatever a tool, a judge or a grader does or gives, the episode goes on.

What they break is recorded as theirs: a tool that was ``unavailable``, a verdict that ``failed``, a grade left open.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from swirl_env.episodes.transcript import clean
from swirl_env.protocols import Grader, Judge, Tool
from swirl_env.types import SubTrajectory, Task, ToolResult, Verdict

log = logging.getLogger(__name__)
_USUAL = (1.0, 0.0)
"""Rewards that need no second look, which would cost as much as the call of a judge."""


def run_tool(tool: Tool, queries: Sequence[str]) -> list[ToolResult]:
    """Calls a tool; one that raises or answers amiss is recorded as ``unavailable``, and the episode goes on."""
    try:
        results = list(tool.run(queries))
        for i, result in enumerate(results):
            if type(result) is not ToolResult or not result.text.isascii():
                results[i] = _presentable(result)
        if len(results) != len(queries):
            raise ValueError(f"{len(results)} results for {len(queries)} queries")
    except Exception as error:
        log.warning("tool %s failed on %d queries: %s: %s", tool.tag, len(queries), type(error).__name__, error)
        return [ToolResult("The tool is not available at the moment.", "unavailable")] * len(queries)
    return results


def _presentable(result: ToolResult) -> ToolResult:
    """Returns a result with text that can be stored."""
    if not isinstance(result, ToolResult):
        raise TypeError(f"expected a ToolResult, got {type(result).__name__}")
    text = clean(result.text)
    return result if text is result.text else ToolResult(text, result.error, result.data)


def run_judge(judge: Judge, steps: Sequence[SubTrajectory]) -> list[Verdict]:
    """Calls a judge; one that raises or answers amiss gives ``failed`` verdicts, never zeros."""
    try:
        verdicts = list(judge.judge(steps))
        for i, verdict in enumerate(verdicts):
            if type(verdict) is not Verdict or verdict.reward not in _USUAL:
                verdicts[i] = _valid(verdict, judge)
        if len(verdicts) != len(steps):
            raise ValueError(f"{len(verdicts)} verdicts for {len(steps)} steps")
    except Exception as error:
        log.warning("judge failed on %d steps: %s: %s", len(steps), type(error).__name__, error)
        return [Verdict.failed(f"{type(error).__name__}: {error}", type(judge).__name__)] * len(steps)
    return verdicts


def _valid(verdict: Verdict, judge: Judge) -> Verdict:
    """Returns a verdict that can be trained on or left out: a reward that is no number counts as failed."""
    if not isinstance(verdict, Verdict):
        raise TypeError(f"expected a Verdict, got {type(verdict).__name__}")
    if verdict.status == "scored" and (verdict.reward is None or not math.isfinite(verdict.reward)):
        name = verdict.judge or type(judge).__name__
        return Verdict.failed(f"The reward was {verdict.reward}, which is no number. {verdict.critique}".strip(), name)
    return verdict


def run_grader(grader: Grader, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
    """Calls a grader; where one raises or answers short, whether the answers are right stays open."""
    try:
        graded = list(grader.grade(tasks, answers))
        if len(graded) != len(answers):
            raise ValueError(f"{len(graded)} grades for {len(answers)} answers")
    except Exception as error:
        log.warning("grader failed on %d answers: %s: %s", len(answers), type(error).__name__, error)
        return [None] * len(answers)
    return graded
