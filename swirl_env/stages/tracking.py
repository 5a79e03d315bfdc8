"""Metrics of a training run on their way to trackers (TensorBoard, trackio, Weights & Biases), through accelerate."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import LoggerType

from swirl_env.errors import ConfigError, MissingExtra, unknown_name
from swirl_env.evaluate import Evaluation
from swirl_env.stages.run_config import flat, to_config
from swirl_env.stages.train_options import TrainOptions

PROJECT = "swirl"
"""Project of the trackers; TensorBoard's files are in the folder of this name in the run folder."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that accelerate does not know or that are not installed.

    Raises:
        UnknownName: with the nearest name.
        MissingExtra: with the install command.
    """
    known = sorted(str(kind) for kind in LoggerType if kind != LoggerType.ALL)
    for name in names:
        if name not in known:
            raise unknown_name("tracker", name, known)
        if name == "tensorboard" and not any(map(importlib.util.find_spec, ("tensorboard", "tensorboardX"))):
            raise MissingExtra("trackers=[tensorboard] needs TensorBoard. Install it with: pip install 'swirl-env[track]'")
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise MissingExtra(f"trackers=[{name}] needs the package {name!r}. Install it with: pip install {name}")


class Tracking:
    """The trackers of a run; does nothing if none are named.

    Args:
        options: of the run.
        accelerator: made with ``log_with=options.trackers``.
    """

    def __init__(self, options: TrainOptions, accelerator: Accelerator) -> None:
        self._options, self._accelerator = options, accelerator
        self._step = 0

    def begin(self, updates: int) -> None:
        """Starts the trackers; what they hold of later updates than `updates`, from before a kill, gives way.

        Raises:
            ConfigError: if one cannot start, with its own words.
        """
        self._step = updates
        if not self._options.trackers:
            return
        path = Path(self._options.out).absolute()
        same = {"id": hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest(), "resume": "allow"}
        kwargs = {
            "tensorboard": {"purge_step": updates + 1},
            "wandb": {**same, "name": path.name, "dir": str(path)},
            "trackio": {"name": path.name, "resume": "allow"},
        }
        config = {} if updates else {key: _plain(value) for key, value in flat(to_config(self._options)).items()}
        try:
            self._accelerator.init_trackers(PROJECT, config=config or None, init_kwargs=kwargs)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ConfigError(f"trackers={self._options.trackers}: a tracker cannot start: {reason}") from error

    def log(self, row: Mapping[str, Any]) -> None:
        """Sends the metrics of an update."""
        self._step = int(row["update"])
        if self._options.trackers:
            self._accelerator.log({key: value for key, value in row.items() if key != "update"}, step=self._step)

    def log_evaluations(self, evaluations: Mapping[str, Evaluation]) -> None:
        """Sends what the trained policy was measured to be, e.g. ``after/greedy/accuracy``."""
        if not self._options.trackers:
            return
        figures = {
            f"after/{how}/{figure}": estimate.value
            for how, evaluation in evaluations.items()
            for figure in ("accuracy", "process", "valid_actions")
            if (estimate := getattr(evaluation, figure)).value is not None
        }
        if figures:
            self._accelerator.log(figures, step=self._step)


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
