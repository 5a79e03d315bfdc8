"""Which steps of several episodes were taken in the same state, as numbers for the credit rules."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from swirl_env.types import Trajectory


def finished(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """Returns the trajectories that did not end in an error: those whose steps `swirl_env.algos.steps.tabulate` returns."""
    return [t for t in trajectories if t.ended != "error"]


def history_keys(trajectories: Iterable[Trajectory], most: int = 0) -> list[NDArray[np.int64]]:
    """Returns for each h from 0 to `most` [N] a number for the last h + 1 observations that each step was taken on.

    An observation is what the environment showed: the prompt first, then its replies. Steps with equal numbers of one h have
    seen the same; -1 stands for an episode that is not that long yet.

    Args:
        trajectories: episodes; those that ended in an error are left out.
        most: longest shared history.
    """
    seen = [[t.prompt, *(step.observation for step in t.steps[:-1])] for t in finished(trajectories)]
    numbers: dict[Hashable, int] = {}
    return [
        np.array([_number(numbers, observed, i, h) for observed in seen for i in range(len(observed))], dtype=np.int64)
        for h in range(most + 1)
    ]


def state_keys(trajectories: Iterable[Trajectory]) -> NDArray[np.int64]:
    """Returns [N] a number for the whole state that each step was taken in: the prompt, all actions and all replies so far."""
    numbers: dict[Hashable, int] = {}
    keys = []
    for trajectory in finished(trajectories):
        state: tuple[str, ...] = (trajectory.prompt,)
        for step in trajectory.steps:
            keys.append(numbers.setdefault(state, len(numbers)))
            state = (*state, step.action.text[: step.call.end], step.observation)
    return np.array(keys, dtype=np.int64)


def _number(numbers: dict[Hashable, int], observed: Sequence[str], i: int, h: int) -> int:
    return -1 if i < h else numbers.setdefault((h, *observed[i - h : i + 1]), len(numbers))
