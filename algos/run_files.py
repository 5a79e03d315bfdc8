"""The files of a training run: metrics that a resumed run continues, and checkpoints that a kill cannot tear."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from swirl_env.algos.algorithm_state import NAME, Stateful, read_state, write_state
from swirl_env.algos.checkpoint import is_whole, load_random, seal
from swirl_env.algos.run_logs import METRICS, TIMING, read_log
from swirl_env.algos.trainer import Trainer
from swirl_env.errors import ConfigError, StoreError

log = logging.getLogger(__name__)

LOGS = (METRICS, TIMING)


class RunFiles:
    """``metrics.jsonl``, ``timing.jsonl`` and ``checkpoints/`` of a run; only the main process writes.

    Args:
        folder: the run's folder.
        trainer: what is saved and loaded.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.folder, self._trainer = folder, trainer
        self._main = trainer.accelerator.is_main_process
        self._things: dict[str, Stateful] = {}
        self._source: Path | None = None
        """The checkpoint that the run goes on from."""
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """Starts empty."""
        if self._main:
            for name in LOGS:
                (self.folder / name).write_text("")
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def write(self, name: str, row: dict[str, Any]) -> None:
        """Adds a row; numbers that JSON cannot hold must have become None."""
        if self._main:
            with (self.folder / name).open("a") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")

    def register(self, name: str, thing: Stateful) -> None:
        """Adds a thing to the checkpoints to come; gives it back its state from the one that the run goes on from.

        Raises:
            ConfigError: for a name that is taken or cannot be a file's.
            StoreError: if that checkpoint has no state of this name, or one that does not fit.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(f"A state's name is made of lower-case letters, digits and '_', a letter first; got {name!r:.60}.")
        if name in self._things:
            raise ConfigError(f"The run has a state of the name {name!r} already; register each thing once, under its own name.")
        for method in ("state_dict", "load_state_dict"):
            if not callable(getattr(thing, method, None)):
                raise ConfigError(f"{name!r} cannot be kept in checkpoints: {type(thing).__name__} has no method {method}.")
        if self._source is not None:
            read_state(self._source, name, thing)
        self._things[name] = thing

    def restore_random(self) -> None:
        """Puts the global random generators back as the checkpoint has them, if the run goes on from one."""
        if self._source is not None:
            load_random(self._source, self._trainer.accelerator.process_index)

    def save(self, spent: dict[str, int]) -> None:
        """Writes a checkpoint under a temporary name and renames it, so that a kill leaves the one before; keeps two.

        Args:
            spent: the run's counters, ``updates`` among them.
        """
        folder = self.folder / "checkpoints"
        fresh = folder / ".writing"
        if self._main:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        self._trainer.accelerator.wait_for_everyone()
        self._trainer.save(fresh)
        self._trainer.accelerator.wait_for_everyone()  # each process writes the state of its random generators
        for name, thing in self._things.items():
            state = thing.state_dict()  # in every process: a model that is split is put together by all of them
            if self._main:
                write_state(fresh, name, state)
        if self._main:
            (fresh / "spent.json").write_text(json.dumps(spent))
            seal(fresh)
            target = folder / f"{spent['updates']:08d}"
            shutil.rmtree(target, ignore_errors=True)  # a damaged one, from which the run did not go on
            os.replace(fresh, target)
            for old in self._checkpoints()[:-2]:
                shutil.rmtree(old)
        self._trainer.accelerator.wait_for_everyone()

    def load(self) -> dict[str, int] | None:
        """Goes on from the newest whole checkpoint and drops the rows written after it.

        Returns:
            Its counters; None if there are no checkpoints.

        Raises:
            StoreError: if there are some and none is whole.
        """
        checkpoints = self._checkpoints()
        whole = next((path for path in reversed(checkpoints) if is_whole(path)), None)
        if whole is None:
            if checkpoints:
                raise StoreError(
                    f"No checkpoint in {self.folder / 'checkpoints'} is whole: files are missing, damaged, or of a version that "
                    f"used pickle. Copy the folder again, or delete `checkpoints` to begin from the first update."
                )
            return None
        if whole != checkpoints[-1]:
            log.warning("%s is damaged; going on from %s", checkpoints[-1], whole)
        self._trainer.load(whole)
        self._source = whole
        spent: dict[str, int] = json.loads((whole / "spent.json").read_text())
        if self._main:
            for name in LOGS:
                rows = [row for row in read_log(self.folder, name) if row["update"] <= spent["updates"]]
                if lost := spent["updates"] - len({row["update"] for row in rows}):
                    what = self.folder / name, lost, spent["updates"]
                    log.warning("%s lacks %d of the %d updates before the checkpoint; they stay missing", *what)
                draft = self.folder / f".{name}"
                draft.write_text("".join(json.dumps(row) + "\n" for row in rows))
                os.replace(draft, self.folder / name)
        return spent

    def _checkpoints(self) -> list[Path]:
        return sorted(path for path in (self.folder / "checkpoints").glob("[0-9]*") if path.is_dir())
