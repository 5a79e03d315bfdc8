"""Which runs a folder holds: a run of episodes, a training run, or the cells of a sweep."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, Literal

import msgspec

from swirl_env.config import sweep
from swirl_env.config.options import RunOptions
from swirl_env.config.overrides import command, override
from swirl_env.errors import ConfigError, StoreError
from swirl_env.evaluate import Evaluation
from swirl_env.stages import runs
from swirl_env.stages.run_config import code_words

Kind = Literal["episodes", "training"]


MOST_FOLDERS = 5_000
"""Folders without a run that are looked through for runs below them."""

ROLLOUTS = "rollouts"
"""Where a training run keeps the episodes that it has played."""


def kind_of(path: Path) -> Kind | None:
    """Returns what kind of run a folder holds; None if it holds none."""
    if not path.is_dir():
        return None
    if runs.exists(path):
        return "training" if "algo" in runs.config_of(path) else "episodes"
    return "episodes" if any((path / "trajectories").glob("*.jsonl")) else None


def runs_below(path: Path) -> Iterator[tuple[Path, Kind]]:
    """Yields the runs in the folders below a folder, sorted; what a run keeps in folders of its own is part of it.

    Links are followed, but a folder counts once, however many ways lead to it.

    Raises:
        StoreError: if so many folders below it hold no run that it is hardly that of a sweep: somebody's home, or ``/``.
    """
    seen: set[tuple[int, int]] = set()
    without = 0
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        kind = None if folder is path else kind_of(folder)
        if kind is not None:
            yield folder, kind
            continue
        without += 1
        if without > MOST_FOLDERS:
            raise StoreError(f"{path} has over {MOST_FOLDERS:,} folders below it that hold no run. Give the folder of the runs.")
        children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
        waiting += reversed(children)


def unbegun_cells(path: Path) -> list[Path]:
    """Returns the folders of a sweep's cells that hold no run: they failed before they began."""
    if not (path / sweep.FILE).is_file():
        return []
    children = sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [child for child in children if kind_of(child) is None and not any(runs_below(child))]


def training_results(path: Path) -> dict[str, Any]:
    """Returns what a training run's evaluation.json holds; empty if the run has not come so far."""
    file = path / "evaluation.json"
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        msgspec.convert(content, _Results)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} is damaged: {error}. Restore it, or delete it.") from error
    return content


class _Measured(msgspec.Struct):
    sampled: Evaluation
    greedy: Evaluation


class _MeasuredAt(msgspec.Struct):
    sampled: Evaluation
    spent: dict[str, int]


class _Results(msgspec.Struct):
    """What a training run's evaluation.json must hold to be read."""

    before: _Measured | None = None
    after: _Measured | None = None
    at: dict[str, _MeasuredAt] = {}
    also: dict[str, _Measured | None] = {}
    spent: dict[str, int] = {}


def episode_runs(path: Path) -> list[Path]:
    """Returns the runs of episodes that a folder stands for: itself, what a training run keeps, or those of a sweep's cells.

    Raises:
        StoreError: if it holds none.
    """
    kind = kind_of(path)
    if kind is not None:
        return [with_episodes(path, kind)]
    cells = list(with_episodes_below(path)) if path.is_dir() else []
    if not cells:
        raise no_run(path)
    return cells


def with_episodes(path: Path, kind: Kind) -> Path:
    """Returns the folder that holds the episodes of a run: itself, or of a training run the one that keeps its rollouts.

    Raises:
        StoreError: if a training run keeps none.
    """
    if kind == "episodes":
        return path
    if runs.has_episodes(path / ROLLOUTS):
        return path / ROLLOUTS
    code = code_words({key: value for key, value in runs.config_of(path).items() if key != "algo"})
    raise StoreError(
        f"{path} is a training run that keeps no episodes (keep_rollouts=none, or an older version). "
        f"`{command('eval', override('trained', str(path)), *code)}` makes some with its policy."
    )


def with_episodes_below(path: Path) -> Iterator[Path]:
    """Yields the folders of episodes in the folders below a folder; training runs that keep none are left out."""
    for folder, kind in runs_below(path):
        if kind == "episodes" or runs.has_episodes(folder / ROLLOUTS):
            yield with_episodes(folder, kind)


def one_with_episodes(path: Path) -> Path:
    """Returns the folder of one run's episodes, for commands that show or write out one run.

    Raises:
        StoreError: if it holds none.
    """
    if (path / "trajectories").is_dir():
        return path
    kind = kind_of(path)
    if kind == "training":
        return with_episodes(path, "training")
    raise no_run(path, "{}") if kind is None else StoreError(f"{path} holds no episodes yet.")


def no_run(path: Path, form: str = "out={}") -> StoreError:
    """Returns the error for a folder that holds no run, with the nearest one that does.

    Args:
        path: the folder.
        form: how the command takes a folder, with ``{}`` in its place.
    """
    if path.is_dir() and (first := next(runs_below(path), None)):
        return StoreError(f"{path} is no run folder but a folder of runs: {form.format(first[0])} is one of them.")
    near = nearest_run(path)
    give = "" if form == "{}" else f", {form.format('...')}"
    hint = f"Did you mean {form.format(near)}?" if near else f"Give the folder that `swirl generate` or `swirl train` wrote{give}"
    failed = unbegun_cells(path) if path.is_dir() else []
    if failed:
        return StoreError(f"{path} is a sweep of {len(failed)} runs that all failed before they began: there is nothing to read.")
    what = "holds no run" if path.is_dir() else "is a file" if path.exists() else "does not exist"
    return StoreError(f"{path} is no run folder: it {what}. {hint}")


def check_resumable(options: RunOptions, keys: Set[str]) -> None:
    """Refuses a command that asks for nothing but to go on with a run, if there is none.

    Args:
        options: the options of the command line.
        keys: those that the command line sets.

    Raises:
        StoreError: with the nearest run.
        ConfigError: if it names no run: a new folder would get other episodes than those that were meant.
    """
    path = Path(options.out or "")
    if options.resume and "resume" in keys and "out" not in keys and not runs.exists(path):
        raise ConfigError("resume=true goes on with a run: name its folder too, out=...")
    asked = {key for key in keys if not key.startswith("hydra")}
    if options.resume and "out" in asked and not asked - {*options.FREE, *options.GROWING} and not runs.exists(path):
        raise no_run(path)


def nearest_run(path: Path) -> Path | None:
    """Returns the run that a path lies in, or else what is next to it with the nearest name: a run, or a folder of runs."""
    if path.exists():
        around = next((folder for folder in path.parents if folder != Path() and kind_of(folder) is not None), None)
        if around is not None:
            return around
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    try:
        names = {child.name: child for child in parent.iterdir() if child != path and _holds_runs(child)}
    except OSError:
        return None
    wanted, *rest = path.relative_to(parent).parts if path != parent else (path.name,)
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
    near = names[close[0]] if close else next(iter(names.values())) if len(names) == 1 else None
    return near.joinpath(*rest) if near is not None and rest and _holds_runs(near.joinpath(*rest)) else near


def _holds_runs(path: Path) -> bool:
    """Returns whether a folder is a run, a sweep, or has runs in it (`swirl bench` makes such)."""
    try:
        return (path / sweep.FILE).is_file() or kind_of(path) is not None or any(map(kind_of, path.iterdir()))
    except (OSError, StoreError):  # a folder next to it that cannot be read is no help, and no mistake of this command
        return False
