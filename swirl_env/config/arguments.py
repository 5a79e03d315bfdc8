"""The arguments of a stage as hydra reads them: in any order, in a shell's words, with the tools that a task brings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_module
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, SearchPathException
from omegaconf import DictConfig

from swirl_env.config.overrides import override, readable
from swirl_env.config.plugins import GROUPS, LISTS
from swirl_env.errors import ConfigError
from swirl_env.registry import load

_WITH_VALUE = ("cfg", "package", "config_name", "config_dir", "experimental_rerun", "info")
_SWITCHES = ("resolve", "run", "shell_completion", "hydra_help")


@dataclass(frozen=True)
class Arguments:
    """What the command line of a stage says: overrides, and hydra's own flags."""

    overrides: tuple[str, ...]
    flags: dict[str, str | bool] = field(default_factory=dict)
    """Flag -> value; True for a switch."""
    multirun: bool = False
    help: bool = False

    def for_hydra(self, *more: str) -> list[str]:
        """Returns them as hydra's parser takes them: overrides (`more` first), then flags."""
        flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in self.flags.items()]
        return [*more, *self.overrides, *flags, *(["--multirun"] if self.multirun else [])]

    def parsed(self) -> list[Override]:
        """Returns the overrides as hydra understands them."""
        return OverridesParser.create().parse_overrides(list(self.overrides))

    def keys(self) -> set[str]:
        """Returns the keys that the overrides set."""
        return {word.lstrip("+~").partition("=")[0] for word in self.overrides}


class _Parser(argparse.ArgumentParser):
    """Hydra's parser; a mistake is an error of ours."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(
            f"{message[:1].upper()}{message[1:]}. Arguments are key=value, and hydra's own flags (--help lists them)."
        )


def read_arguments(argv: Sequence[str]) -> Arguments:
    """Returns the arguments of a stage, which may come in any order.

    Raises:
        ConfigError: for a flag that hydra does not have.
    """
    known = get_args_parser()
    parser = _Parser(add_help=False, parents=[known], conflict_handler="resolve", allow_abbrev=False)
    words = parser.parse_intermixed_args(list(argv))
    if words.config_path is not None:
        raise ConfigError(
            f"--config-path={words.config_path} would put a folder in place of the tree of options. To add one to it: "
            f"--config-dir {words.config_path}"
        )
    flags: dict[str, str | bool] = {
        name.replace("_", "-"): value for name in (*_WITH_VALUE, *_SWITCHES) if (value := getattr(words, name))
    }
    arguments = Arguments(tuple(map(readable, words.overrides)), flags, words.multirun, words.help)
    _refuse_options_as_choices(arguments)
    return arguments


def _refuse_options_as_choices(arguments: Arguments) -> None:
    """Refuses ``tool=[{name:search,top_k:3}]`` and the like, which Python code takes but a config group does not.

    Raises:
        ConfigError: with the way to write it.
    """
    words = [word for word in arguments.overrides if word.partition("=")[0] in GROUPS]
    try:
        parsed = OverridesParser.create().parse_overrides(words)
    except HydraException:  # hydra says what is wrong, when its turn comes
        return
    for word in parsed:
        value, group = word.value(), word.key_or_group
        several = value if isinstance(value, list) and group in LISTS else [value]
        if not word.is_sweep_override() and any(isinstance(one, dict | list) for one in several):
            names, options = (f"{group}=[NAME,...]", f"{group}.NAME") if group in LISTS else (f"{group}=NAME", group)
            raise ConfigError(f"{word.input_line}: expected {names}; options have keys of their own, {options}.OPTION=VALUE.")


def compose_stage(stage: str, arguments: Arguments, without: str = "") -> DictConfig:
    """Returns the configuration of a stage, hydra's part included; of a sweep, that of its first run.

    Args:
        stage: the stage.
        arguments: its arguments.
        without: beginning of the overrides to leave out.
    """
    words = [_first_of(word) for word in arguments.parsed() if not (without and word.key_or_group.startswith(without))]
    with config_tree(stage, arguments):
        return compose(str(arguments.flags.get("config-name", stage)), [word for word in words if word], return_hydra_config=True)


@contextmanager
def config_tree(stage: str, arguments: Arguments) -> Iterator[Hydra]:
    """Lets hydra see the packaged tree and the folder of ``--config-dir``; yields what composes from them and runs.

    Raises:
        SearchPathException: for a ``--config-dir`` that is no folder.
    """
    with initialize_config_module("swirl_env.conf", job_name=stage, version_base="1.3"):
        if named := arguments.flags.get("config-dir"):
            folder = Path(str(named)).absolute()
            if not folder.is_dir():
                raise SearchPathException(f"Additional config directory '{folder}' not found")
            path = GlobalHydra.instance().config_loader().get_search_path()
            path.prepend("command-line", f"file://{folder}", "schema")
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2(stage, path)
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra


def _first_of(word: Override) -> str:
    if not word.is_sweep_override() or word.input_line is None:
        return word.input_line or ""
    try:
        return f"{word.get_key_element()}={next(word.sweep_string_iterator())}"
    except (HydraException, StopIteration):  # an interval, or names that only the tree knows: the sweeper chooses
        return ""


def tools_of_task(stage: str, arguments: Arguments) -> list[str]:
    """Returns the override that selects the task's own tools if options of tools are set but no tools are selected.

    So ``task=hotpotqa tool.search.top_k=10`` means what it says, wherever the task is named: command line or own config files.
    """
    keys = arguments.keys()
    if "tool" in keys or not any(key.startswith("tool.") for key in keys):
        return []
    config = compose_stage(stage, arguments, without="tool.")
    if "task" not in config.hydra.runtime.choices or config.get("tool") is not None:
        return []
    task = "atlas" if config.get("task") is None else str(config.task.name)
    tools = getattr(load("task", task), "tools", None)
    if not isinstance(tools, tuple):
        raise ConfigError(f"The tools of the task {task!r} are known when it is made: select them too, tool=[search,...].")
    return [override("tool", tools)]
