"""Trajectories as columns: what credit rules and the trainer read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.algos.batch import TokenStep
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.types import SubTrajectory, Trajectory, Verdict


@dataclass(frozen=True, slots=True)
class StepTable:
    """N steps of some trajectories, those of one together and in order."""

    steps: list[TokenStep]
    reward: NDArray[np.float64]
    """[N] reward of the step's verdict; NaN if it has none."""
    scored: NDArray[np.bool_]
    """[N] whether the verdict is scored."""
    episode: NDArray[np.int64]
    """[N] index of the trajectory."""
    question: NDArray[np.int64]
    """[N] index of the task among the tasks at hand."""
    position: NDArray[np.int64]
    """[N] place of the step in its episode."""
    outcome: NDArray[np.float64]
    """[N] 1.0 if the episode's answer is right, 0.0 if it is not; NaN if that is not known."""

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """[N] whether the limit on new tokens cut the action off."""
        return np.array([step.truncated for step in self.steps], dtype=np.bool_)

    @property
    def known(self) -> NDArray[np.bool_]:
        """[N] whether the outcome of the step's episode is known."""
        return np.isfinite(self.outcome)


def tabulate(trajectories: Iterable[Trajectory], renderer: Renderer) -> StepTable:
    """Returns the steps of trajectories; episodes that ended in an error are left out.

    Actions that carry token ids keep them. Others (demonstrations, agents without tokens) are tokenised here.
    """
    finished = [t for t in trajectories if t.ended != "error"]
    question: dict[str, int] = {}
    steps: list[TokenStep] = []
    rows: list[tuple[float, int, int, int, float]] = []
    for episode, trajectory in enumerate(finished):
        number = question.setdefault(trajectory.task.id, len(question))
        correct = trajectory.outcome.correct
        won = np.nan if correct is None else float(correct)
        for position, sub in enumerate(subtrajectories(trajectory)):
            steps.append(token_step(sub, renderer, episode))
            rows.append((reward_or_nan(trajectory.steps[position].verdict), episode, number, position, won))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    reward, won_of = columns[0], columns[4]
    episode_of, question_of, position_of = (column.astype(np.int64) for column in columns[1:4])
    return StepTable(steps, reward, np.isfinite(reward), episode_of, question_of, position_of, won_of)


def reward_or_nan(verdict: Verdict) -> float:
    """Returns the reward of a scored verdict, NaN for any other."""
    return float("nan") if verdict.reward is None or verdict.status != "scored" else verdict.reward


def mean_known(values: NDArray[np.float64]) -> float:
    """Returns the mean of the known values; 0 if there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


def token_step(sub: SubTrajectory, renderer: Renderer, episode: int = 0) -> TokenStep:
    """Returns a step as token ids: those it was sampled with, or its text tokenised if it has none.

    The action ends with its first complete call or answer. Tokens after the one that completes it are no part of the next
    state and carry no loss; nor is text before it cut off, even if later states hold the call alone.
    """
    action, renderer = sub.action, renderer.of(sub.state.settings)
    text = action.text[: sub.call.end]
    if action.token_ids and action.prompt_ids and renderer.owns(action):
        ids = renderer.sampled_ids(action, text)
        behaviour = action.behaviour_logprobs or action.logprobs
        return TokenStep(action.prompt_ids, ids, behaviour[: len(ids)], episode, action.truncated)
    return TokenStep(renderer.ids(sub.state), renderer.text_ids(text), (), episode, action.truncated)


def action_step(sub: SubTrajectory, renderer: Renderer, episode: int = 0) -> TokenStep:
    """Returns an action that this very policy has just sampled: its ids count even if its text had to be cleaned."""
    action, renderer = sub.action, renderer.of(sub.state.settings)
    if renderer.owns(action):
        return token_step(sub, renderer, episode)
    behaviour = action.behaviour_logprobs or action.logprobs
    return TokenStep(action.prompt_ids, action.token_ids, behaviour, episode, action.truncated)
