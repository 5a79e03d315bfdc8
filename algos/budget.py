"""What a run has cost so far, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass

from swirl_env.algos.ranges import check_count
from swirl_env.errors import ConfigError


@dataclass(slots=True)
class Spent:
    """What a run has cost so far."""

    sampled_tokens: int = 0
    """Tokens drawn from the policy: rollouts and resampled actions, not evaluation."""
    trained_tokens: int = 0
    """Tokens computed in the forward passes of updates."""
    judge_calls: int = 0
    """Steps given to the judge."""
    episodes: int = 0
    updates: int = 0
    questions: int = 0
    """Questions drawn so far; the next rollouts begin there."""
    optimizer_steps: int = 0
    """Optimizer steps that taught the policy something; one whose advantages are all 0 does not."""
    skipped_updates: int = 0
    """Optimizer steps left out because loss or gradient was not finite."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends: at whichever comes first; 0 for no limit."""

    sampled_tokens: int = 0
    updates: int = 0

    def __post_init__(self) -> None:
        check_count(0, sampled_tokens=self.sampled_tokens, updates=self.updates)
        if not self.sampled_tokens and not self.updates:
            raise ConfigError("Nothing would end the run: limit the sampled tokens or the updates.")

    def reached(self, spent: Spent, block: int = 1) -> bool:
        """Whether a run that has spent so much is over.

        Args:
            spent: what it has cost.
            block: updates that belong together: tokens that were sampled for all of them are trained on before the run ends for
                want of more.
        """
        out_of_tokens = self.sampled_tokens and spent.sampled_tokens >= self.sampled_tokens
        return bool((out_of_tokens and spent.updates % block == 0) or (self.updates and spent.updates >= self.updates))
