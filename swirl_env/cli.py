"""The command ``swirl <stage> key=value ...``. Nothing heavy is imported before a stage runs, hydra included."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from swirl_env.config.stages import STAGES
from swirl_env.errors import SwirlError, unknown_name

if TYPE_CHECKING:
    from swirl_env.config.app import Sweep

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a stage and returns the exit code: 0 done, 1 a check failed, 2 an error, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    let_waiting_threads_sleep()
    try:
        return _dispatch(argv)
    except SwirlError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"swirl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\nswirl: interrupted. {interrupt}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has left, as in `swirl eval ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def let_waiting_threads_sleep() -> None:
    """Lets OpenMP's threads sleep while they wait; threads that spin made training six times slower on shared cores.

    OpenMP reads this when torch is loaded, so it has to be called before. A setting of the user's own is left alone.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _dispatch(argv: list[str]) -> int:
    stage, *rest = argv or ["--help"]
    if stage in ("-h", "--help", "help"):
        print(usage())
        return 0
    if stage in ("-V", "--version"):
        from swirl_env import __version__

        print(f"swirl-env {__version__}")
        return 0
    if stage not in STAGES:
        raise unknown_name("stage", stage, STAGES)
    if STAGES[stage].plain:
        code: int = importlib.import_module(STAGES[stage].module).run(rest)
        return code
    from swirl_env.config.app import run_stage

    sweep = run_stage(stage, rest)
    if sweep is not None:
        _show_sweep(sweep)
    return 0


def _show_sweep(sweep: Sweep) -> None:
    """Prints the table that a sweep ends with; raises the error of the cell that failed, if one did."""
    from swirl_env.stages.sweeps import show_sweep

    try:
        show_sweep(sweep.folder)
    except SwirlError:
        if sweep.error is None:
            raise
    if sweep.error is not None:
        raise sweep.error


def usage() -> str:
    """Returns the help of the command itself."""
    width = max(map(len, STAGES))
    stages = "\n".join(f"  {name:<{width}}  {stage.summary}" for name, stage in STAGES.items())
    return f"""\
usage: swirl STAGE [group=choice ...] [key=value ...] [--multirun]

{stages}

`swirl STAGE --help` lists groups, choices and keys.   For a start: swirl generate task=atlas agent=scripted n=200"""


if __name__ == "__main__":
    sys.exit(main())
