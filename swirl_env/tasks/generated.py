"""What the generated task sources share: questions drawn from (options, split, seed, index) alone, in any order."""

from __future__ import annotations

import hashlib
import operator
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from typing import get_args

from swirl_env.errors import ConfigError
from swirl_env.protocols import Corpus
from swirl_env.tasks.names import Split
from swirl_env.types import Task


def check_whole(**values: object) -> None:
    """Refuses options that are not whole numbers.

    Raises:
        ConfigError: naming the first of them.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ConfigError(f"{name} is a whole number; got {value!r}. Give it without quotes, e.g. {name}=5.")


class GeneratedTasks(ABC):
    """Tasks that are generated on access.

    Args:
        name: first part of the task ids.
        version: raised whenever the same options give other tasks.
        size: how many tasks there are.
        split: ``train``, ``validation`` or ``test``.
        options: everything else that shapes a task.
        usual: the default of each option; ids name no options if all have their defaults.
    """

    corpus: Corpus | None = None
    tools: tuple[str, ...] = ()
    max_steps: int

    def __init__(
        self, name: str, version: int, size: int, split: Split, options: Mapping[str, object], usual: Mapping[str, object]
    ) -> None:
        if split not in get_args(Split):
            raise ConfigError(f"The splits of generated tasks are {', '.join(get_args(Split))}; got {split!r}.")
        check_whole(size=size)
        if size < 1:
            raise ConfigError(f"size is the number of tasks and must be at least 1; got {size}.")
        self.split: str = split
        self._size = size
        digest = hashlib.blake2b(repr((name, version, split, sorted(options.items()))).encode(), digest_size=16).hexdigest()
        self._key = int(digest, 16)
        self._prefix = f"{name}-{split}-" if options == usual else f"{name}-{digest[:8]}-{split}-"

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int, /) -> Task:
        index = operator.index(index)
        if not -self._size <= index < self._size:
            raise IndexError(f"Task {index} of {self._size}.")
        index %= self._size
        return self.draw(random.Random(self._key + index), f"{self._prefix}{index:06d}")

    def find(self, task_id: str) -> Task | None:
        """Returns the task of an id, or None."""
        number = task_id.removeprefix(self._prefix)
        if number == task_id or not (number.isascii() and number.isdecimal()) or len(number) > 18:
            return None
        index = int(number)
        return self[index] if index < self._size and f"{index:06d}" == number else None

    @abstractmethod
    def draw(self, rng: random.Random, task_id: str) -> Task:
        """Returns the task that `rng` decides."""
