"""TRACE: a turn is worth the temporal difference of the gold answer's log-ratio under a frozen model (arXiv 2607.13988)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.gold import answer_f1, answer_logprobs
from swirl_env.algos.ranges import check_choice, check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import StepTable, mean_known, tabulate
from swirl_env.types import Trajectory


class Trace:
    """Rewards from the policy that training began with, which cannot be gamed by training, and the gold answer; no judge.

        V(s) = mean log p_0(a* | s) - mean log p_0(a* | s_1);  r_t = discount * V(s_{t+1}) - V(s_t), of the last turn its F1

    The rewards are normalised and summed as in IGPO. We had the paper's abstract, not its text: normalisation, the last turn's
    reward and the mean per token are those of IGPO, which it builds on.

    Args:
        questions_per_update: questions of a batch.
        samples: episodes per question, at least 2: they are compared.
        discount: of the next state's value in the temporal difference, 0 to 1.
        gamma: discount per turn of the sum of rewards, 0 to 1.
        norm: ``joint`` normalises gains and outcomes together, ``separate`` apart: log-ratios have another scale than F1.
        scale: whether to divide by standard deviations.
    """

    def __init__(
        self,
        questions_per_update: int = 4,
        samples: int = 8,
        discount: float = 1.0,
        gamma: float = 1.0,
        norm: Literal["joint", "separate"] = "separate",
        scale: bool = True,
    ) -> None:
        check_count(1, questions_per_update=questions_per_update)
        check_count(2, samples=samples)
        check_number({"discount": discount, "gamma": gamma}, 0, 1)
        check_choice("norm", norm, ("joint", "separate"))
        self.questions_per_update, self.samples, self.discount, self.gamma = questions_per_update, samples, discount, gamma
        self.norm, self.scale = norm, scale

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        run.logprobs([], reference=True)  # the copy of the first policy is made before the first update
        for _ in run.updates():
            trajectories = run.rollouts(self.questions_per_update, self.samples)
            table = tabulate(trajectories, run.agent.renderer)
            rewards = self._rewards(run, table, trajectories)
            advantages, valid = credit.accumulated(
                rewards, np.isfinite(rewards), table.episode, table.position, table.question,
                gamma=self.gamma, norm=self.norm, scale=self.scale,
            )  # fmt: skip
            last = credit.last_steps(table.episode, table.position)
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, valid, success=success, gain=mean_known(rewards[~last]))

    def _rewards(self, run: Run, table: StepTable, trajectories: list[Trajectory]) -> credit.Floats:
        """Returns [N] the reward of each turn; NaN if unknown."""
        logs = answer_logprobs(run, table, trajectories, reference=True)
        start = np.flatnonzero(table.position == 0)
        values = logs - logs[start][table.episode]
        last = credit.last_steps(table.episode, table.position)
        gains = credit.shaped(np.zeros(len(logs)), values, np.roll(values, -1), gamma=self.discount)
        return np.where(last, answer_f1(table, trajectories), gains)
