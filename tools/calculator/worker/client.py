"""The symbolic worker as its callers see it: `Service.ask` sends a goal and returns a reply, whatever happens in between.

The worker starts with the first request, is shared by all calculators of a process, and ends with the last of them, with the
process, or by itself when the process was killed. Any thread may ask; a forked process starts a worker of its own.

Every request has an id that its reply repeats, and an exception between writing and reading (Ctrl-C, an alarm) ends the
worker: a reply can never be taken for the reply to another request.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from fractions import Fraction
from itertools import count

from swirl_env.tools.calculator.goal import Goal, Reply

START_S = 30.0
"""How long a start may take."""
GRACE_S = 2.0
"""How much later than its own limit a worker is given up, which only happens if the worker itself is stuck."""
_HERE = os.path.dirname(os.path.abspath(__file__))
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SYSTEMROOT")
_UNAVAILABLE: Reply = {"error": "unavailable", "text": "Algebra is not available right now: only plain arithmetic is."}

_services: weakref.WeakValueDictionary[tuple[int, int], Service] = weakref.WeakValueDictionary()
_guard = threading.Lock()


def service(memory_mb: int) -> Service:
    """Returns this process's worker of a memory limit."""
    with _guard:
        key = (os.getpid(), memory_mb)
        existing = _services.get(key)
        if existing is None:
            existing = _services[key] = Service(memory_mb)
        return existing


class Service:
    """One worker process, started when first asked."""

    def __init__(self, memory_mb: int) -> None:
        self.memory_mb = memory_mb
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., Service] | None = None
        self._owner = os.getpid()
        self._rest = b""
        self._ids = count(1)

    def ask(self, goal: Goal, timeout_s: float) -> Reply:
        """Returns the reply to a goal."""
        if self._owner != os.getpid():
            # After a fork the worker, and maybe a lock that another thread held, belong to the parent.
            self._owner, self._lock, self._process, self._end = os.getpid(), threading.Lock(), None, None
        request = json.dumps(goal, default=_encode)
        with self._lock:
            for _ in range(2):  # a worker that died while idle is replaced once
                try:
                    reply = self._exchange(request, timeout_s)
                except (OSError, ValueError):
                    reply = None
                except BaseException:
                    self._stop()
                    raise
                if reply is not None:
                    return reply
                self._stop()
            return _UNAVAILABLE

    def stop(self) -> None:
        """Ends the worker, if it runs."""
        with self._lock:
            self._stop()

    def _exchange(self, goal: str, timeout_s: float) -> Reply | None:
        """Returns the worker's reply, None if the worker has died, is stuck, or replies to something else."""
        waited = 0.0
        if self._process is None:
            began = time.monotonic()
            self._start()
            if self._read(START_S) is None:
                return None
            waited = time.monotonic() - began
        assert self._process is not None and self._process.stdin is not None
        request = next(self._ids)
        line = b'{"id": %d, "goal": %b, "timeout": %f, "waited": %f}\n' % (request, goal.encode(), timeout_s, waited)
        self._process.stdin.write(line)
        reply = self._read(timeout_s * 2 + GRACE_S)
        if reply is None or reply.get("id") != request:
            return None
        if waited and reply.get("error") == "timeout":
            reply["startup_counts_towards_timeout"] = True
        return reply

    def _start(self) -> None:
        self._stop()
        paths = [os.path.abspath(path) for path in sys.path if path]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {
            "PYTHONPATH": os.pathsep.join(paths)
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", os.path.join(_HERE, "server.py"), str(self.memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=os.sep,
            bufsize=0,
        )
        self._rest = b""
        self._end = weakref.finalize(self, _kill, self._process, os.getpid())

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def _read(self, limit_s: float) -> Reply | None:
        """Returns the next line of the worker, None if it has died or is stuck."""
        assert self._process is not None and self._process.stdout is not None
        stream, deadline = self._process.stdout.fileno(), time.monotonic() + limit_s
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        while b"\n" not in self._rest:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            chunk = os.read(stream, 65_536)
            if not chunk:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        reply: Reply = json.loads(line)
        return reply if isinstance(reply, dict) else None


def _kill(process: subprocess.Popen[bytes], owner: int) -> None:
    """Ends keeper and solver and reaps the keeper; in a forked process only closes the pipes."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    if os.getpid() == owner and process.returncode is None:
        # Not by the methods of Popen: an interrupt in one may leave its lock taken, and the next waits for ever.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
        process.returncode = -signal.SIGKILL


def _encode(value: object) -> dict[str, list[int]]:
    if isinstance(value, Fraction):
        return {"q": [value.numerator, value.denominator]}
    raise TypeError
