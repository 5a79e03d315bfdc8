"""One number per episode from the same rewards as step-wise rules see: the control that tells credit from information.

A step-wise rule may be ahead of an outcome-only one because it places rewards at their steps, or because a judge told it more
than the outcome did. This rule gets all that the judge said and the outcome, and places none of it.
"""

from __future__ import annotations

import math
from typing import Literal

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_choice, check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import mean_known, tabulate


class EpisodeReward:
    """Policy gradient in which every step of an episode gets its mean step reward plus the weighted outcome.

    An episode leaves the loss if a step of it has no verdict, or if its outcome is needed and not known.

    Args:
        episodes_per_update: fresh episodes, each on a question of its own.
        outcome_weight: weight of the outcome next to the mean step reward; 0 leaves outcomes out.
        baseline: ``leave_one_out`` (mean of the other episodes of the batch), ``mean`` or ``none``.
    """

    def __init__(
        self,
        episodes_per_update: int = 16,
        outcome_weight: float = 5.0,
        baseline: Literal["leave_one_out", "mean", "none"] = "leave_one_out",
    ) -> None:
        check_count(1, episodes_per_update=episodes_per_update)
        check_number({"outcome_weight": outcome_weight}, -math.inf)
        check_choice("baseline", baseline, ("leave_one_out", "mean", "none"))
        self.episodes_per_update, self.outcome_weight, self.baseline = episodes_per_update, outcome_weight, baseline

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            table = tabulate(run.rollouts(self.episodes_per_update), run.agent.renderer)
            advantages, valid = credit.episode_reward(
                table.reward,
                table.scored,
                table.outcome,
                table.known,
                table.episode,
                weight=self.outcome_weight,
                baseline=self.baseline,
            )
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, valid, success=success, reward=mean_known(table.reward))
