"""Work in processes of its own, several at a time: training runs and warm starts, each on one core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import TypeVar

T = TypeVar("T")


def context() -> ForkServerContext:
    """Returns where processes come from: a server that has imported what all of them need."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["swirl_env.benchmarks.training_preload"])
    return server


def side_by_side(
    work: Sequence[T], call: Callable[[T], None], workers: int, watch: Callable[[Sequence[T], Sequence[T]], None]
) -> list[T]:
    """Calls a function on everything, each in a process of its own; an interrupt ends them all.

    Args:
        work: what it is called with.
        call: a function of a module; it fails by an exception or an exit status.
        workers: processes at a time.
        watch: called with what has ended and what is being worked on, twice a second at least.

    Returns:
        What failed.
    """
    waiting = deque(work)
    working: list[tuple[T, ForkServerProcess]] = []
    ended: list[T] = []
    failed: list[T] = []
    try:
        while waiting or working:
            while waiting and len(working) < workers:
                one = waiting.popleft()
                process = context().Process(target=_work, args=(call, one))
                process.start()
                working.append((one, process))
            connection.wait([process.sentinel for _, process in working], timeout=0.5)
            failed += [one for one, process in working if process.exitcode not in (None, 0)]
            ended += [one for one, process in working if process.exitcode is not None]
            working = [(one, process) for one, process in working if process.exitcode is None]
            watch(ended, [one for one, _ in working])
    finally:
        _stop([process for _, process in working])
    return failed


def _work(call: Callable[[T], None], one: T) -> None:
    _end_with_parent()
    call(one)


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
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGINT)
    for process in processes:
        process.join(20)
        process.kill()
