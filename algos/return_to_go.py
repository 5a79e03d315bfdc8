"""Return-to-go of step rewards on fresh rollouts: each step gets what the judge gave from it on."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_choice, check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import StepTable, mean_known, tabulate


class ReturnToGo:
    """On-policy policy gradient with discounted sums of step rewards (Sutton & Barto, 2nd ed., section 13.3).

    Args:
        episodes_per_update: fresh episodes, each on a question of its own.
        gamma: discount per step, 0 to 1; 0 leaves each step its own reward.
        baseline: ``position`` (mean return of the other episodes at the same step) or ``none``.
        outcome_weight: added to the reward of an episode's last step if its answer is right (an extension; 0 leaves
            outcomes out). An episode whose outcome is not known is then left out.
        missing: ``invalid``: a return that contains a failed or unscored step is unknown and leaves the loss; ``skip``: such
            a step adds nothing (see `swirl_env.algos.credit.return_to_go`).
    """

    def __init__(
        self,
        episodes_per_update: int = 16,
        gamma: float = 1.0,
        baseline: Literal["position", "none"] = "position",
        outcome_weight: float = 0.0,
        missing: Literal["invalid", "skip"] = "invalid",
    ) -> None:
        check_count(1, episodes_per_update=episodes_per_update)
        check_number({"gamma": gamma}, 0, 1)
        check_number({"outcome_weight": outcome_weight}, -math.inf)
        check_choice("baseline", baseline, ("position", "none"))
        check_choice("missing", missing, credit.MISSING)
        self.episodes_per_update, self.gamma, self.baseline = episodes_per_update, gamma, baseline
        self.outcome_weight, self.missing = outcome_weight, missing

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            table = tabulate(run.rollouts(self.episodes_per_update), run.agent.renderer)
            rewards, scored = self._rewards(table)
            advantages = credit.return_to_go(
                rewards, scored, table.episode, table.position, gamma=self.gamma, baseline=self.baseline, missing=self.missing
            )
            valid = scored
            if self.missing == "invalid":
                valid = credit.complete_returns(scored, table.episode, table.position, gamma=self.gamma)
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, valid, success=success, reward=mean_known(rewards))

    def _rewards(self, table: StepTable) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Returns the rewards with the bonus on last steps, and which of them are known."""
        if not self.outcome_weight:
            return table.reward, table.scored
        last = np.append(table.episode[1:] != table.episode[:-1], True)[: len(table.steps)]
        rewards = table.reward + np.where(last, self.outcome_weight * table.outcome, 0.0)
        return rewards, table.scored & np.isfinite(rewards)
