"""REINFORCE on outcomes: every step of an episode gets the outcome minus a baseline (Williams 1992).

The outcome-only method that step-wise credit is measured against: fresh rollouts, one number per episode, nothing known about
single steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_choice, check_count
from swirl_env.algos.run import Run
from swirl_env.algos.steps import tabulate
from swirl_env.types import Trajectory


class Reinforce:
    """Outcome-only policy gradient.

    Args:
        episodes_per_update: fresh episodes, each on a question of its own.
        baseline: ``leave_one_out`` (mean outcome of the other episodes of the batch), ``mean`` or ``none``.
    """

    def __init__(
        self, episodes_per_update: int = 16, baseline: Literal["leave_one_out", "mean", "none"] = "leave_one_out"
    ) -> None:
        check_count(1, episodes_per_update=episodes_per_update)
        check_choice("baseline", baseline, ("leave_one_out", "mean", "none"))
        self.episodes_per_update, self.baseline = episodes_per_update, baseline

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            table = tabulate(run.rollouts(self.episodes_per_update), run.agent.renderer)
            advantages = credit.outcome(table.outcome, table.known, table.episode, baseline=self.baseline)
            run.update(table.steps, advantages, table.known, success=mean_outcome(table.outcome, table.episode))


def mean_outcome(
    outcome: np.ndarray[tuple[int], np.dtype[np.float64]], episode: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> float:
    """Returns the share of right answers among the episodes whose outcome is known.

    Args:
        outcome: [N] outcome of each step's episode; NaN if unknown.
        episode: [N].
    """
    _, first = np.unique(episode, return_index=True)
    known = outcome[first][np.isfinite(outcome[first])]
    return float(known.mean()) if len(known) else 0.0


def success_of(trajectories: Iterable[Trajectory]) -> float:
    """Returns the share of right answers among episodes whose outcome is known."""
    known = [t.outcome.correct for t in trajectories if t.ended != "error" and t.outcome.correct is not None]
    return sum(known) / max(len(known), 1)
