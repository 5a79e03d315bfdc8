"""VinePPO: the value of every state from episodes that go on from it (arXiv 2410.01679); Math-Shepherd's labels."""

from __future__ import annotations

from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.histories import finished
from swirl_env.algos.ranges import check_choice, check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import StepTable, tabulate
from swirl_env.algos.turn_clip import turn_clip
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.types import State, Trajectory


class Vine:
    """A_t = r_t + V(s_{t+1}) - V(s_t), V(s) the mean outcome of fresh episodes that go on from s; r_t is the outcome, at the end.

    The episodes behind V are branches: they cost tokens of the budget and are not trained on, and no judge is asked. The paper
    clips the ratio of tokens (``trainer.loss=ppo_clip``); steps being its actions here, that of whole steps may be clipped too.

    Args:
        episodes_per_update: fresh episodes, each on a question of its own.
        samples: branches per state; 9 in the paper.
        values: ``advantage`` for the rule above; ``soft`` or ``hard`` give a step the value of the state that it led to, as
            Math-Shepherd labels steps (arXiv 2312.08935): the share of branches that end right, or whether any does.
        clip: how far from 1 the ratio of a step is trusted if the trainer makes several optimizer steps per update; 0 leaves the
            loss to the trainer.
    """

    def __init__(
        self,
        episodes_per_update: int = 8,
        samples: int = 9,
        values: Literal["advantage", "soft", "hard"] = "advantage",
        clip: float = 0.0,
    ) -> None:
        check_count(1, episodes_per_update=episodes_per_update, samples=samples)
        check_choice("values", values, ("advantage", "soft", "hard"))
        check_number({"clip": clip}, 0, 1, open_high=True)
        self.episodes_per_update, self.samples, self.values, self.clip = episodes_per_update, samples, values, clip

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        loss = turn_clip(run, self.clip)
        for _ in run.updates():
            trajectories = run.rollouts(self.episodes_per_update)
            table = tabulate(trajectories, run.agent.renderer)
            states = [sub.state for t in finished(trajectories) for sub in subtrajectories(t)]
            advantages, valid = self._rate(table, branch_outcomes(run, states, self.samples))
            run.update(table.steps, advantages, valid, loss=loss, success=mean_outcome(table.outcome, table.episode))

    def _rate(self, table: StepTable, outcomes: credit.Floats) -> credit.Credit:
        """Returns the credit of each step, from the outcomes [N, K] of the branches at the state that it was taken in."""
        last = credit.last_steps(table.episode, table.position)
        if self.values == "advantage":
            values = credit.monte_carlo(outcomes)
            return credit.vine(np.where(last, table.outcome, 0.0), values, np.where(last, 0.0, np.roll(values, -1)))
        values = credit.step_values(outcomes, estimate=self.values)
        labels = np.where(last, table.outcome, np.roll(values, -1))
        valid = np.isfinite(labels)
        return credit.Credit(credit.step_reward(labels, valid), valid)


def branch_outcomes(run: Run, states: list[State], samples: int) -> credit.Floats:
    """Returns [S, K] the outcomes of K fresh episodes that go on from each state; NaN if unknown."""
    groups = run.branch(states, samples, judge=False)
    return np.array([[outcome_of(t) for t in group] for group in groups], dtype=np.float64).reshape(len(states), samples)


def outcome_of(trajectory: Trajectory) -> float:
    """Returns 1.0 if an episode's answer is right, 0.0 if it is not, NaN if that is not known."""
    correct = trajectory.outcome.correct
    return float("nan") if correct is None or trajectory.ended == "error" else float(correct)
