"""Run folders of the stages: begun once, continued with the same configuration, never mixed."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

import msgspec

from swirl_env.config import failures, sweep
from swirl_env.config.options import RunOptions
from swirl_env.errors import ConfigError, StoreError, unknown_name
from swirl_env.fingerprint import fingerprint
from swirl_env.registry import Spec
from swirl_env.stages.dates import pin_dates
from swirl_env.stages.environment import note_environment
from swirl_env.stages.run_config import Config, read_config, resumed, same_run, to_config, to_options, to_yaml
from swirl_env.store import Store
from swirl_env.store.lines import replace_file

R = TypeVar("R", bound=RunOptions)
_OURS = (sweep.FILE, failures.FILE)
"""Files that a sweep leaves in a folder before its runs begin."""


def settle(options: R, keys: Collection[str] | None = None) -> R:
    """Returns the options to run with in view of what the run folder holds; writes nothing.

    A run that is resumed goes on as its config.yaml says, from the first byte: keys on the command line may repeat that, or
    let limits grow. Whoever writes afterwards checks once more under the lock (`open_run`, `claim`).

    Args:
        options: the options of the command line; ``out`` is set.
        keys: those that the command line sets; None for all.

    Raises:
        StoreError: if the folder holds a run already and ``resume`` is not set, or is no folder of ours.
        ConfigError: if a run would be continued with another configuration, or runs code that was not asked for.
    """
    if options.out is None:
        raise ConfigError("out=null: a run needs a folder. Name it, out=..., or leave out= away.")
    path = Path(options.out)
    stored = _check_begin(path, options)
    options = pin_dates(options, stored if options.resume else None)
    if stored is None or not options.resume:
        return options
    config = resumed(path, stored, options, keys)
    return to_options(path, {**config, **{key: getattr(options, key) for key in options.FREE}}, type(options))


def open_run(options: RunOptions) -> Store:
    """Opens the run folder for writing: takes the lock, then compares, then writes the configuration.

    Raises:
        StoreError: as `settle`, or if another process is writing to the folder.
        ConfigError: as `settle`.
    """
    store = Store(options.out or "")
    try:
        store.lock()
        claim(options)
    except BaseException:
        store.close()
        raise
    return store


def claim(options: RunOptions) -> None:
    """Checks, under the writer's lock, that the folder is still what `settle` saw, and writes its config.yaml.

    Raises:
        StoreError: if another process has begun a run in it meanwhile.
        ConfigError: if that run has another configuration.
    """
    path = Path(options.out or "")
    stored = _check_begin(path, options)
    if stored is not None and options.resume:
        same_run(path, stored, options)
    if stored is None or not options.resume or stored != to_config(options):
        replace_file(path / "config.yaml", to_yaml(options).encode())
    note_environment(path)


def _check_begin(path: Path, options: RunOptions) -> Config | None:
    """Returns the stored configuration, None for a new folder; refuses one in which these options have no place."""
    stored = read_config(path)
    if stored is None:
        _refuse_foreign(path)
        return None
    if ("algo" in stored) != ("algo" in to_config(options)):
        raise StoreError(f"{path} holds a run of another stage. Choose another out=.")
    if not options.resume and ("algo" in stored or has_episodes(path)):
        raise StoreError(f"{path} already holds a run. To go on with it add resume=true; to begin another choose another out=.")
    return stored


def has_episodes(path: Path) -> bool:
    """Whether a folder holds stored episodes, finished or not."""
    return any(file.stat().st_size for file in (path / "trajectories").glob("*.jsonl"))


def _refuse_foreign(path: Path) -> None:
    """Refuses a folder without a configuration that is not empty.

    Raises:
        StoreError: with what to do.
    """
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file, not a folder. Choose another out=.")
    if has_episodes(path):
        raise StoreError(f"{path} holds episodes but no config.yaml, so nobody can tell whether they fit. Choose another out=.")
    if any(file.is_file() and not file.name.startswith(".") and file.name not in _OURS for file in path.rglob("*")):
        raise StoreError(f"{path} already holds files that are no run of `swirl`. Choose another out=.")


def config_of(path: str | Path) -> Config:
    """Returns the configuration of a run folder; an empty one for episodes that a loop of the user's own has stored.

    Raises:
        StoreError: if there is neither.
    """
    stored = read_config(Path(path))
    if stored is None and not has_episodes(Path(path)):
        raise StoreError(
            f"{path} is no run folder: it has neither config.yaml nor trajectories. Give the folder that `swirl generate` or a "
            f"Store wrote, out=..."
        )
    return stored or {}


def table_name(plugin: Spec, made: object) -> str:
    """Returns the name of a judge's table of verdicts: the judge's own fingerprint, or that of its options."""
    return fingerprint(made if isinstance(getattr(made, "fingerprint", None), str) else plugin)


def table_of(store: Store, judge: str | None) -> str | None:
    """Returns the table that a name means: a fingerprint, or the name of a judge that has one table in this run.

    Raises:
        UnknownName: if there is none.
        ConfigError: if a judge has several, made with different options.
    """
    tables = store.judges()
    if judge is None or judge in tables:
        return judge
    matches = [table for table in tables if table.rpartition("-")[0] == judge]
    if len({re.sub(r"\.\d+$", "", table) for table in matches}) == 1:
        return max(matches, key=lambda table: (len(table), table))  # judged again: the newest
    if len(matches) > 1:
        raise ConfigError(
            f"{judge!r} has judged {store.path} with different options or code; say which table: {', '.join(matches)}."
        )
    if not matches:
        raise unknown_name("table of verdicts", judge, tables)
    return matches[0]


def exists(path: Path) -> bool:
    """Whether a folder holds a run, of a stage or of a loop of the user's own."""
    return read_config(path) is not None or has_episodes(path)


def write_json(path: Path, content: object) -> None:
    """Writes a small file of results atomically."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
