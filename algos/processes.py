"""Work shared among the processes of a run: each does every n-th item, and all get all results in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object

T = TypeVar("T")


class Processes:
    """The processes of a run, as one of them sees them.

    Args:
        accelerator: whose processes they are.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank, self.world = int(accelerator.process_index), int(accelerator.num_processes)
        self.main = bool(accelerator.is_main_process)
        self._accelerator = accelerator

    def wait(self) -> None:
        """Returns when all processes have called it."""
        self._accelerator.wait_for_everyone()

    def share(self, n: int) -> range:
        """Returns which of `n` items this process does."""
        return range(self.rank, n, self.world)

    def gather(self, mine: Sequence[T]) -> list[T]:
        """Returns the results of all items in order, from those of each process's share; every process calls it."""
        pairs = self.concatenate([(self.rank + n * self.world, result) for n, result in enumerate(mine)])
        return [result for _, result in sorted(pairs, key=lambda pair: pair[0])]

    def concatenate(self, mine: Sequence[T]) -> list[T]:
        """Returns the items of all processes, those of the first one first; every process calls it."""
        return list(gather_object(list(mine))) if self.world > 1 else list(mine)
