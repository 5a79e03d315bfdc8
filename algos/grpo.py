"""GRPO: outcomes normalised within the rollouts of one question (DeepSeekMath, arXiv 2402.03300)."""

from __future__ import annotations

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_count
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import tabulate


class Grpo:
    """Group-normalised outcome, the same for all steps of an episode.

    The clipped ratio of the paper is the trainer's ``loss=ppo_clip``; with one update per batch, as here, the ratio is 1 and
    both losses have the same gradient.

    Args:
        questions_per_update: questions of a batch.
        samples: episodes per question, at least 2: their outcomes are compared.
    """

    def __init__(self, questions_per_update: int = 4, samples: int = 8) -> None:
        check_count(1, questions_per_update=questions_per_update)
        check_count(2, samples=samples)
        self.questions_per_update, self.samples = questions_per_update, samples

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            table = tabulate(run.rollouts(self.questions_per_update, self.samples), run.agent.renderer)
            advantages = credit.group_normalised(table.outcome, table.known, table.episode, table.question)
            run.update(table.steps, advantages, table.known, success=mean_outcome(table.outcome, table.episode))
