"""How good a policy is on held-out questions: sampled and greedy, always on the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from accelerate import Accelerator
from accelerate.utils import gather_object

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.interfaces import CausalLM
from swirl_env.algos.subset import Subset
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import collect
from swirl_env.evaluate import Evaluation, evaluate
from swirl_env.protocols import Agent
from swirl_env.types import Trajectory

_SEED = 0
"""Seed of every evaluation: the same questions and the same draws before and after, for every algorithm."""


class Actor(Agent, Protocol):
    """Who samples for training: the policy itself, or servers with copies of it."""

    temperature: float

    @property
    def name(self) -> str:
        """Recorded as the trajectories' agent."""
        ...

    @property
    def model(self) -> CausalLM:
        """The model in training."""
        ...


class Measure:
    """Evaluates policies. Calling it gives the figures that go into the metrics.

    Args:
        engines: questions, tools and judge of the evaluations; each gets its share of the episodes.
        episodes: episodes of a full evaluation.
        quick: episodes of an evaluation between updates.
        slots: episodes in flight at once.
        accelerator: processes that share the episodes, each of which calls every method; None for this one alone.
    """

    def __init__(
        self, engines: Sequence[Engine], episodes: int, quick: int, slots: int = 64, accelerator: Accelerator | None = None
    ) -> None:
        self.engines, self.episodes, self.quick, self.slots = list(engines), episodes, quick, slots
        self._accelerator = accelerator

    def __call__(self, agent: TransformersAgent) -> dict[str, float]:
        """Returns success and mean process label at temperature 1."""
        evaluation = self.run(agent, self.quick, 1.0)
        figures = {"eval_success": evaluation.accuracy.value, "eval_label": evaluation.process.value}
        return {key: round(value, 6) for key, value in figures.items() if value is not None}

    def full(self, agent: TransformersAgent) -> dict[str, Evaluation]:
        """Returns the evaluation at temperature 1 and the greedy one."""
        return {"sampled": self.run(agent, self.episodes, 1.0), "greedy": self.run(agent, self.episodes, 0.0)}

    def run(self, agent: TransformersAgent, episodes: int, temperature: float) -> Evaluation:
        """Returns what the policy reaches at a temperature; the same in every process, however many share the work."""
        rank, world = (0, 1) if self._accelerator is None else (self._accelerator.process_index, self._accelerator.num_processes)
        trajectories: list[Trajectory] = []
        with generating(agent, temperature):
            for i, engine in enumerate(self.engines):
                share = episodes * (i + 1) // len(self.engines) - episodes * i // len(self.engines)
                mine = Subset(engine.tasks, range(rank, min(share, len(engine.tasks)), world))
                trajectories += collect(agent, engine.with_tasks(mine), len(mine), self.slots, _SEED)
        return evaluate(gather_object(trajectories) if world > 1 else trajectories)


@contextmanager
def generating(agent: Actor, temperature: float | None = None) -> Iterator[None]:
    """Lets an agent generate without dropout, and at another temperature if one is given; then puts both back."""
    before, training = agent.temperature, agent.model.training
    agent.temperature = before if temperature is None else temperature
    agent.model.eval()
    try:
        yield
    finally:
        agent.temperature = before
        agent.model.train(training)
