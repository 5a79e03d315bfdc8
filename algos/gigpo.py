"""GiGPO: outcomes compared between episodes, and between steps taken in the same state (arXiv 2505.10978)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.histories import history_keys, state_keys
from swirl_env.algos.ranges import check_choice, check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import tabulate


class Gigpo:
    """Group-in-group policy optimisation: no judge and no critic, only outcomes (see `swirl_env.algos.credit.gigpo`).

    Args:
        questions_per_update: questions of a batch.
        samples: episodes per question, at least 2: they are compared.
        omega: weight of the comparison between steps.
        gamma: discount per step of the outcome in that comparison, 0 to 1.
        anchor: when two steps of a question are in the same state: ``observation`` if the environment's last reply is the same
            (the paper's code compares what the environment shows), ``state`` if all actions and replies so far are.
        scale: whether to divide by standard deviations; ``false`` is the paper's F_norm = 1.
    """

    def __init__(
        self,
        questions_per_update: int = 4,
        samples: int = 8,
        omega: float = 1.0,
        gamma: float = 0.95,
        anchor: Literal["observation", "state"] = "observation",
        scale: bool = True,
    ) -> None:
        check_count(1, questions_per_update=questions_per_update)
        check_count(2, samples=samples)
        check_number({"omega": omega}, 0)
        check_number({"gamma": gamma}, 0, 1)
        check_choice("anchor", anchor, ("observation", "state"))
        self.questions_per_update, self.samples, self.omega, self.gamma = questions_per_update, samples, omega, gamma
        self.anchor, self.scale = anchor, scale

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            trajectories = run.rollouts(self.questions_per_update, self.samples)
            table = tabulate(trajectories, run.agent.renderer)
            states = state_keys(trajectories) if self.anchor == "state" else history_keys(trajectories)[0]
            advantages = credit.gigpo(
                table.outcome, table.known, table.episode, table.position, table.question, states,
                omega=self.omega, gamma=self.gamma, scale=self.scale,
            )  # fmt: skip
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, table.known, success=success, shared=shared(table.question, states))


def shared(question: credit.Ints, state: credit.Ints) -> float:
    """Returns the share of steps whose state another step of the question was in too.

    Args:
        question: [N].
        state: [N].
    """
    pairs = np.stack([question, state])
    _, index, count = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
    return float(np.mean(count[index] > 1)) if len(question) else 0.0
