"""The replay agent: acts as stored trajectories did."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from swirl_env.errors import ConfigError, DataNotFound
from swirl_env.store.codec import decode_trajectory
from swirl_env.store.verdicts import read_heads
from swirl_env.types import Action, State, Trajectory


class ReplayAgent:
    """Repeats the actions of stored episodes, token ids included; to judge, render or time them in an environment.

    A state's trajectory is looked up by task and episode seed; if no episode of the task has that seed, the first stored one
    is taken. Beyond the end of it, and for unknown tasks, the agent cannot act (``error="unavailable"``).

    Args:
        trajectories: trajectories, or the path of a run folder.
    """

    def __init__(self, trajectories: Iterable[Trajectory] | str | os.PathLike[str]) -> None:
        if isinstance(trajectories, (str, os.PathLike)):
            trajectories = _stored(Path(trajectories))
        self._exact: dict[tuple[str, int], Trajectory] = {}
        self._first: dict[str, Trajectory] = {}
        for trajectory in trajectories:
            if not isinstance(trajectory, Trajectory):
                raise ConfigError(f"Expected trajectories or the path of a run folder; got {type(trajectory).__name__}.")
            self._exact.setdefault((trajectory.task.id, trajectory.seed), trajectory)
            self._first.setdefault(trajectory.task.id, trajectory)

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state."""
        return [self._one(state) for state in states]

    def _one(self, state: State) -> Action:
        stored = self._exact.get((state.task.id, state.seed)) or self._first.get(state.task.id)
        if stored is None or len(state.steps) >= len(stored.steps):
            return Action("", error="unavailable")
        return stored.steps[len(state.steps)].action


def _stored(folder: Path) -> Iterable[Trajectory]:
    """Yields the trajectories of a run folder, those that ended in an error left out."""
    if not folder.is_dir():
        raise DataNotFound(f"Expected a run folder at {folder}; there is none. Give the folder that `swirl generate` named.")
    for file in sorted((folder / "trajectories").glob("*.jsonl")):
        for _, _, head, line in read_heads(file):
            if not head.failed:
                yield decode_trajectory(line)
