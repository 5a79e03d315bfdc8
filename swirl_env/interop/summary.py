"""The verdicts of an episode as plain JSON values, for the logs of other frameworks."""

from __future__ import annotations

from typing import Any

from swirl_env.types import Answer, Step, ToolCall, Trajectory, Verdict


def verdict_of(verdict: Verdict) -> dict[str, Any]:
    """Returns a verdict as JSON values; its reward is None unless it is scored."""
    return {
        "status": verdict.status,
        "reward": verdict.reward,
        "label": verdict.label,
        "critique": verdict.critique,
        "judge": verdict.judge,
    }


def steps_of(trajectory: Trajectory) -> list[dict[str, Any]]:
    """Returns each step of an episode as JSON values: what it did and its verdict."""
    return [_kind(step) | verdict_of(step.verdict) for step in trajectory.steps]


def _kind(step: Step) -> dict[str, Any]:
    if isinstance(step.call, ToolCall):
        return {"kind": "call", "tool": step.call.tool, "query": step.call.query}
    if isinstance(step.call, Answer):
        return {"kind": "answer", "text": step.call.text}
    return {"kind": "malformed", "reason": step.call.reason}
