"""Return-to-go of step rewards on fresh rollouts: each step gets what the judge gave from it on."""

from __future__ import annotations

from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import tabulate


class ReturnToGo:
    """On-policy policy gradient with discounted sums of step rewards (Sutton & Barto, 2nd ed., section 13.3).

    Args:
        episodes_per_update: fresh episodes, each on a question of its own.
        gamma: discount per step; 0 leaves each step its own reward.
        baseline: ``position`` (mean return of the other episodes at the same step) or ``none``.
        outcome_weight: added to the reward of an episode's last step if its answer is right (an extension; 0 leaves
            outcomes out).
    """

    def __init__(
        self,
        episodes_per_update: int = 16,
        gamma: float = 1.0,
        baseline: Literal["position", "none"] = "position",
        outcome_weight: float = 0.0,
    ) -> None:
        self.episodes_per_update, self.gamma, self.baseline = episodes_per_update, gamma, baseline
        self.outcome_weight = outcome_weight

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            table = tabulate(run.rollouts(self.episodes_per_update), run.agent.renderer)
            last = np.append(table.episode[1:] != table.episode[:-1], True)
            bonus = np.where(last & table.known, self.outcome_weight * np.nan_to_num(table.outcome), 0.0)
            rewards = table.reward + bonus
            advantages = credit.return_to_go(
                rewards, table.scored, table.episode, table.position, gamma=self.gamma, baseline=self.baseline
            )
            metrics = {"success": mean_outcome(table.outcome, table.episode), "reward": float(np.nanmean(rewards))}
            run.update(table.steps, advantages, table.scored, **metrics)
