"""The files of a training run: metrics that a resumed run continues, and checkpoints that a kill cannot tear."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from swirl_env.algos.run_logs import METRICS, TIMING, read_log
from swirl_env.algos.trainer import Trainer

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
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """Starts empty."""
        if self._main:
            for name in LOGS:
                (self.folder / name).write_text("")
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def write(self, name: str, row: dict[str, Any]) -> None:
        """Adds a line."""
        if self._main:
            with (self.folder / name).open("a") as file:
                file.write(json.dumps(row) + "\n")

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
        if self._main:
            (fresh / "spent.json").write_text(json.dumps(spent))
            os.replace(fresh, folder / f"{spent['updates']:08d}")
            for old in self._checkpoints()[:-2]:
                shutil.rmtree(old)
        self._trainer.accelerator.wait_for_everyone()

    def load(self) -> dict[str, int] | None:
        """Goes on from the last whole checkpoint and drops the lines written after it; returns its counters."""
        checkpoints = self._checkpoints()
        if not checkpoints:
            return None
        self._trainer.load(checkpoints[-1])
        spent: dict[str, int] = json.loads((checkpoints[-1] / "spent.json").read_text())
        if self._main:
            for name in LOGS:
                rows = [row for row in read_log(self.folder, name) if row["update"] <= spent["updates"]]
                draft = self.folder / f".{name}"
                draft.write_text("".join(json.dumps(row) + "\n" for row in rows))
                os.replace(draft, self.folder / name)
        return spent

    def _checkpoints(self) -> list[Path]:
        return sorted(p for p in (self.folder / "checkpoints").glob("[0-9]*") if (p / "spent.json").is_file())
