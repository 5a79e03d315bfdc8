"""A stage as a hydra application over the one config tree; hydra's errors as one line each."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeGuard

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from swirl_env.config.arguments import Arguments, compose_stage, config_tree, read_arguments, tools_of_task
from swirl_env.config.errors import explained
from swirl_env.config.failures import forget_failure, note_failure
from swirl_env.config.help import stage_help
from swirl_env.config.hydra_plugins import register
from swirl_env.config.orphans import guarded_children
from swirl_env.config.overrides import command, override
from swirl_env.config.stages import STAGES
from swirl_env.config.sweep import reads_run, sweep_folders
from swirl_env.errors import (
    ConfigError,
    Interrupted,
    PluginError,
    StoreError,
    StoreLocked,
    SwirlError,
    describe_os_error,
    plugin_failure,
)
from swirl_env.registry import missing

TREE = "pkg://swirl_env.conf"
"""Where the config tree is."""
_FULL = "HYDRA_FULL_ERROR"
_OF_THE_TREE = {"config-dir", "config-name"}
"""Flags that say what is composed; the others ask hydra something."""
_RUN_KEYS = ("out", "resume")

Main = Callable[[DictConfig], float | None]
"""What runs a stage; returns the number that a sweeper optimises."""


class Sweep(NamedTuple):
    """A sweep that has made run folders."""

    folder: Path
    error: Exception | None
    """Why one of its cells failed; None if all of them ended well."""


def run_stage(stage: str, argv: Sequence[str]) -> Sweep | None:
    """Composes the configuration of a stage and runs it; returns the sweep if that made run folders."""
    register()
    with _one_line_errors(stage):
        arguments = read_arguments(argv)
        if arguments.help:
            print(stage_help(stage, arguments))
            return None
        tools = tools_of_task(stage, arguments)
        if not arguments.multirun and _is_sweep(stage, replace(arguments, overrides=(*tools, *arguments.overrides))):
            arguments = replace(arguments, multirun=True)
        if not arguments.multirun:
            _run(stage, arguments, *tools)
            return None
        return _sweep(stage, arguments, tools)


def _is_sweep(stage: str, arguments: Arguments) -> bool:
    """Whether config files or the command line say ``hydra.mode: MULTIRUN``, as presets of experiments do."""
    if {"cfg", "info", "shell-completion", "hydra-help"} & arguments.flags.keys():
        return False
    keys = arguments.keys()
    if not (arguments.flags.keys() & _OF_THE_TREE or any(key.startswith(("experiment", "hydra")) for key in keys)):
        return False
    return bool(compose_stage(stage, arguments).hydra.mode == RunMode.MULTIRUN)


def _run(stage: str, arguments: Arguments, *more: str) -> None:
    """Runs a stage on its arguments, `more` overrides in front of them.

    What only asks hydra something (``--cfg``, ``--info``) goes through hydra's own program. That composes a configuration twice,
    first to see whether it sets ``hydra.mode``; which is known here.
    """
    argv = arguments.for_hydra(*more)
    with _program(f"swirl {stage}", argv), guarded_children() if arguments.multirun else nullcontext():
        if arguments.flags.keys() - _OF_THE_TREE:
            hydra.main(config_path=TREE, config_name=stage, version_base="1.3")(_task(stage))()
            return
        task = _task(stage)
        with config_tree(stage, arguments) as tree:
            run, mode = (tree.multirun, RunMode.MULTIRUN) if arguments.multirun else (tree.run, RunMode.RUN)
            words = [*more, *arguments.overrides, f"hydra.mode={mode.name}"]
            run(str(arguments.flags.get("config-name", stage)), task, words)


def _sweep(stage: str, arguments: Arguments, tools: Sequence[str]) -> Sweep | None:
    """Runs every cell of a sweep; commands that read run folders leave nothing but what they write into those."""
    if reads_run(stage, arguments.keys()):
        with tempfile.TemporaryDirectory(prefix="swirl-sweep-") as folder:  # hydra wants a folder for its notes
            notes = [override("hydra.sweep.dir", folder), "hydra.sweep.subdir=${hydra.job.num}"]
            try:
                _run(stage, arguments, *notes, *tools)
            except KeyboardInterrupt:
                raise Interrupted(f"To go on: {_again(stage, arguments, [])}") from None
        return None
    _refuse_swept_folder(arguments)
    _refuse_folder_of_a_run(stage, replace(arguments, overrides=(*tools, *arguments.overrides)))
    fixed = [override("hydra.job.config.override_dirname.exclude_keys", _fixed_keys(arguments, tools))]
    before = len(sweep_folders)
    error: Exception | None = None
    try:
        _run(stage, arguments, *fixed, *tools)
    except KeyboardInterrupt:
        raise Interrupted(f"To go on: {_again(stage, arguments, sweep_folders[before:])}") from None
    except (HydraException, OmegaConfBaseException):  # before any cell began
        _remove_if_empty(sweep_folders[before:])
        raise
    except Exception as failure:
        error = failure
    folders = sweep_folders[before:]
    if not folders or _remove_if_empty(folders):
        raise error or ConfigError("The sweep has no runs: none of its values stands for anything.")
    return Sweep(folders[0], error) if folders else None


def _refuse_swept_folder(arguments: Arguments) -> None:
    for word in arguments.parsed():
        if word.key_or_group in _RUN_KEYS and word.is_sweep_override():
            raise ConfigError(f"{word.input_line}: a sweep has one folder, out=..., in which each of its runs gets its own.")


def _refuse_folder_of_a_run(stage: str, arguments: Arguments) -> None:
    """Refuses a folder for a sweep that is a file, or a single run."""
    try:
        folder = Path(str(compose_stage(stage, arguments).hydra.sweep.dir))
    except OmegaConfBaseException:  # it depends on what is swept
        return
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file, not a folder. Choose another out=.")
    if (folder / "config.yaml").exists():
        raise StoreError(f"{folder} holds a single run, so it cannot be the folder of a sweep. Choose another out=.")


def _fixed_keys(arguments: Arguments, tools: Sequence[str]) -> list[str]:
    """Returns the keys that are the same in every cell of a sweep: they say nothing in the name of a cell's folder."""
    words = arguments.parsed()
    fixed = {word.key_or_group for word in words if not word.is_sweep_override()} | {word.partition("=")[0] for word in tools}
    swept = {word.key_or_group for word in words if word.is_sweep_override()}
    return sorted({*(fixed - swept), *_RUN_KEYS})


