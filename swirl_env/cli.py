"""The command ``swirl <stage> key=value ...``. Nothing heavy is imported before a stage runs, hydra included."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from swirl_env.config.stages import STAGES
from swirl_env.errors import SwirlError, describe_os_error, plugin_traceback, printable, unknown_name

if TYPE_CHECKING:
    from swirl_env.config.app import Sweep

INTERRUPTED = 130
"""Exit code after Ctrl-C; after another signal it is 128 and the signal's number."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a stage and returns the exit code.

    0 done, 1 a check failed, 2 an error, 130 interrupted, 143 terminated, 129 terminal closed.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    let_waiting_threads_sleep()
    try:
        with _termination_as_interrupt() as terminated, _own_command_line():
            return _dispatch(argv)
    except (SwirlError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of a pipe has left, as in `swirl eval ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _print_error(str(error) if isinstance(error, SwirlError) else describe_os_error(error), error)
        return 2
    except KeyboardInterrupt as interrupt:
        with suppress(OSError):  # the terminal may be gone
            print(f"\nswirl: interrupted. {printable(str(interrupt))}".rstrip(), file=sys.stderr)
        return 128 + terminated[0] if terminated else INTERRUPTED


@contextmanager
def _own_command_line() -> Iterator[None]:
    """Puts back what hydra knew of a command line: after a stage nothing in this process is a part of it any more."""

    def holder() -> Any:
        return vars(sys.modules["hydra.core.hydra_config"])["HydraConfig"].instance()

    loaded = "hydra.core.hydra_config" in sys.modules
    before = holder().cfg if loaded else None
    try:
        yield
    finally:
        if "hydra.core.hydra_config" in sys.modules:
            holder().cfg = before


@contextmanager
def _termination_as_interrupt() -> Iterator[list[int]]:
    """Lets SIGTERM and a closed terminal end a stage as Ctrl-C does, so that it says how to go on and ends its child processes.

    Yields:
        The signals that have come.
    """
    signals: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    caught = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_error(text: str, error: BaseException) -> None:
    """Prints an error as one line; below it where a plugin of somebody else's failed, if one did."""
    print(f"swirl: {printable(text)}", file=sys.stderr)
    lines = plugin_traceback(error)
    if lines:
        print(printable("".join(lines)).rstrip(), file=sys.stderr)


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
    from swirl_env.stages.trained import expand_trained

    sweep = run_stage(stage, expand_trained(stage, rest))
    if sweep is not None:
        _show_sweep(sweep)
    return 0


def _show_sweep(sweep: Sweep) -> None:
    """Prints the table that a sweep ends with; raises an error if a cell failed, whatever its launcher and sweeper made of it."""
    from swirl_env.stages.sweeps import failed_cells, show_sweep

    try:
        show_sweep(sweep.folder)
    except SwirlError:
        if sweep.error is None:
            raise
    failed, cells = failed_cells(sweep.folder)
    if failed:
        reason = re.sub(r"(?<!\.)\.$", "", next(iter(failed.values())))  # but for the dots of out=...
        raise SwirlError(
            f"{len(failed)} of {cells} runs failed, the first one: {reason}. Once that is fixed, the same command runs what is "
            f"missing."
        ) from sweep.error
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
