"""Work in processes of its own, several at a time: training runs and warm starts, each on one core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, Generic, TypeVar

from swirl_env.cli import INTERRUPTED
from swirl_env.errors import SwirlError, describe_os_error, printable
from swirl_env.stages.progress import Advance

T = TypeVar("T")
PRELOADED = "swirl_env.benchmarks.training_preload"
_OF_GROUPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a terminal or a supervisor sends to all processes of a command at once."""
_LONGEST = 2_000
"""Characters of a reason: a pipe takes them at once, however long the parent takes to read them."""


@dataclass(frozen=True)
class Failure(Generic[T]):
    """What failed, and why."""

    work: T
    reason: str
    """The error in a sentence; empty if the process ended without one."""
    exitcode: int
    """Below zero after a signal: minus its number."""

    def why(self, said: str = "it said nothing") -> str:
        """Returns the reason; without one, what ended the process or the last that it `said` elsewhere."""
        if self.reason or self.exitcode >= 0:
            return self.reason or said
        return f"it was ended by {signal.Signals(-self.exitcode).name}"


@dataclass(frozen=True)
class _Process(Generic[T]):
    work: T
    process: ForkServerProcess
    reasons: connection.Connection

    def failure(self) -> Failure[T]:
        try:
            reason = self.reasons.recv_bytes().decode() if self.reasons.poll() else ""
        except (EOFError, OSError):
            reason = ""
        return Failure(self.work, reason, self.process.exitcode or 0)


def context() -> ForkServerContext:
    """Returns where processes come from: a server that has imported what all of them need."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([PRELOADED])
    return server


def side_by_side(
    work: Sequence[T], call: Callable[[T], None], workers: int, watch: Callable[[Sequence[T], Sequence[T]], None]
) -> list[Failure[T]]:
    """Calls a function on each item in a process of its own; an interrupt ends them all.

    The processes leave Ctrl-C to this one, which ends each of them with one SIGTERM, a KeyboardInterrupt there.

    Args:
        work: the items.
        call: a function of a module; it fails by an exception or an exit status.
        workers: processes at a time.
        watch: called with what has ended and what is being worked on, twice a second at least.

    Returns:
        What failed.

    Raises:
        ValueError: if there are no workers.
    """
    if workers < 1:
        raise ValueError(f"workers is 1 or more, got {workers}")
    waiting = deque(work)
    working: list[_Process[T]] = []
    ended: list[T] = []
    failed: list[Failure[T]] = []
    try:
        while waiting or working:
            while waiting and len(working) < workers:
                working.append(_start(call, waiting.popleft()))
            connection.wait([one.process.sentinel for one in working], timeout=0.5)
            gone = [one for one in working if one.process.exitcode is not None]  # asked once: it may end at any moment
            failed += [one.failure() for one in gone if one.process.exitcode]
            ended += [one.work for one in gone]
            working = [one for one in working if one not in gone]
            watch(ended, [one.work for one in working])
    finally:
        _stop([one.process for one in working])
    return failed


def showing(
    advance: Advance, done: Callable[[T, bool], int], name: Callable[[T], str]
) -> Callable[[Sequence[T], Sequence[T]], None]:
    """Returns what watches over `side_by_side` for a progress bar.

    Args:
        advance: the bar's.
        done: how much of an item is done, and whether it has ended.
        name: of an item that is being worked on.
    """
    shown = 0

    def watch(ended: Sequence[T], working: Sequence[T]) -> None:
        nonlocal shown
        share = sum(done(one, True) for one in ended) + sum(done(one, False) for one in working)
        advance(share - shown, ", ".join(map(name, working)))
        shown = share

    return watch


def _start(call: Callable[[T], None], one: T) -> _Process[T]:
    pipe: Any = context().Pipe(duplex=False)  # its type is that of the system on which types are checked
    reasons, report = pipe
    process = context().Process(target=_work, args=(call, one, dict(os.environ), report))
    _start_server()
    process.start()
    report.close()
    return _Process(one, process, reasons)


def _start_server() -> None:
    """Starts the server if there is none, deaf to Ctrl-C from its first moment, or its imports would end in a traceback."""
    resource_tracker.ensure_running()  # or starting the server does it, and lets the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_GROUPS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(call: Callable[[T], None], one: T, environment: Mapping[str, str], report: connection.Connection) -> None:
    """Calls the function; sends why it failed to the process that began this one."""
    _end_with_parent()
    os.environ.clear()  # it is the server's, as it was when that began
    os.environ.update(environment)
    try:
        _hear_the_parent_alone()
        call(one)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (SwirlError, OSError) as error:
        _send(report, str(error) if isinstance(error, SwirlError) else describe_os_error(error))
        sys.exit(2)
    except Exception as error:
        _send(report, f"{type(error).__name__}: {error}")
        raise  # a bug: with its traceback
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _send(report: connection.Connection, reason: str) -> None:
    report.send_bytes(printable(reason)[:_LONGEST].encode())


def _hear_the_parent_alone() -> None:
    """Leaves Ctrl-C to the parent, which may be deaf to it; interrupts at the first SIGTERM, never in the clean-up after it."""

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)  # SIG_IGN would be handed on to programs begun here
    signal.signal(signal.SIGTERM, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_GROUPS)


def _end_with_parent() -> None:
    """Ends this process when the one that began it is gone, killed or not: all work can be taken up again at any moment."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _stop(processes: Sequence[ForkServerProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(20)
        process.kill()
