"""IGPO: a turn is worth what it adds to the policy's own probability of the gold answer (arXiv 2510.14967)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.gold import answer_f1, answer_logprobs
from swirl_env.algos.ranges import check_choice, check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import mean_known, tabulate


class Igpo:
    """Information-gain policy optimisation: rewards from the policy itself and the gold answer; no judge.

        r_t = P(a* | s_{t+1}) - P(a* | s_t), of the last turn the F1 of its answer;  P = exp of the mean log-probability per token

    The rewards of a question's episodes are normalised together and then summed from t on (`swirl_env.algos.credit.accumulated`).
    The paper wraps the gold answer into a sentence that ends the reasoning; here it stands where the run's format has answers. P
    is read from the policy before the update and carries no gradient, as in the paper. The code's reward of -2 for an answer with
    unbalanced tags is left out: such an action is no answer here.

    Args:
        questions_per_update: questions of a batch.
        samples: episodes per question, at least 2: they are compared.
        gamma: discount per turn, 0 to 1 (1 in the code).
        norm: ``joint`` normalises gains and outcomes together (paper), ``separate`` apart (an option of the code).
        scale: whether to divide by standard deviations.
    """

    def __init__(
        self,
        questions_per_update: int = 4,
        samples: int = 8,
        gamma: float = 1.0,
        norm: Literal["joint", "separate"] = "joint",
        scale: bool = True,
    ) -> None:
        check_count(1, questions_per_update=questions_per_update)
        check_count(2, samples=samples)
        check_number({"gamma": gamma}, 0, 1)
        check_choice("norm", norm, ("joint", "separate"))
        self.questions_per_update, self.samples, self.gamma, self.norm = questions_per_update, samples, gamma, norm
        self.scale = scale

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            trajectories = run.rollouts(self.questions_per_update, self.samples)
            table = tabulate(trajectories, run.agent.renderer)
            values = np.exp(answer_logprobs(run, table, trajectories))
            last = credit.last_steps(table.episode, table.position)
            rewards = np.where(last, answer_f1(table, trajectories), np.roll(values, -1) - values)
            advantages, valid = credit.accumulated(
                rewards, np.isfinite(rewards), table.episode, table.position, table.question,
                gamma=self.gamma, norm=self.norm, scale=self.scale,
            )  # fmt: skip
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, valid, success=success, gain=mean_known(rewards[~last]))
