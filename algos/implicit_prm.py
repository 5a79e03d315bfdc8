"""Implicit process rewards: a second model learns outcomes, and its log-ratio to the first policy rewards every step.

PRIME (arXiv 2502.01456) and iStar (2509.19199): the reward model is a language model, r_t = beta * log pi_phi(a_t) / pi_ref(a_t),
and training it on whole outcomes makes r_t a reward of single steps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_choice, check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import StepTable, mean_known, tabulate
from swirl_env.algos.trainer import Trainer


class ImplicitPrm:
    """The policy and its implicit process reward model, trained in turns; no judge.

    Both begin as the policy that training began with, which is pi_ref too. In every update the reward model is trained first on
    the new episodes and rates them then, as in PRIME's code (``update=before``). Costs: a second model with its optimizer, three
    forward passes, and one more backward pass.

    Args:
        questions_per_update: questions of a batch.
        samples: episodes per question, at least 2: the others are the baseline.
        rule: ``prime``: returns of implicit rewards plus outcome, each less the other episodes' mean; ``istar``: outcome
            normalised over episodes plus implicit rewards normalised over steps (see `swirl_env.algos.credit.implicit_prm`).
        objective: how the reward model is trained: ``entropy``: cross entropy with the outcome (PRIME); ``preference``: DPO
            between episodes of one question with different outcomes (iStar).
        beta: scale of the implicit rewards; 0.05 in PRIME.
        alpha: weight of the implicit rewards next to the outcome.
        gamma: discount per step of ``prime``, 0 to 1.
        prm_lr: learning rate of the reward model; null for the policy's. Where nearly all outcomes are alike, cross entropy moves
            every implicit reward in one direction and the policy after it; a thirtieth of the policy's rate held in the study
            (docs/results/atlas.md), a third did not. PRIME drops questions that are nearly always or nearly never solved.
    """

    def __init__(
        self,
        questions_per_update: int = 4,
        samples: int = 8,
        rule: Literal["prime", "istar"] = "prime",
        objective: Literal["entropy", "preference"] = "entropy",
        beta: float = 0.05,
        alpha: float = 1.0,
        gamma: float = 1.0,
        prm_lr: float | None = None,
    ) -> None:
        check_count(1, questions_per_update=questions_per_update)
        check_count(2, samples=samples)
        check_choice("rule", rule, ("prime", "istar"))
        check_choice("objective", objective, ("entropy", "preference"))
        check_number({"beta": beta}, 0, open_low=True)
        check_number({"alpha": alpha}, 0)
        check_number({"gamma": gamma}, 0, 1)
        if prm_lr is not None:
            check_number({"prm_lr": prm_lr}, 0, open_low=True)
        self.questions_per_update, self.samples, self.rule, self.objective = questions_per_update, samples, rule, objective
        self.beta, self.alpha, self.gamma, self.prm_lr = beta, alpha, gamma, prm_lr

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        prm = self._reward_model(run)
        for _ in run.updates():
            table = tabulate(run.rollouts(self.questions_per_update, self.samples), run.agent.renderer)
            first = log_sums(run.logprobs(table.steps, reference=True, trainer=prm))
            error = self._fit(run, prm, table, log_sums(run.logprobs(table.steps, trainer=prm)) - first)
            rewards = self.beta * (log_sums(run.logprobs(table.steps, trainer=prm)) - first)
            advantages, valid = credit.implicit_prm(
                rewards, table.outcome, table.known, table.episode, table.position, table.question,
                rule=self.rule, alpha=self.alpha, gamma=self.gamma,
            )  # fmt: skip
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, valid, success=success, reward=mean_known(rewards), prm_error=error)

    def _reward_model(self, run: Run) -> Trainer:
        """Returns the trainer of the reward model; a resumed run puts its weights back."""
        policy = run.trainer
        config = replace(
            policy.config, lr=policy.lr if self.prm_lr is None else self.prm_lr, loss="policy_gradient", reduction="sum", kl=0.0,
            entropy=0.0, epochs=1, minibatches=1, importance_cap=0.0, overlong="train", clip_low=None, clip_high=None,
            ratio="token",
        )  # fmt: skip
        prm = run.register("prm", Trainer(copy.deepcopy(run.agent.model), config, policy.accelerator))
        run.logprobs([], reference=True, trainer=prm)  # its first weights are pi_ref; the copy is made before they change
        return prm

    def _fit(self, run: Run, prm: Trainer, table: StepTable, ratios: credit.Floats) -> float:
        """Trains the reward model on the episodes; returns the share of them, or of pairs, that it has wrong before.

        Args:
            run: trains.
            prm: of the reward model.
            table: the episodes.
            ratios: [N] log pi_phi / pi_ref of each step.
        """
        if not len(table.steps):
            return 0.0
        _, starts, which = np.unique(table.episode, return_index=True, return_inverse=True)
        whole = np.bincount(which, ratios).astype(np.float64)
        won, known = table.outcome[starts], table.known[starts]
        if self.objective == "entropy":
            weights, count = credit.outcome_weights(whole, np.where(known, won, 0.0), self.beta), int(known.sum())
            wrong = (whole > 0) != (won > 0.5)
            error = float(wrong[known].mean()) if count else 0.0
        else:
            weights, count = credit.outcome_dpo_weights(whole, won, known, table.question[starts], self.beta)
            error = _wrong_pairs(whole, won, known, table.question[starts])
        if count:
            run.fit(prm, table.steps, weights[which], table.known, float(count))
        return error


def log_sums(logprobs: Sequence[Sequence[float]]) -> credit.Floats:
    """Returns [N] the log-probability of each action, from those of its tokens."""
    return np.array([math.fsum(logs) for logs in logprobs], dtype=np.float64)


def _wrong_pairs(ratios: credit.Floats, won: credit.Floats, known: credit.Bools, group: credit.Ints) -> float:
    """Returns the share of pairs of episodes whose better one has not the higher ratio."""
    outcome = np.where(known, won, np.nan)
    pair = (group[:, None] == group[None, :]) & (outcome[:, None] > outcome[None, :])
    return float((ratios[:, None] <= ratios[None, :])[pair].mean()) if pair.any() else 0.0
