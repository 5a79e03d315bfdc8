"""Some of the questions of a task source, as a task source."""

from __future__ import annotations

from collections.abc import Sequence

from swirl_env.protocols import TaskSource
from swirl_env.types import Task


class Subset:
    """Some of the questions of a task source.

    Args:
        tasks: all of them.
        order: indices of those that are left, in order.
    """

    def __init__(self, tasks: TaskSource, order: Sequence[int]) -> None:
        self._tasks, self._order = tasks, order
        self._drawn: dict[int, Task] = {}
        """Questions that were asked for, as a source may make them again each time."""
        self.corpus, self.split = tasks.corpus, tasks.split
        self.tools, self.max_steps = tasks.tools, tasks.max_steps

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Task:
        place = self._order[index]
        if (task := self._drawn.get(place)) is None:
            task = self._drawn[place] = self._tasks[place]
        return task
