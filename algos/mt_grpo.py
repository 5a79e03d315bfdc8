"""MT-GRPO: a reward per turn next to the outcome, both normalised in the group (arXiv 2505.11821), and its unbiased form."""

from __future__ import annotations

import math

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import mean_known, tabulate


class MtGrpo:
    """MT-GRPO as published: A_t = norm(outcome) + weight * norm(r_t), of the last turn norm(outcome) alone.

    Biased with more than two turns, since a turn's reward does not reach the turns that led to it: see
    `swirl_env.algos.credit.mt_grpo`. The turn rewards are the judge's; a turn without a verdict leaves the loss.

    Args:
        questions_per_update: questions of a batch.
        samples: episodes per question, at least 2: they are compared.
        weight: weight of the turn rewards (1 in the paper's code).
        scale: whether to divide by standard deviations, as the paper does.
    """

    def __init__(self, questions_per_update: int = 4, samples: int = 8, weight: float = 1.0, scale: bool = True) -> None:
        _check(questions_per_update, samples, weight)
        self.questions_per_update, self.samples, self.weight, self.scale = questions_per_update, samples, weight, scale

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            table = tabulate(run.rollouts(self.questions_per_update, self.samples), run.agent.renderer)
            advantages, valid = credit.mt_grpo(
                table.reward, table.scored, table.outcome, table.known, table.episode, table.position, table.question,
                weight=self.weight, scale=self.scale,
            )  # fmt: skip
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, valid, success=success, reward=mean_known(table.reward))


class MtGrpoUnbiased:
    """MT-GRPO without the bias: A_t = the whole return that remains at turn t - the mean of the other episodes' returns there.

    Unbiased for E[outcome + weight * sum of the turn rewards but the last]: the objective of `MtGrpo`. A turn leaves the loss if
    a reward from it on is unknown.

    Args:
        questions_per_update: questions of a batch.
        samples: episodes per question, at least 2: the others are the baseline.
        weight: weight of the turn rewards.
    """

    def __init__(self, questions_per_update: int = 4, samples: int = 8, weight: float = 1.0) -> None:
        _check(questions_per_update, samples, weight)
        self.questions_per_update, self.samples, self.weight = questions_per_update, samples, weight

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        for _ in run.updates():
            table = tabulate(run.rollouts(self.questions_per_update, self.samples), run.agent.renderer)
            advantages, valid = credit.mt_grpo_unbiased(
                table.reward, table.scored, table.outcome, table.known, table.episode, table.position, table.question,
                weight=self.weight,
            )  # fmt: skip
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, valid, success=success, reward=mean_known(table.reward))


def _check(questions_per_update: int, samples: int, weight: float) -> None:
    check_count(1, questions_per_update=questions_per_update)
    check_count(2, samples=samples)
    check_number({"weight": weight}, -math.inf)
