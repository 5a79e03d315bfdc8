"""Stored episodes as rows that trainers of other projects read: SFT, step preferences (DPO) and step labels (PRM).

The layouts are those of TRL's conversational datasets: ``messages`` for SFT; ``prompt``, ``chosen``, ``rejected`` for
preferences; ``prompt``, ``completions``, ``labels`` for stepwise supervision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from swirl_env.episodes.transcript import subtrajectories
from swirl_env.store.export import chat_row
from swirl_env.types import SubTrajectory, Trajectory, Turn, Verdict

Row = dict[str, Any]


def sft_rows(trajectories: Iterable[Trajectory]) -> Iterator[Row]:
    """Yields one conversation per trajectory: ``{"messages": [...]}``; episodes without an action are left out."""
    for trajectory in trajectories:
        if trajectory.steps:
            yield {"messages": chat_row(trajectory)["messages"]}


class _Attempt(NamedTuple):
    """An action at a state, and how it was rated."""

    text: str
    reward: float


def dpo_rows(trajectories: Iterable[Trajectory]) -> Iterator[Row]:
    """Yields one pair per state at which two different actions were rated differently: the best against the worst.

    Such states come from several samples per task (``samples=``) or from branched rollouts. Memory grows by the actions.
    """
    states: dict[bytes, tuple[list[dict[str, str]], list[_Attempt]]] = {}
    for trajectory in trajectories:
        verdicts = [step.verdict for step in trajectory.steps]
        for step, verdict in zip(subtrajectories(trajectory), verdicts, strict=True):
            if verdict.status != "scored" or verdict.reward is None:
                continue
            prompt = [_message(turn) for turn in step.state.turns]
            key = hashlib.blake2b(msgspec.json.encode(prompt), digest_size=16).digest()
            states.setdefault(key, (prompt, []))[1].append(_Attempt(_read_part(step), verdict.reward))
    for prompt, attempts in states.values():
        best, worst = max(attempts, key=lambda a: a.reward), min(attempts, key=lambda a: a.reward)
        if best.reward > worst.reward and best.text != worst.text:
            yield {"prompt": prompt, "chosen": [_reply(best)], "rejected": [_reply(worst)]}


def prm_rows(trajectories: Iterable[Trajectory]) -> Iterator[Row]:
    """Yields the steps of each trajectory with their labels, up to the first step that no judge labelled."""
    for trajectory in trajectories:
        completions: list[str] = []
        labels: list[bool] = []
        for step, recorded in zip(subtrajectories(trajectory), trajectory.steps, strict=True):
            label = _label(recorded.verdict)
            if label is None:
                break
            reply = f"\n{recorded.observation}" if recorded.observation else ""
            completions.append(_read_part(step) + reply)
            labels.append(label)
        if labels:
            yield {"prompt": trajectory.prompt, "completions": completions, "labels": labels}


def _read_part(step: SubTrajectory) -> str:
    """Returns an action up to the end of its call: the part that has a place in the conversation."""
    return step.action.text[: step.call.end]


def _label(verdict: Verdict) -> bool | None:
    return None if verdict.label is None or verdict.status != "scored" else verdict.label == "GOOD"


def _message(turn: Turn) -> dict[str, str]:
    return {"role": turn.role, "content": turn.text}


def _reply(attempt: _Attempt) -> dict[str, str]:
    return {"role": "assistant", "content": attempt.text}
