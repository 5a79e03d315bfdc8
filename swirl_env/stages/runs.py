"""Run folders of the stages: begun once, continued with the same configuration, never mixed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from omegaconf import OmegaConf

from swirl_env.config.options import RunOptions
from swirl_env.errors import ConfigError, StoreError, unknown_name
from swirl_env.fingerprint import fingerprint
from swirl_env.registry import Spec
from swirl_env.store import Store
from swirl_env.store.lines import replace_file

R = TypeVar("R", bound=RunOptions)
_OURS = ("multirun.yaml",)
"""Files that a sweep leaves in a folder before its runs begin."""


def agreed(options: R, given: Collection[str] | None = None) -> R:
    """Returns the options to run with in view of what the run folder holds; writes nothing.

    Args:
        options: what was asked for; ``out`` is set.
        given: keys that the command line sets; if they say nothing of what to run, a resumed run goes on as it began.
            None stands for all.

    Raises:
        StoreError: if the folder holds a run already and ``resume`` is not set, or is no folder of ours.
        ConfigError: if a run would be continued with another configuration.
    """
    path = Path(options.out or "")
    stored = _stored(path)
    if stored is None:
        _refuse_foreign(path)
        return options
    asked = recorded(options)
    if ("algo" in stored) != ("algo" in asked):
        raise StoreError(f"{path} holds a run of another stage. Choose another out=.")
    if not options.resume:
        if "algo" not in stored and not _episodes_in(path):
            return options
        raise StoreError(f"{path} already holds a run. To go on with it add resume=true; to begin another choose another out=.")
    if given is not None and not set(given) - {*options.FREE, *options.GROWING}:
        asked = {**stored, **{key: asked[key] for key in options.GROWING if key in given}}
    compare(path, stored, asked, options.GROWING)
    return msgspec.convert({**asked, **{key: getattr(options, key) for key in options.FREE}}, type(options))


def _episodes_in(path: Path) -> bool:
    return any(file.stat().st_size for file in (path / "trajectories").glob("*.jsonl"))


def _refuse_foreign(path: Path) -> None:
    """Refuses a folder without a configuration that is not empty.

    Raises:
        StoreError: with what to do.
    """
    if _episodes_in(path):
        raise StoreError(f"{path} holds episodes but no config.yaml, so nobody can tell whether they fit. Choose another out=.")
    if any(file.is_file() and not file.name.startswith(".") and file.name not in _OURS for file in path.rglob("*")):
        raise StoreError(f"{path} already holds files that are no run of `swirl`. Choose another out=.")


def opened(options: RunOptions) -> Store:
    """Opens the run folder for writing and notes the configuration in it."""
    store = Store(options.out or "")
    store.write_config(to_yaml(options))
    return store


def recorded(options: RunOptions) -> dict[str, Any]:
    """Returns what config.yaml keeps: everything that decides what the run ends with."""
    config: dict[str, Any] = msgspec.to_builtins(options)
    return {key: value for key, value in config.items() if key not in options.FREE}


def to_yaml(options: RunOptions) -> str:
    """Returns the text of the run's config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.create(recorded(options)))


def config_of(path: str | Path) -> dict[str, Any]:
    """Returns the configuration of a run folder.

    Raises:
        StoreError: where there is none.
    """
    stored = _stored(Path(path))
    if stored is None:
        raise StoreError(f"{path} is no run folder: it has no config.yaml. Give the folder that `swirl generate` wrote, out=...")
    return stored


def _stored(path: Path) -> dict[str, Any] | None:
    if not path.is_dir() or not (text := Store(path, "r").config()):
        return None
    config = OmegaConf.to_container(OmegaConf.create(text))
    if not isinstance(config, dict):
        raise StoreError(f"{path / 'config.yaml'} is damaged: expected keys and values. Restore it, or choose another out=.")
    return {str(key): value for key, value in config.items()}


def compare(path: Path, stored: dict[str, Any], asked: dict[str, Any], growing: Collection[str]) -> None:
    """Refuses to continue a run with another configuration, unless only limits have grown.

    Args:
        path: the run folder.
        stored: its configuration.
        asked: what it would go on with.
        growing: keys whose value may be larger than before, or None for no limit.
    """
    before, now = _flat(stored), _flat(asked)

    def grown(key: str) -> bool:
        return now.get(key) is None or (before.get(key) is not None and now[key] >= before[key])

    keys = sorted({*before, *now})
    differ = [key for key in keys if before.get(key) != now.get(key) and not (key in growing and grown(key))]
    if differ:
        changes = "; ".join(f"{key} was {before.get(key)}, now {now.get(key)}" for key in differ[:3])
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise ConfigError(
            f"{path} was begun with another configuration: {changes}{more}. Resume with the same one (`out={path} resume=true` "
            f"alone takes it from the folder; {' and '.join(growing)} may grow), or choose another out=."
        )


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested keys as dotted ones: ``agent.noise``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def table_name(plugin: Spec, made: object) -> str:
    """Returns the name of a judge's table of verdicts: the judge's own fingerprint, or that of its options."""
    return fingerprint(made if isinstance(getattr(made, "fingerprint", None), str) else plugin)


def table_of(store: Store, judge: str | None) -> str | None:
    """Returns the table that a name means: a fingerprint, or the name of a judge that has one table in this run.

    Raises:
        UnknownName: where there is none.
        ConfigError: where a judge has several, made with different options.
    """
    tables = store.judges()
    if judge is None or judge in tables:
        return judge
    found = [table for table in tables if table.rpartition("-")[0] == judge]
    if len(found) > 1:
        raise ConfigError(f"{judge!r} has judged {store.path} with different options; say which table: {', '.join(found)}.")
    if not found:
        raise unknown_name("table of verdicts", judge, tables)
    return found[0]


def exists(path: Path) -> bool:
    """Whether a folder holds a run."""
    return _stored(path) is not None


def below(path: Path) -> list[Path]:
    """Returns the runs in the folders below a folder that is none itself, as a sweep leaves them; sorted."""
    if not path.is_dir() or exists(path):
        return []
    return sorted(file.parent for file in path.rglob("config.yaml") if (file.parent / "trajectories").is_dir())


def write_json(path: Path, content: object) -> None:
    """Writes a small file of results in one go."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
