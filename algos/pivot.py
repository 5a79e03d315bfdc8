"""PivotRL: training at the states of stored episodes where the policy's actions differ in reward (arXiv 2603.21383)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.ranges import check_count, check_number
from swirl_env.algos.rounds import Rounds
from swirl_env.algos.run import Run
from swirl_env.algos.siblings import sample_siblings
from swirl_env.algos.steps import mean_known
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.seeding import episode_seed
from swirl_env.types import State, Trajectory


class Pivot:
    """Group-normalised judge rewards of actions at pivots: states where rewards vary and are not high yet.

    Before training the first policy is profiled once: `profile` actions at each state of the episodes. A pivot is a state with
    reward variance above 0 and mean reward below `most_mean` (the paper's two conditions). Every update then draws `samples`
    actions at each of `states_per_update` pivots, and normalises their rewards among siblings. The paper's reward for actions
    that do the same as the demonstrated one is here the run's judge. Profiling counts in the budget.

    Args:
        states: ``own`` rollouts of the first policy, or ``stored`` trajectories given to the run (the paper: demonstrations).
        filter: which trajectories' states are used: ``none``, ``process``, ``outcome``, ``both``.
        questions: questions of the own rollouts.
        profile: actions per state by which pivots are chosen, at least 2.
        most_mean: lambda_diff: mean reward from which a state is too easy.
        samples: actions per pivot of an update, at least 2.
        states_per_update: pivots of an update.
        scale: whether to divide by the standard deviation among siblings.
    """

    def __init__(
        self,
        states: Literal["own", "stored"] = "own",
        filter: str = "none",
        questions: int = 64,
        profile: int = 4,
        most_mean: float = 1.0,
        samples: int = 8,
        states_per_update: int = 16,
        scale: bool = True,
    ) -> None:
        check_count(2, profile=profile, samples=samples)
        check_count(1, states_per_update=states_per_update)
        check_number({"most_mean": most_mean}, -np.inf)
        self.profile, self.most_mean, self.samples = profile, most_mean, samples
        self.states_per_update, self.scale = states_per_update, scale
        self._rounds = Rounds(filter, states, questions, 1, updates=1, rounds=1)

    def train(self, run: Run) -> None:
        """Trains until ``run.done``, or ends at once if no state is a pivot."""
        pivots = run.register("pivots", Pivots())
        trajectories = self._rounds.trajectories(run, 0)
        if not trajectories:
            run.stop(self._rounds.why_none())
            return
        if pivots.numbers is None:
            pivots.numbers = self._choose(run, trajectories)
        if not pivots.numbers:
            run.stop("at no state did the actions of the first policy differ in reward and leave something to learn")
            return
        every = _states(trajectories)
        chosen = [every[i] for i in pivots.numbers]
        for update in run.updates():
            batch = sorted(run.rng(3, update).permutation(len(chosen))[: self.states_per_update].tolist())
            actions = sample_siblings(run, [chosen[i][1] for i in batch], [chosen[i][0] for i in batch], self.samples)
            advantages = credit.siblings(actions.reward, actions.scored, actions.state, scale=self.scale)
            run.update(
                actions.steps, advantages, actions.scored,
                reward=mean_known(actions.reward), informative=actions.informative, pivots=float(len(chosen)),
            )  # fmt: skip

    def _choose(self, run: Run, trajectories: Sequence[Trajectory]) -> list[int]:
        """Returns the numbers of the states that are pivots."""
        states = [state for _, state in _states(trajectories)]
        # Seeds of their own, so that the first update does not draw the very actions that the states were chosen by.
        seeded = [msgspec.structs.replace(s, seed=episode_seed(run.seed, f"pivots/{s.seed}", i)) for i, s in enumerate(states)]
        actions = sample_siblings(run, seeded, [0] * len(seeded), self.profile)
        return pivots_of(actions.reward, actions.scored, actions.state, self.most_mean)


class Pivots:
    """Which states were chosen, as checkpoints keep it."""

    def __init__(self) -> None:
        self.numbers: list[int] | None = None
        """Numbers of the states; None before profiling."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the numbers."""
        return {"numbers": self.numbers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the numbers back."""
        self.numbers = None if state["numbers"] is None else [int(i) for i in state["numbers"]]


def pivots_of(rewards: credit.Floats, scored: credit.Bools, state: credit.Ints, most_mean: float) -> list[int]:
    """Returns the states whose known rewards differ and have a mean below `most_mean`.

    Args:
        rewards: [N].
        scored: [N] bool.
        state: [N] number of the state that each action was sampled at.
        most_mean: mean reward from which a state is too easy.
    """
    groups = {int(number): rewards[scored & (state == number)] for number in np.unique(state)}
    return [number for number, group in groups.items() if len(set(group.tolist())) > 1 and group.mean() < most_mean]


def _states(trajectories: Sequence[Trajectory]) -> list[tuple[int, State]]:
    """Returns (number of the episode, state) of every step."""
    return [(n, sub.state) for n, t in enumerate(trajectories) for sub in subtrajectories(t)]
