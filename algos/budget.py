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
