"""Sweeps (``--multirun``): the names of their cells, which commands make a folder per cell, and where a sweep was written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_READERS = ("judge", "filter", "audit")
"""Stages that work on a run folder which must be there."""
_LONGEST = 120
"""Characters of a cell's name: file systems take 255 bytes."""

FILE = "multirun.yaml"
"""What hydra's own sweeper writes into the folder of a sweep."""

sweep_folders: list[Path] = []
"""Folders of the sweeps that this process has started."""


def reads_run(stage: str, keys: Collection[str]) -> bool:
    """Whether a command reads a run folder that must be there, rather than making one.

    Args:
        stage: the stage.
        keys: the keys that the command line sets; ``eval`` generates episodes only if they name an agent or a task, or if a run
            is to go on.
    """
    generates = any(key.partition(".")[0] in ("agent", "task", "resume") for key in keys)
    return stage in _READERS or (stage == "eval" and not generates)


def cell_name(overrides: str) -> str:
    """Returns the folder name of a sweep's cell: its overrides, in characters that no shell and no override needs quoted.

    A name that had to be changed for more than ``:`` ends in a hash, so that two cells never share a folder.
    """
    if not overrides:  # a sweep of one run
        return "run"
    plain = overrides.replace("\\", "").replace(":", ".")
    safe = re.sub(r"[^\w.,=+-]", "-", plain, flags=re.ASCII).lstrip("-")
    if safe == plain and len(safe) <= _LONGEST:
        return safe
    return f"{safe[:_LONGEST]}-{hashlib.blake2b(plain.encode(), digest_size=3).hexdigest()}"


class NoteSweep(Callback):
    """Notes the folder of a sweep when it begins, whichever launcher runs it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Notes the folder, and marks it as that of a sweep, which not every sweeper does."""
        try:
            folder = Path(str(config.hydra.sweep.dir))
        except OmegaConfBaseException:  # a folder that depends on what is swept: each cell says its own
            return
        sweep_folders.append(folder)
        with suppress(OSError):  # the first cell will say so
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / FILE)


OmegaConf.register_new_resolver("swirl_cell", cell_name, replace=True)
