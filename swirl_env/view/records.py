"""Stored episodes -> the plain records that the page shows: one short row for the list, one full record per episode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from swirl_env.store import Store
from swirl_env.store.verdicts import VerdictTable
from swirl_env.types import Action, Answer, ParsedAction, Step, ToolCall, Trajectory, Verdict

_LISTED_CHARS = 200
"""How much of a question the list shows and searches."""

Json = dict[str, Any]
"""An object of the page's data."""


class Record(NamedTuple):
    """One episode."""

    row: list[Any]
    """run, task id, sample, question, ended, correct, labels, steps, errors: what the list shows, sorts and filters."""
    episode: Json
    """Everything that the page of the episode shows."""


def records(store: Store, run: int) -> Iterator[Record]:
    """Yields the episodes of a run folder, with the verdicts of every judge that has rated it.

    Args:
        store: the run folder, open for reading.
        run: its number on the page.
    """
    tables = {judge: store.verdicts(judge) for judge in store.judges()}
    for trajectory in store:
        labels = "".join(_letter(step.verdict) for step in trajectory.steps)
        errors = sum(step.result is not None and step.result.error is not None for step in trajectory.steps)
        question = " ".join(trajectory.task.question.split())[:_LISTED_CHARS]
        outcome = trajectory.outcome.correct
        row = [run, trajectory.task.id, trajectory.sample, question, trajectory.ended, outcome, labels]
        yield Record([*row, len(trajectory.steps), errors], _episode(trajectory, tables))


def _episode(trajectory: Trajectory, tables: Mapping[str, VerdictTable]) -> Json:
    others: Json = {judge: table[trajectory.key] for judge, table in tables.items() if trajectory.key in table}
    return {
        "question": trajectory.task.question,
        "gold": trajectory.task.answer,
        "aliases": list(trajectory.task.aliases),
        "answer": trajectory.outcome.answer,
        "correct": trajectory.outcome.correct,
        "f1": trajectory.outcome.f1,
        "ended": trajectory.ended,
        "agent": trajectory.agent,
        "prompt": trajectory.prompt,
        "steps": [
            _step(step, {judge: verdicts[i] for judge, verdicts in others.items() if i < len(verdicts)})
            for i, step in enumerate(trajectory.steps)
        ],
    }


def _step(step: Step, others: Mapping[str, Verdict]) -> Json:
    text = step.action.text
    same = step.verdict
    # A judge's table repeats the verdicts that were given during the episode: shown once.
    verdicts = [_verdict(same, same.judge or "the episode")] if same.status != "unscored" or not others else []
    verdicts += [_verdict(verdict, judge) for judge, verdict in sorted(others.items()) if verdict != same]
    return {
        "before": text[: step.call.start] if not _whole(step.call, text) else "",
        "call": text[step.call.start : step.call.end],
        "after": text[step.call.end :],
        "kind": _kind(step.call),
        "reason": getattr(step.call, "reason", None),
        "result": None if step.result is None else step.result.text,
        "error": None if step.result is None else step.result.error,
        "observation": step.observation,
        "verdicts": verdicts,
        "tokens": _tokens(step.action),
    }


def _whole(call: ParsedAction, text: str) -> bool:
    """Whether a malformed action spans all of the text, so that no part of it stands before the call."""
    return call.start == 0 and call.end == len(text)


def _kind(call: ParsedAction) -> str:
    if isinstance(call, ToolCall):
        return call.tool
    return "answer" if isinstance(call, Answer) else "malformed"


def _tokens(action: Action) -> list[list[float]]:
    """Returns [id, log-probability] of each sampled token; empty if they were not stored."""
    if len(action.logprobs) != len(action.token_ids):
        return []
    return [[token, round(logprob, 4)] for token, logprob in zip(action.token_ids, action.logprobs, strict=True)]


def _verdict(verdict: Verdict, judge: str) -> Json:
    return {
        "judge": judge,
        "status": verdict.status,
        "label": verdict.label,
        "reward": verdict.reward,
        "critique": verdict.critique,
        "parts": verdict.parts,
    }


def _letter(verdict: Verdict) -> str:
    """Returns one letter per verdict: G and B for labels, s for a score without one, ? for failed, - for none."""
    if verdict.label is not None:
        return verdict.label[0]
    return {"scored": "s", "failed": "?", "unscored": "-"}[verdict.status]
