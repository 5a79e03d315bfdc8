"""Monte Carlo values of a policy: fresh episodes from the states of stored ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from swirl_env.audit.records import PolicyValues
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.rollout import continue_episodes
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.protocols import Agent
from swirl_env.seeding import episode_seed
from swirl_env.types import State, Trajectory


class Branches:
    """Plays stored episodes on from each of their states.

    Args:
        agent: the policy.
        engine: tools of the episodes; the steps of fresh episodes are not judged.
        samples: fresh episodes per state.
        seed: their seeds follow from this, the episode and the state.
        slots: episodes in flight at once.
    """

    def __init__(self, agent: Agent, engine: Engine, samples: int, seed: int = 0, slots: int = 64) -> None:
        self.agent, self.engine = agent, engine.without_judge()
        self.samples, self.seed, self.slots = samples, seed, slots
        self.spent: Counter[str] = Counter(calls=0, tokens=0)
        """``calls``: actions that the policy took; ``tokens``: those of its prompts and actions."""

    def values(self, trajectories: Sequence[Trajectory]) -> list[PolicyValues]:
        """Returns, for each episode, how the fresh ones ended that began at each of its states, the first one included."""
        states: list[State] = []
        places: list[tuple[int, int]] = []
        for number, trajectory in enumerate(trajectories):
            for place, step in enumerate(subtrajectories(trajectory)):
                for sample in range(self.samples):
                    seed = episode_seed(self.seed, f"{trajectory.task.id}\0{trajectory.sample}\0{place}", sample)
                    states.append(msgspec.structs.replace(step.state, seed=seed))
                    places.append((number, place))
        wins: Counter[tuple[int, int]] = Counter()
        runs: Counter[tuple[int, int]] = Counter()
        for fresh in continue_episodes(self.agent, self.engine, states, self.slots):
            where = places[fresh.sample]
            self._count(fresh, where[1])
            if fresh.ended != "error" and fresh.outcome.correct is not None:
                runs[where] += 1
                wins[where] += fresh.outcome.correct
        return [
            PolicyValues(
                trajectory.key,
                tuple(wins[number, place] for place in range(len(trajectory.steps))),
                tuple(runs[number, place] for place in range(len(trajectory.steps))),
            )
            for number, trajectory in enumerate(trajectories)
        ]

    def _count(self, fresh: Trajectory, first: int) -> None:
        taken = fresh.steps[first:]
        self.spent["calls"] += len(taken)
        self.spent["tokens"] += sum(len(step.action.prompt_ids) + len(step.action.token_ids) for step in taken)


def step_values(trajectory: Trajectory, values: PolicyValues) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Returns for each step ``(wins, runs)`` of V(s) and of Q(s, a) = V(s'); after the last step the outcome, 1 of 1 or 0 of 1.

    An outcome that nobody graded is 0 of 0: nothing is known.
    """
    states = list(zip(values.wins, values.runs, strict=True))
    correct = trajectory.outcome.correct
    end = (0, 0) if correct is None else (int(correct), 1)
    return list(zip(states, [*states[1:], end], strict=True))
