"""How good a policy is on held-out questions: sampled and greedy, always on the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from swirl_env.agents.transformers import TransformersAgent
from swirl_env.episodes.rollout import collect
from swirl_env.evaluate import Evaluation, evaluate
from swirl_env.types import Trajectory
from swirl_env.vector import ToolVectorEnv

_SEED = 0
"""Seed of every evaluation: the same questions and the same draws before and after, for every algorithm."""


class Measure:
    """Evaluates policies; where it is called it gives the figures of the metrics.

    Args:
        venvs: questions, tools and judge of the evaluations; each gets its share of the episodes.
        episodes: episodes of a full evaluation.
        quick: episodes of one on the way.
    """

    def __init__(self, venvs: Sequence[ToolVectorEnv], episodes: int, quick: int) -> None:
        self.venvs, self.episodes, self.quick = list(venvs), episodes, quick

    def __call__(self, agent: TransformersAgent) -> dict[str, float]:
        """Returns success and mean process label at temperature 1."""
        found = self.run(agent, self.quick, 1.0)
        figures = {"eval_success": found.accuracy.value, "eval_label": found.process.value}
        return {key: round(value, 6) for key, value in figures.items() if value is not None}

    def full(self, agent: TransformersAgent) -> dict[str, Evaluation]:
        """Returns the evaluation at temperature 1 and the greedy one."""
        return {"sampled": self.run(agent, self.episodes, 1.0), "greedy": self.run(agent, self.episodes, 0.0)}

    def run(self, agent: TransformersAgent, episodes: int, temperature: float) -> Evaluation:
        """Returns what the policy reaches at a temperature."""
        found: list[Trajectory] = []
        with _at(agent, temperature):
            for i, venv in enumerate(self.venvs):
                share = episodes * (i + 1) // len(self.venvs) - episodes * i // len(self.venvs)
                found += collect(agent, venv.engine, min(share, len(venv.engine.tasks)), venv.num_envs, _SEED)
        return evaluate(found)


@contextmanager
def _at(agent: TransformersAgent, temperature: float) -> Iterator[None]:
    """Lets an agent sample at another temperature, without dropout."""
    before, training = agent.temperature, agent.model.training
    agent.temperature = temperature
    agent.model.eval()
    try:
        yield
    finally:
        agent.temperature = before
        agent.model.train(training)
