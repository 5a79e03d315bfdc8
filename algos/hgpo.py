"""HGPO: outcomes compared between steps that share a state and ever more of the history before it (arXiv 2602.22817)."""

from __future__ import annotations

from swirl_env.algos import credit
from swirl_env.algos.gigpo import shared
from swirl_env.algos.histories import history_keys
from swirl_env.algos.ranges import check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import tabulate


class Hgpo:
    """Hierarchy-of-groups policy optimisation (see `swirl_env.algos.credit.hgpo`). A state is what the environment last showed.

    Args:
        questions_per_update: questions of a batch.
        samples: episodes per question, at least 2: they are compared.
        history: longest shared history: how many observations before the state (2 in the code's recipes).
        alpha: how much more a longer shared history counts.
        gamma: discount per step of the outcome, 0 to 1.
        scale: whether to divide by standard deviations.
    """

    def __init__(
        self,
        questions_per_update: int = 4,
        samples: int = 8,
        history: int = 2,
        alpha: float = 1.0,
        gamma: float = 0.95,
        scale: bool = True,
    ) -> None:
        check_count(1, questions_per_update=questions_per_update)
        check_count(2, samples=samples)
        check_count(0, history=history)
        check_number({"alpha": alpha}, 0)
        check_number({"gamma": gamma}, 0, 1)
        self.questions_per_update, self.samples, self.history = questions_per_update, samples, history
        self.alpha, self.gamma, self.scale = alpha, gamma, scale

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            trajectories = run.rollouts(self.questions_per_update, self.samples)
            table = tabulate(trajectories, run.agent.renderer)
            histories = history_keys(trajectories, self.history)
            advantages = credit.hgpo(
                table.outcome, table.known, table.episode, table.position, table.question, histories,
                alpha=self.alpha, gamma=self.gamma, scale=self.scale,
            )  # fmt: skip
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, table.known, success=success, shared=shared(table.question, histories[0]))
