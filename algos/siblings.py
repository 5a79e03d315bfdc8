"""Several judged actions at each of some states: what rules over siblings train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swirl_env.algos import credit
from swirl_env.algos.batch import TokenStep
from swirl_env.algos.run import Run
from swirl_env.algos.steps import action_step, reward_or_nan
from swirl_env.types import State, Step, SubTrajectory


@dataclass(frozen=True, slots=True)
class Siblings:
    """N actions, those at one state together."""

    steps: list[TokenStep]
    reward: credit.Floats
    """[N] reward of the action's verdict; NaN if it has none."""
    state: credit.Ints
    """[N] at which of the states it was sampled."""

    @property
    def scored(self) -> credit.Bools:
        """[N] whether the verdict is scored."""
        return np.isfinite(self.reward)

    @property
    def informative(self) -> float:
        """Share of the states at which two actions have different rewards: the others teach nothing."""
        known: dict[int, set[float]] = {int(state): set() for state in self.state}
        for state, reward in zip(self.state[self.scored], self.reward[self.scored], strict=True):
            known[int(state)].add(float(reward))
        return sum(len(rewards) > 1 for rewards in known.values()) / max(len(known), 1)


def sample_siblings(
    run: Run, states: Sequence[State], episodes: Sequence[int], samples: int, taken: Sequence[Step] = ()
) -> Siblings:
    """Returns judged actions of the policy at states, `samples` of each.

    Args:
        run: samples and judges.
        states: S states; those of an episode together and in order.
        episodes: [S] number of the episode that each state is from.
        samples: actions per state.
        taken: [S] the action that the policy took in each state, which is then the first of its `samples`; none by default.
    """
    fresh = run.resample(states, samples - 1 if taken else samples)
    groups = [[step, *group] for step, group in zip(taken, fresh, strict=True)] if taken else fresh
    rows: list[tuple[TokenStep, float, int]] = []
    for number, (state, episode, group) in enumerate(zip(states, episodes, groups, strict=True)):
        for step in group:
            if step.action.token_ids:  # an action that failed has none
                sub = SubTrajectory(state, step.action, step.call)
                rows.append((action_step(sub, run.agent.renderer, episode), reward_or_nan(step.verdict), number))
    return Siblings(
        [row[0] for row in rows],
        np.array([row[1] for row in rows], dtype=np.float64),
        np.array([row[2] for row in rows], dtype=np.int64),
    )
