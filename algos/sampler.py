"""Who samples while a policy is trained: the policy itself, or servers with copies of it."""

from __future__ import annotations

from typing import Protocol

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.algos.measure import Actor
from swirl_env.algos.processes import Processes
from swirl_env.algos.trainer import Trainer
from swirl_env.errors import ConfigError


class Servers(Actor, Protocol):
    """Servers that sample with copies of the policy."""

    def refresh(self, version: int) -> None:
        """Sends them the present weights."""
        ...


class Sampler:
    """Who samples, with weights that are recent enough.

    Args:
        agent: the policy in training.
        servers: sample in its place; None for the policy itself.
        refresh_every: updates between two times that the servers get the present weights.
        processes: share the run; the first one sends the weights.
    """

    def __init__(self, agent: TransformersAgent, servers: Servers | None, refresh_every: int, processes: Processes) -> None:
        self._agent, self._servers, self._refresh_every, self._processes = agent, servers, refresh_every, processes
        self._sent_at: int | None = None

    def actor(self, updates: int) -> Actor:
        """Returns who samples after so many updates; servers whose weights are too old get the present ones first."""
        if self._servers is None:
            return self._agent
        staleness = self.staleness(updates)
        if staleness is None or staleness >= self._refresh_every:
            if self._processes.main:
                self._servers.refresh(updates)
            self._processes.wait()
            self._sent_at = updates
        return self._servers

    def staleness(self, updates: int) -> int | None:
        """Returns how many updates the servers' weights are behind those in training; None if there are no servers."""
        return None if self._sent_at is None else updates - self._sent_at


def check_ratios(agent: TransformersAgent, trainer: Trainer) -> None:
    """Refuses a loss of ratios pi / pi_behaviour whose two sides would be different distributions of the same policy.

    Raises:
        ConfigError: with the option to change.
    """
    if not trainer.config.needs_ratios:
        return
    loss = trainer.config.loss
    if agent.top_p < 1:
        raise ConfigError(f"{loss} needs ratios over all tokens; sampling with top_p={agent.top_p} cuts some off. Use top_p=1.")
    if agent.temperature != trainer.config.temperature:
        raise ConfigError(
            f"{loss} compares the policy with the distribution sampled from: the agent samples at temperature "
            f"{agent.temperature}, the trainer scores at {trainer.config.temperature}. Set both to the same."
        )
