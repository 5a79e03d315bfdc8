"""The episodes that a training run has played, kept in its folder as a store like any other: ``rollouts/``.

An episode's sample is its number in the run, so keys never clash, and a run that goes on from a checkpoint stores those that it
plays once more under keys that are there already: they are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

from swirl_env.errors import DuplicateKey
from swirl_env.store import Store
from swirl_env.types import Trajectory

Keep = Literal["all", "last", "none"]
FOLDER = "rollouts"
_IN_FOLDER: WeakValueDictionary[Path, Kept] = WeakValueDictionary()
"""Run folder -> the last that kept episodes in it, in this process."""


class Kept:
    """Writes the episodes of a run's rollouts.

    Args:
        run: the run's folder.
        keep: ``all``, those of the ``last`` update that played some, or ``none``.
    """

    def __init__(self, run: Path, keep: Keep) -> None:
        self._folder, self._keep = run / FOLDER, keep
        self._store: Store | None = None
        self._update = -1
        # A run that an exception has ended still holds its store: the one that goes on in its folder takes it over.
        if (before := _IN_FOLDER.get(place := run.resolve())) is not None:
            before.close()
        _IN_FOLDER[place] = self

    def add(self, trajectories: Sequence[Trajectory], first: int, update: int) -> None:
        """Stores episodes.

        Args:
            trajectories: the episodes, in their order.
            first: number of the first of them in the run.
            update: the update that they are played for.

        Raises:
            StoreError: if they cannot be written.
        """
        if self._keep == "none":
            return
        if self._keep == "last" and update != self._update:
            self.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._update = update
        if self._store is None:
            self._store = Store(self._folder)
        for number, trajectory in enumerate(trajectories, start=first):
            with suppress(DuplicateKey):  # played before the kill
                self._store.append(trajectory, number)

    def close(self) -> None:
        """Flushes what was stored and lets others write, judges for one."""
        if self._store is not None:
            self._store.close()
            self._store = None
