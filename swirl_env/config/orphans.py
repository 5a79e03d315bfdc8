"""Processes that a sweep's launcher starts end with the sweep, also if it is killed.

A guard, a small process of its own, waits at a pipe until the sweep has ended. Launchers hand the sweep's environment to what
they start, so a mark in it tells whose processes these are, whichever launcher it was and however deep they are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swirl_env.errors import SwirlError

MARK = "SWIRL_SWEEP"
"""Environment variable that marks the processes of a sweep."""
_END = b"end"
"""What the guard is told if nothing is to be ended."""
_GUARD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if sys.stdin.buffer.read() != b"end":
    mark, again = sys.argv[1].encode(), True
    while again:  # one that was being started is seen the next time
        again = False
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as environ:
                    ours = mark in environ.read().split(b"\\0")
                if ours and int(pid) != os.getpid():
                    os.kill(int(pid), signal.SIGKILL)
                    again = True
            except OSError:
                continue
"""


_mine: list[tuple[str, int]] = []
"""Mark and process of the sweeps that began here."""


def is_worker() -> bool:
    """Whether this process was started by a sweep's launcher, next to others."""
    return MARK in os.environ and (os.environ[MARK], os.getpid()) not in _mine


@contextmanager
def guarded_children() -> Iterator[None]:
    """Ends, after a kill or an interrupt, what is started meanwhile; does nothing on systems without ``/proc``."""
    if not Path("/proc/self/environ").exists():
        yield
        return
    before, mark = os.environ.get(MARK), uuid.uuid4().hex
    environ = {key: value for key, value in os.environ.items() if key != MARK}
    command = [sys.executable, "-I", "-S", "-c", _GUARD, f"{MARK}={mark}"]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environ)
    os.environ[MARK] = mark
    _mine.append((mark, os.getpid()))
    kill = True
    try:
        yield
        kill = False
    except SwirlError:  # of a cell, when all have ended
        kill = False
        raise
    finally:
        guard.communicate(b"" if kill else _END)
        _mine.pop()
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before
