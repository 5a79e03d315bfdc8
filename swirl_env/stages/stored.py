"""Stored trajectories that a policy is trained on, checked against the setting that it is trained for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swirl_env.algos.embedded import WORDS
from swirl_env.config.overrides import command, override
from swirl_env.episodes.engine import Engine
from swirl_env.errors import ConfigError, StoreError
from swirl_env.stages import folders, runs
from swirl_env.stages.train_options import TrainOptions
from swirl_env.store import Store
from swirl_env.types import Trajectory

_VOCABULARY = ("words", "values")
"""Options of a task that decide which words there are; the embedded policy knows those of its settings only."""


def load_stored(options: TrainOptions, engine: Engine) -> list[Trajectory]:
    """Returns the trajectories of the run folders in ``stored``.

    Raises:
        ConfigError: if they were made for another task, with other tools, or with another prompt than the run has.
    """
    if not options.stored and options.algo.get("states") == "stored":
        raise ConfigError("algo.states=stored trains on stored trajectories: name their run folders, stored=[runs/demo].")
    trajectories: list[Trajectory] = []
    for folder in options.stored:
        _refuse_other_folders(Path(folder))
        mine = _chosen(Store(folder, "r"), options)
        if not mine:
            raise ConfigError(f"{folder} holds no trajectory{_selected(options.selection)} to train on.")
        if not options.allow_other_settings:
            _refuse_others(folder, mine, options, engine)
        trajectories += mine
    return trajectories


def _refuse_other_folders(path: Path) -> None:
    """Refuses a folder that is no run of episodes, with the folders in it that are.

    Raises:
        StoreError: saying what it is.
    """
    kind = folders.kind_of(path)
    if kind == "episodes":
        return
    inner = [folders.with_episodes(path, kind)] if kind else list(folders.with_episodes_below(path)) if path.is_dir() else []
    if not inner:
        raise folders.no_run(path, "stored=[{}]")
    words = command("train", override("stored", [str(folder) for folder in inner])).removeprefix("swirl train ")
    raise StoreError(f"{path} is {f'a {kind} run' if kind else 'a sweep'}; name the runs of episodes in it: {words}")


def _chosen(store: Store, options: TrainOptions) -> list[Trajectory]:
    """Returns the trajectories of a run that the options ask for, with the verdicts that they ask for."""
    table = None if options.verdicts is None else runs.table_of(store, options.verdicts)
    if options.selection is None:
        return list(store.with_verdicts(table))
    return list(store.select(options.selection, table))


def _selected(selection: str | None) -> str:
    return "" if selection is None else f" that the filter {selection!r} selects"


def _refuse_others(folder: str, trajectories: Sequence[Trajectory], options: TrainOptions, engine: Engine) -> None:
    differences = [*_task_differences(folder, options), *_differences(trajectories, engine)]
    if differences:
        raise ConfigError(
            f"{folder} was made in another setting than this run trains for: {'; '.join(differences)}. Train in the setting of "
            f"the trajectories, make new ones, or set allow_other_settings=true if that is what you want."
        )


def _task_differences(folder: str, options: TrainOptions) -> list[str]:
    """Returns how the task of a run folder differs from the task of the run, as far as a configuration names it."""
    task: dict[str, Any] = runs.config_of(folder).get("task") or {} if runs.exists(Path(folder)) else {}
    if not task:
        return []
    mine: dict[str, Any] = options.task or {"name": "atlas", **embedded_vocabulary()}
    if task.get("name") != mine["name"]:
        return [f"the task is {task.get('name')}, not {mine['name']}"]
    if options.task is not None:
        return []
    return [f"task.{key} is {task.get(key)}, not {mine[key]}" for key in _VOCABULARY if task.get(key) != mine[key]]


def embedded_vocabulary() -> dict[str, Any]:
    """Returns the options of a task whose words the embedded policy knows."""
    return {"words": WORDS, "values": False}


def _differences(trajectories: Sequence[Trajectory], engine: Engine) -> list[str]:
    """Returns how the first episode that differs was run, compared with the engine of the run."""
    now = engine.settings
    for trajectory in trajectories:
        was = trajectory.settings
        pairs = [("the tools are", was.tools, now.tools), ("format is", was.format, now.format)]
        pairs += [("history is", was.history, now.history)]
        if unlike := [f"{what} {_shown(one)}, not {_shown(other)}" for what, one, other in pairs if one != other]:
            return unlike
        if trajectory.prompt != engine.begin(trajectory.task, trajectory.seed).turns[0].text:
            return [f"the prompt of task {trajectory.task.id!r} is another (see prompt=, system messages and few-shot examples)"]
    return []


def _shown(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "none"