def _again(stage: str, arguments: Arguments, folders: Sequence[Path]) -> str:
    """Returns the command that goes on with a sweep, or begins it if it has not come as far as a folder."""
    words = [word for word in arguments.overrides if not (folders and word.partition("=")[0] in _RUN_KEYS)]
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in arguments.flags.items()]
    out = [override("out", str(folders[0])), "resume=true"] if folders else []
    return command(stage, "-m", *flags, *words, *out)


def _remove_if_empty(folders: Sequence[Path]) -> bool:
    """Removes the folder of a sweep none of whose cells was begun; returns whether it did."""
    for folder in folders:
        if folder.is_dir() and [path.name for path in folder.iterdir()] in ([], ["multirun.yaml"]):
            shutil.rmtree(folder)
            return True
    return False


class _Failed(BaseException):
    """Carries an error past hydra, which would print a line of its own about it."""

    def __init__(self, error: SwirlError) -> None:
        self.error = error


def _task(stage: str) -> Main:
    """Returns the stage's task function.

    In a sweep errors are left to hydra: it says which cell failed and runs the others.
    """
    try:
        main: Main = importlib.import_module(STAGES[stage].module).main
    except ModuleNotFoundError as error:
        raise missing("stage", stage, error) from error

    @functools.wraps(main)
    def task(config: DictConfig) -> float | None:
        alone = HydraConfig.get().mode == RunMode.RUN
        folder = Path(HydraConfig.get().runtime.output_dir)
        if not alone:
            forget_failure(folder)
        try:
            figure = main(config)
            if not alone:
                forget_failure(folder)
            return figure
        except BrokenPipeError:
            raise
        except BaseException as raised:
            error = _ended(raised)
            failure = StoreError(describe_os_error(error)) if _is_of_the_system(error) else error
            if alone and isinstance(failure, SwirlError):
                raise _Failed(failure) from error
            if not alone and not isinstance(failure, StoreLocked):  # somebody else is at it, maybe another such sweep
                note_failure(folder, failure)
            raise failure from error.__cause__ if failure is error else error

    return task


def _ended(error: BaseException) -> Exception:
    """Returns what ended a stage; a plugin that ends the program itself, with whatever exit code, is an error."""
    failure = plugin_failure(error)
    if failure is error:
        return failure
    plugin = PluginError(f"A plugin ended the program: {failure} was raised. Raise an ordinary exception in its place.")
    plugin.__cause__ = failure
    return plugin


def _is_of_the_system(error: Exception) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and not isinstance(error, SwirlError)


@contextmanager
def _program(name: str, argv: Sequence[str]) -> Iterator[None]:
    """Lets hydra, which reads ``sys.argv``, see these arguments, and leaves no trace of it in the process."""
    before, handlers, level = sys.argv, logging.root.handlers[:], logging.root.level
    sys.argv = [name, *argv]
    try:
        yield
    finally:
        sys.argv = before
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        GlobalHydra.instance().clear()


@contextmanager
def _one_line_errors(stage: str) -> Iterator[None]:
    """Turns errors of hydra and omegaconf into `SwirlError`s of one line; ``HYDRA_FULL_ERROR=1`` leaves them alone."""
    if os.environ.get(_FULL) == "1":
        yield
        return
    os.environ[_FULL] = "1"  # or hydra prints the error and leaves
    try:
        yield
    except _Failed as failed:
        raise failed.error from failed.error.__cause__
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        known = explained(stage, error)
        if known is None:
            raise
        raise known from error
    finally:
        del os.environ[_FULL]
