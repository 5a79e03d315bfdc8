"""A stage as a hydra application over the one config tree; hydra's errors as one line each."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from swirl_env.config.errors import explained
from swirl_env.config.help import stage_help
from swirl_env.config.hydra_plugins import register
from swirl_env.config.stages import STAGES
from swirl_env.errors import ConfigError, SwirlError
from swirl_env.registry import load, missing

TREE = "pkg://swirl_env.conf"
"""Where the config tree lies."""
_FULL = "HYDRA_FULL_ERROR"
_RUN_KEYS = ("out", "resume")
_PLAIN_KEY = re.compile(r"[+~]{0,2}[\w./@-]+")
_SWEEP = ("-m", "--multirun")
_HELP = ("-h", "--help")


def run_stage(stage: str, argv: Sequence[str]) -> int:
    """Composes the configuration of a stage and runs it; returns the exit code."""
    register()
    argv = [_readable(arg) for arg in argv]
    if any(arg in _HELP for arg in argv):
        with _one_line_errors(stage):
            print(stage_help(stage, [arg for arg in argv if arg not in _HELP]))
        return 0
    argv = [*_tools_of_task(argv), *argv]
    if any(arg in _SWEEP for arg in argv):
        argv = [arg for arg in argv if arg not in _SWEEP]
        fixed = ",".join(_fixed_keys(argv))
        argv = [f"hydra.job.config.override_dirname.exclude_keys=[{fixed}]", *argv, "--multirun"]  # flags last, for argparse
    sweeps: list[str] = []
    with _one_line_errors(stage), _program(f"swirl {stage}", argv):
        hydra.main(config_path=TREE, config_name=stage, version_base="1.3")(_task(stage, sweeps))()
    if len(sweeps) > 1:
        compare = (
            f"evaluation.json in each folder of {sweeps[0]}" if stage == "train" else f"swirl eval out={shlex.quote(sweeps[0])}"
        )
        print(f"next, to compare the {len(sweeps)} runs: {compare}")
    return 0


class _Failed(BaseException):
    """Carries an error past hydra, which would print a line of its own about it."""

    def __init__(self, error: SwirlError) -> None:
        self.error = error


def _task(stage: str, sweeps: list[str]) -> Callable[[DictConfig], None]:
    """Returns the stage's task function; it notes in `sweeps` the folder of the sweep that it is run for.

    In a sweep errors are left to hydra: it says which job failed and runs the others.
    """
    try:
        main: Callable[[DictConfig], None] = importlib.import_module(STAGES[stage].module).main
    except ModuleNotFoundError as error:
        raise missing("stage", stage, error) from error

    @functools.wraps(main)
    def task(config: DictConfig) -> None:
        try:
            main(config)
        except SwirlError as error:
            if HydraConfig.get().mode == RunMode.RUN:
                raise _Failed(error) from error
            raise
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            sweeps.append(HydraConfig.get().sweep.dir)

    return task


def _readable(arg: str) -> str:
    """Returns an argument as hydra can read it.

    It has no words for ``judge=null``, and takes ``=`` or spaces in a value only in quotes, which a shell takes away
    (``out=runs/agent.noise=0.2`` is the folder of a sweep's job).
    """
    arg = {"judge=null": "judge=none", "tool=none": "tool=[]"}.get(arg, arg)
    key, equals, value = arg.partition("=")
    if not equals or arg.startswith("-") or not value or value[0] in "[{('\"" or not _PLAIN_KEY.fullmatch(key):
        return arg
    try:
        OverridesParser.create().parse_overrides([arg])
    except HydraException:
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{escaped}'"
    return arg


def _tools_of_task(argv: Sequence[str]) -> list[str]:
    """Returns the override that chooses the task's own tools where options of tools are set but no tools are chosen.

    So ``task=hotpotqa tool.search.top_k=10`` means what it says.
    """
    if any(arg.startswith("tool=") for arg in argv) or not any(arg.startswith("tool.") for arg in argv):
        return []
    task = next((arg.partition("=")[2] for arg in reversed(argv) if arg.startswith("task=")), "atlas")
    tools = getattr(load("task", task), "tools", None)
    if not isinstance(tools, tuple):
        raise ConfigError(f"The tools of the task {task!r} are known when it is made: choose them too, tool=[search,...].")
    return [f"tool=[{','.join(tools)}]"]


def _fixed_keys(argv: Sequence[str]) -> list[str]:
    """Returns the keys that are the same in every job of a sweep: they say nothing in the name of a job's folder."""
    given = [arg for arg in argv if "=" in arg and not arg.startswith("-")]
    fixed = [o.key_or_group for o in OverridesParser.create().parse_overrides(given) if not o.is_sweep_override()]
    return sorted({*fixed, *_RUN_KEYS})


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
