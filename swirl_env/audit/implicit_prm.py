"""An implicit process reward model as a signal: a language model that learnt the outcomes of other episodes rates steps."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from accelerate import Accelerator

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.credit import Floats, outcome_weights
from swirl_env.algos.steps import StepTable, tabulate
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from swirl_env.errors import ConfigError
from swirl_env.fingerprint import content_hash, named
from swirl_env.registry import make_agent
from swirl_env.seeding import episode_seed
from swirl_env.store import Store
from swirl_env.types import Trajectory, Verdict

_NAME = "implicit_prm"


class ImplicitPrm:
    """Rates a step by r = beta * log pi_phi(a | s) / pi_ref(a | s) (arXiv 2412.01981; PRIME, 2502.01456; iStar, 2509.19199).

    pi_phi begins as pi_ref and is trained on nothing but outcomes: the cross entropy between an episode's outcome and the sigmoid
    of the sum of r over its steps. It learns from the episodes of another run, on other questions than those that it rates.

    Args:
        model: pi_ref, best the policy that made the episodes: folder, hub name or ``package:NAME``.
        train: run folder of the episodes to learn from.
        beta: scale of the reward.
        passes: how often each episode is seen.
        batch: episodes per update.
        lr: learning rate; None for the usual one of a model of that size.
        device: ``cpu``, ``cuda``, ``auto``.
        seed: order of the episodes.
    """

    def __init__(
        self,
        model: str,
        train: str,
        beta: float = 0.05,
        passes: int = 2,
        batch: int = 16,
        lr: float | None = None,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        if beta <= 0 or passes < 1 or batch < 1:
            raise ConfigError(f"beta is above 0, passes and batch are 1 or above; got {beta}, {passes} and {batch}.")
        self.beta, self.passes, self.batch, self.lr, self.seed = beta, passes, batch, lr, seed
        self.episodes = [trajectory for trajectory in Store(train, "r") if trajectory.ended != "error" and trajectory.steps]
        if not any(trajectory.outcome.correct is not None for trajectory in self.episodes):
            raise ConfigError(f"{train} holds no graded episode to learn from.")
        self._agent = cast(TransformersAgent, make_agent("transformers", model=model, device=device))
        options = {"model": model, "beta": beta, "passes": passes, "batch": batch, "lr": lr, "seed": seed, "version": 1}
        self.table = named(_NAME, {**options, "episodes": content_hash(Path(train) / "trajectories")})
        """Name of the table of verdicts that keeps the ratings."""
        self._spent: Counter[str] = Counter(calls=0, tokens=0)

    def rate(self, trajectories: Sequence[Trajectory]) -> list[list[Verdict]]:
        """Returns the log-ratio as reward; the first call trains the model.

        Raises:
            ConfigError: if it has learnt from episodes on one of these questions.
        """
        shared = {t.task.id for t in trajectories} & {t.task.id for t in self.episodes}
        if shared:
            raise ConfigError(
                f"The implicit reward model learns from episodes on {min(shared)!r}, which it is to rate. Train it on a run with "
                f"other questions (task.split, task.seed)."
            )
        table = tabulate(trajectories, self._agent.renderer)
        rewards = self.beta * self._ratios(self._trained, table.steps)
        self._spent.update(calls=2 * len(table.steps), tokens=2 * _tokens(table.steps))
        verdicts = [Verdict("scored", float(reward), None, "", _NAME) for reward in rewards]
        starts = np.cumsum([0, *(len(trajectory.steps) for trajectory in trajectories)])
        return [verdicts[a:b] for a, b in itertools.pairwise(starts)]

    def spent(self) -> Mapping[str, int]:
        """Returns forward passes over steps, by both models, and their tokens; training is not in it."""
        return dict(self._spent)

    @functools.cached_property
    def _trained(self) -> Trainer:
        config = TrainConfig(lr=self.lr, loss="policy_gradient", reduction="sum", kl=0.0)
        trainer = Trainer(self._agent.model, config, Accelerator(cpu=self._agent.model.device.type == "cpu"))
        trainer.logprobs([], reference=True)  # remembers the first weights, which are pi_ref
        for number in range(self.passes):
            order = sorted(self.episodes, key=lambda t: episode_seed(self.seed + number, t.task.id, t.sample))
            for start in range(0, len(order), self.batch):
                self._fit(trainer, tabulate(order[start : start + self.batch], self._agent.renderer))
        return trainer

    def _fit(self, trainer: Trainer, table: StepTable) -> None:
        """Makes one update on whole episodes."""
        _, starts, which = np.unique(table.episode, return_index=True, return_inverse=True)
        known = table.known
        if not known.any():
            return
        whole = np.bincount(which, self._ratios(trainer, table.steps)).astype(np.float64)
        weights = outcome_weights(whole, np.where(known[starts], table.outcome[starts], 0.0), self.beta)
        trainer.update(table.steps, weights[which], known, float(known[starts].sum()))

    def _ratios(self, trainer: Trainer, steps: Sequence[TokenStep]) -> Floats:
        """Returns log pi_phi / pi_ref of each step."""
        now, first = (trainer.logprobs(steps, reference=reference) for reference in (False, True))
        return np.array([math.fsum(a) - math.fsum(b) for a, b in zip(now, first, strict=True)], dtype=np.float64)


def _tokens(steps: Sequence[TokenStep]) -> int:
    return sum(len(step.prompt_ids) + len(step.token_ids) for step in steps)
