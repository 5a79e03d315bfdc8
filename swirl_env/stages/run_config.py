"""config.yaml of a run folder: read with care, since the folder may come from anybody, and laid under the command line's keys."""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import yaml
from msgspec.inspect import DataclassType, StructType, Type, type_info

from swirl_env.cluster import ClusterOptions
from swirl_env.config.options import RunOptions, with_recorded_texts
from swirl_env.config.overrides import (
    choice,
    cluster_words,
    command,
    command_line_keys,
    command_line_words,
    override,
    tool_choices,
)
from swirl_env.config.plugins import GROUPS, with_texts
from swirl_env.errors import ConfigError, StoreError
from swirl_env.stages.run_yaml import read_yaml, write_yaml
from swirl_env.store.lines import open_file
from swirl_env.texts import literal

Config = dict[str, Any]  # JSON values: what YAML holds
R = TypeVar("R", bound=RunOptions)
_PLUGINS = ("task", "agent", "judge", "grader", "algo", "tool", "format", "prompt")
"""Keys whose values name plugins."""
_CODE = re.compile(r"(?!package:)[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""``module:Attr``, a name that runs code; ``package:NAME`` names the files of a package."""
_SINCE_FIRST = frozenset(
    "task agent judge algo policy setting warm_start n samples seed max_steps max_chars format history prompt budget updates "
    "stored selection eval trainer model lora".split()
)
"""Keys that every config.yaml of their stage has; later options may be absent from older ones."""


def read_config(path: Path) -> Config | None:
    """Returns the content of a run folder's config.yaml; None if there is none.

    Raises:
        StoreError: if it cannot be read.
    """
    file = path / "config.yaml"
    try:
        with open_file(file) as opened:
            content = opened.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        fix = {errno.ENAMETOOLONG: "Choose a shorter name", errno.EACCES: "Give this user the right to read it"}.get(
            error.errno or 0, "Restore it"
        )
        raise StoreError(f"{file!s:.120} cannot be read: {error.strerror}. {fix}, or choose another folder with out=.") from error
    if not content.strip():
        return None
    try:
        config = read_yaml(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = re.sub(r"\s+", " ", str(error))[:200]
        raise _damaged(file, f"it cannot be read ({reason})") from error
    if not isinstance(config, dict):
        raise _damaged(file, "expected keys and values")
    return {str(key): value for key, value in config.items()}


def _damaged(file: Path, why: str) -> StoreError:
    return StoreError(f"{file} is damaged: {why}. Restore it, or choose another folder with out=.")


def to_options(path: Path, config: Config, kind: type[R]) -> R:
    """Returns a configuration of a run folder as options.

    Raises:
        StoreError: if a value is missing, unknown or of another type.
    """
    for key in {"task", "agent", "judge", "grader", "algo"} & config.keys():
        if isinstance(config[key], dict) and not isinstance(config[key].get("name"), str):
            raise _damaged(path / "config.yaml", f"{key} lacks a name")
    try:
        return _with_literal_texts(msgspec.convert(config, kind))
    except msgspec.ValidationError as error:
        reason = (
            str(error)
            .replace("`", "'")
            .replace("Object missing required", "it lacks the")
            .replace("Object ", "it ")
            .replace(" - at '$.", " at '")
        )
        raise _damaged(path / "config.yaml", f"{reason}; it was edited, or written by another version of swirl-env") from error


def _with_literal_texts(options: R) -> R:
    """Returns options of a run folder whose texts are read as they stand: files were read when the run began."""

    def form(text: str, key: str) -> str:
        return literal(text)

    plugins = {key: getattr(options, key) for key in GROUPS if isinstance(getattr(options, key, None), dict)}
    changes = {key: with_texts(key, value, form) for key, value in plugins.items() if "name" in value}
    return with_recorded_texts(msgspec.structs.replace(options, **changes), form)


def resumed(path: Path, stored: Config, options: RunOptions, keys: Collection[str] | None) -> Config:
    """Returns the configuration to go on with: the stored one, with the keys that the command line sets laid over it.

    Args:
        path: the run folder.
        stored: its configuration.
        options: the options of the command line, defaults included.
        keys: those that the command line sets; None for all.

    Raises:
        ConfigError: if that differs from the stored one in more than limits that have grown, or if the stored one names code
            that the command line does not.
    """
    given = to_config(options)
    before = with_new_options(stored, _with_usual_values(given, type(options), keys or ()))
    if keys is None or any(_top(key) not in {*given, *options.FREE} for key in keys):
        after = given
    else:
        after = before
        for key in keys:
            if _top(key) in given:
                after = _laid_over(after, given, key.split("."))
    _compare(path, before, after, options.GROWING)
    if keys is not None:
        check_code(path, after)
    return after


def to_config(options: RunOptions) -> Config:
    """Returns what config.yaml holds: everything that decides what the run ends with."""
    config: Config = msgspec.to_builtins(options)
    return {key: value for key, value in config.items() if key not in options.FREE}


def to_yaml(options: RunOptions) -> str:
    """Returns the text of the run's config.yaml."""
    return write_yaml(to_config(options))


def same_run(path: Path, stored: Config, options: RunOptions) -> None:
    """Refuses to go on with options under which other episodes would come out than those that are there.

    Raises:
        ConfigError: naming the keys that differ.
    """
    asked = to_config(options)
    _compare(path, with_new_options(stored, asked), asked, options.GROWING)


def code_names(config: Mapping[str, object]) -> list[str]:
    """Returns the names of a configuration's plugins that run code, ``module:Attr``, each with its top-level key first."""
    return sorted({f"{key}={name}" for key in _PLUGINS for name in _texts(config.get(key)) if _CODE.fullmatch(name)})


def _programs(config: Mapping[str, object]) -> list[str]:
    """Returns the keys under which a configuration's tools name a program to start, e.g. ``tool.mcp.command``."""
    tools = {"tool": config.get("tool") or {}}
    return [key for key, value in flat(tools).items() if key.rpartition(".")[2] == "command" and value]


def resume_command(stage: str, options: RunOptions) -> str:
    """Returns the command that goes on with a run.

    It repeats what config.yaml does not hold or does not answer for: options that were set and decide no result (trackers,
    how often to save), and what runs code (``module:Attr`` names, programs of tools).
    """
    set_keys = {_top(key) for key in command_line_keys()} & set(options.FREE) - {"out", "resume"}
    values = {key: getattr(options, key) for key in options.FREE if key in set_keys}
    words = [
        word
        for key, value in values.items()
        for word in (cluster_words(value) if isinstance(value, ClusterOptions) else [override(key, value)])
    ]
    return command(stage, override("out", options.out), "resume=true", *words, *code_words(to_config(options)))


def code_words(config: Config) -> list[str]:
    """Returns the arguments that name once more what a configuration runs: ``module:Attr``, programs of tools."""
    named = {name.partition("=")[0] for name in code_names(config)}
    words = [word for key in ("task", "agent", "judge", "grader", "algo") if key in named for word in choice(key, config[key])]
    if "tool" in named or _programs(config):
        words += tool_choices(config["tool"])
    words += [override(key, config[key]) for key in ("format", "prompt") if key in named]
    return words


def check_code(path: Path, config: Config, words: Sequence[str] | None = None) -> None:
    """Refuses code that a run folder names and the command line does not: the folder may come from somebody else.

    Args:
        path: the run folder.
        config: what it says.
        words: the arguments of the command line; None takes those of the stage that runs.

    Raises:
        ConfigError: naming it.
    """
    words = command_line_words() if words is None else words
    unasked = [name for name in code_names(config) if not any(name.partition("=")[2] in word for word in words)]
    if unasked:
        raise ConfigError(
            f"{path / 'config.yaml'} names code to run: {', '.join(unasked)}. If you trust it, name it on the command line "
            f"too, e.g. {unasked[0]}; otherwise choose another out=."
        )
    programs = _programs(config)
    if programs and not any(f"{programs[0].rpartition('.')[2]}=" in word for word in words):
        raise ConfigError(
            f"{path / 'config.yaml'} names a program to start: {programs[0]}={flat(config)[programs[0]]}. If you trust it, give "
            f"{programs[0]}= on the command line too; otherwise choose another out=."
        )
    trusting = [key for key in flat(config) if key.endswith("trust_remote_code") and flat(config)[key]]
    if trusting and not any("trust_remote_code=" in word.lower() for word in words):
        raise ConfigError(
            f"{path / 'config.yaml'} lets a model's folder run code. If you trust both, add {trusting[0]}=true to the command; "
            f"otherwise choose another out=."
        )


def _texts(value: object) -> Iterator[str]:
    """Yields every text in a value, keys of mappings included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def with_new_options(stored: Config, given: Config) -> Config:
    """Returns a stored configuration with the options that are newer than it, as they are in another."""
    newer = {key: given[key] for key in given.keys() - stored.keys() - _SINCE_FIRST}
    sections = {
        key: {**given[key], **value}
        for key, value in stored.items()
        if key not in _PLUGINS and isinstance(value, dict) and isinstance(given.get(key), dict)
    }
    return {**stored, **newer, **sections}


def _with_usual_values(given: Config, kind: type[RunOptions], keys: Collection[str]) -> Config:
    """Returns a configuration in which the options under `keys` have the values of runs from before there were such options."""
    for key in keys:
        given = _with_usual_value(given, type_info(kind), key.split("."))
    return given


def _with_usual_value(config: Config, kind: Type, path: list[str]) -> Config:
    key, *rest = path
    if key not in config:
        return config
    fields = {field.name: field for field in kind.fields} if isinstance(kind, StructType | DataclassType) else {}
    field = fields.get(key)
    if rest and field is not None and isinstance(config[key], dict):
        return {**config, key: _with_usual_value(config[key], field.type, rest)}
    others = {name: value for name, value in config.items() if name != key}
    if field is None or field.required:
        return others
    usual = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    return {**others, key: msgspec.to_builtins(usual)}


def _laid_over(config: Config, given: Config, path: list[str]) -> Config:
    """Returns a configuration with the value at one key taken from another.

    A plugin that is named once more keeps its stored options: ``agent=my_module:MyAgent`` repeats a name, nothing else.
    """
    key, *rest = path
    old, new = config.get(key), given.get(key)
    if rest and isinstance(old, dict) and isinstance(new, dict):
        return {**config, key: _laid_over(old, new, rest)}
    if not rest and key in _PLUGINS and _plugin_names(old) == _plugin_names(new):
        return config
    return {**config, key: new}


def _plugin_names(value: object) -> object:
    """Returns the name of a plugin, or of several in their order."""
    if not isinstance(value, dict):
        return value
    if "name" in value:
        return value["name"]
    return [cast("Config", plugin).get("name") if isinstance(plugin, dict) else plugin for plugin in value.values()]


def _top(key: str) -> str:
    return key.partition(".")[0].partition("@")[0]


def _compare(path: Path, stored: Config, asked: Config, growing: Collection[str]) -> None:
    """Refuses to continue a run with another configuration, unless only limits have grown."""
    before, now = flat(stored), flat(asked)

    def has_grown(key: str) -> bool:
        old, new = before.get(key), now.get(key)
        return key in growing and (new is None or (isinstance(old, int) and isinstance(new, int) and new >= old))

    def differs(key: str) -> bool:
        old, new = before.get(key), now.get(key)
        return old != new and not (old != old and new != new)  # NaN is what it was

    differ = [key for key in sorted({*before, *now}, key=_names_first) if differs(key) and not has_grown(key)]
    if differ:
        changes = "; ".join(f"{key} was {_brief(before.get(key))}, now {_brief(now.get(key))}" for key in differ[:3])
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        limits = f"; {' and '.join(growing)} may grow" if growing else ""
        raise ConfigError(
            f"{path} was begun with another configuration: {changes}{more}. Resume with the same one (`out={path} resume=true` "
            f"alone takes it from the folder{limits}), or choose another out=."
        )


def _names_first(key: str) -> tuple[bool, str]:
    return not key.endswith("name"), key


def flat(config: Mapping[str, object], prefix: str = "") -> Config:
    """Returns nested keys as dotted ones: ``agent.noise``."""
    values: Config = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            values.update(flat(value, f"{prefix}{key}."))
        else:
            values[f"{prefix}{key}"] = _comparable(value)
    return values


def _brief(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."


def _comparable(value: object) -> object:
    if isinstance(value, str):  # texts are stored with a line break at their end (see `swirl_env.texts`); older folders lack it
        return value.rstrip("\n")
    return list(value) if isinstance(value, tuple) else value
