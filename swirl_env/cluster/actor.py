"""What runs in a worker's process: it builds the work there, and turns errors into sentences that any driver can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from swirl_env.errors import SwirlError


class Work(Protocol):
    """What a worker does with the items that it is handed."""

    def description(self) -> object:
        """Returns what must be equal in all workers, e.g. the name of the judge's table."""
        ...

    def exchange(self, items: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """Takes new items (number, content) and returns finished ones (number, result), in any order.

        Returns at least one result if any item is under way. Called with no items to ask for results.
        """
        ...


class Reply(NamedTuple):
    """What a call of a worker gave: a value, or the sentence of an error."""

    value: Any = None
    error: str | None = None
    pid: int = 0


class Actor:
    """A worker: `Work` that is built in its own process."""

    def __init__(self) -> None:
        self._work: Work | None = None

    def build(self, make: Callable[[], Work], path: Sequence[str], folder: str) -> Reply:
        """Builds the work, in the driver's folder and with its import path as far as they exist here."""
        if os.path.isdir(folder):
            os.chdir(folder)
        sys.path += [entry for entry in path if entry not in sys.path]

        def describe() -> object:
            self._work = make()
            return self._work.description()

        return _attempt(describe)

    def exchange(self, items: Sequence[tuple[int, Any]]) -> Reply:
        """Hands items to the work and returns what is finished (see `Work.exchange`)."""
        work = self._work
        assert work is not None
        return _attempt(lambda: work.exchange(items))


def _attempt(call: Callable[[], object]) -> Reply:
    try:
        return Reply(call(), pid=os.getpid())
    except SwirlError as error:
        return Reply(error=str(error), pid=os.getpid())
