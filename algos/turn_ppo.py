"""Turn-PPO: advantages over turns from a learned critic (arXiv 2512.17008)."""

from __future__ import annotations

import math

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.critic import Critic
from swirl_env.algos.ranges import check_count, check_number
from swirl_env.algos.reinforce import mean_outcome
from swirl_env.algos.run import Run
from swirl_env.algos.steps import StepTable, tabulate
from swirl_env.algos.turn_clip import turn_clip


class TurnPpo:
    """Generalised advantages over turns, with V(s) from a head on the policy's features (see `swirl_env.algos.critic.Critic`).

    A turn's reward is the outcome at the end of the episode, and the judge's verdict times `reward_weight`. The paper's critic is
    a model of its own; a head on the policy's features costs one more forward pass and has little to learn. Several optimizer
    steps per update (``trainer.epochs=4``) clip the ratio of whole turns, as in the paper; with one step every ratio is 1.

    Args:
        episodes_per_update: fresh episodes, each on a question of its own.
        gamma: discount per turn, 0 to 1 (paper: 0.99).
        lam: lambda of the generalised advantages, 0 to 1 (paper: 0.9).
        reward_weight: weight of the judge's rewards; 0 leaves them out, so that no verdict is needed.
        clip: how far from 1 the ratio of a turn is trusted; 0 leaves the loss to the trainer.
        whiten: whether advantages are shifted and scaled to mean 0 and standard deviation 1 over the batch.
        critic_lr: learning rate of the critic, which learns faster than the policy.
        critic_steps: optimizer steps of the critic per update.
        critic_width: units of the critic's hidden layer.
    """

    def __init__(
        self,
        episodes_per_update: int = 16,
        gamma: float = 0.99,
        lam: float = 0.9,
        reward_weight: float = 0.0,
        clip: float = 0.2,
        whiten: bool = True,
        critic_lr: float = 1e-3,
        critic_steps: int = 8,
        critic_width: int = 64,
    ) -> None:
        check_count(1, episodes_per_update=episodes_per_update, critic_steps=critic_steps, critic_width=critic_width)
        check_number({"gamma": gamma, "lam": lam}, 0, 1)
        check_number({"reward_weight": reward_weight}, -math.inf)
        check_number({"clip": clip}, 0, 1, open_high=True)
        check_number({"critic_lr": critic_lr}, 0, open_low=True)
        self.episodes_per_update, self.gamma, self.lam, self.whiten = episodes_per_update, gamma, lam, whiten
        self.reward_weight, self.clip, self.critic_lr = reward_weight, clip, critic_lr
        self.critic_steps, self.critic_width = critic_steps, critic_width

    def train(self, run: Run) -> None:
        """Trains until ``run.done``."""
        size = run.features([]).shape[1]
        loss = turn_clip(run, self.clip)
        critic = run.register("critic", Critic(size, self.critic_width, self.critic_lr, run.seed))
        for _ in run.updates():
            table = tabulate(run.rollouts(self.episodes_per_update), run.agent.renderer)
            features = run.features(table.steps)
            rewards = self._rewards(table)
            advantages, targets, valid = credit.gae(
                rewards, critic.values(features), np.isfinite(rewards), table.episode, table.position,
                gamma=self.gamma, lam=self.lam,
            )  # fmt: skip
            if self.whiten:
                advantages = credit.normalised(advantages, valid, np.zeros(len(advantages), np.int64))
            error = critic.fit(features, targets, valid, self.critic_steps)
            success = mean_outcome(table.outcome, table.episode)
            run.update(table.steps, advantages, valid, loss=loss, success=success, critic_error=error)

    def _rewards(self, table: StepTable) -> credit.Floats:
        """Returns [N] the reward of each turn; NaN if unknown."""
        rewards = np.where(credit.last_steps(table.episode, table.position), table.outcome, 0.0)
        return rewards + self.reward_weight * table.reward if self.reward_weight else rewards
