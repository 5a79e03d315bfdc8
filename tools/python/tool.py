"""The tool `python`: a session of an interpreter per episode, in a process of its own that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence

from swirl_env.errors import ConfigError
from swirl_env.types import UNAVAILABLE, Task, ToolError, ToolResult

START_S = 30.0
"""How long a process may take to start."""
MAX_CODE = 100_000
"""Longest code, in characters."""
_INTERPRETER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "interpreter.py")


class Python:
    """Runs Python code; names stay from one call of an episode to the next, and no episode sees those of another.

    The result is what the code printed and the value of its last expression, or the error that it raised. There is no file,
    no network, no clock, and of modules only parts of math, random (seeded by the episode), itertools, collections,
    statistics and a few more. What the sandbox guards against, and what it does not, is said in `interpreter.py`: it stops
    accidents and bounds time, memory and output, but it is no container for hostile code.

    Args:
        timeout_s: longest time of one call; code that runs longer is killed, and the names are lost.
        memory_mb: most memory of a process.
        max_output: most characters of a result.
    """

    tag = "python"

    def __init__(self, timeout_s: float = 5.0, memory_mb: int = 256, max_output: int = 4_000) -> None:
        if not 0 < timeout_s < float("inf") or memory_mb < 64 or max_output < 1:
            raise ConfigError(
                f"timeout_s is a finite number above 0, memory_mb at least 64 and max_output at least 1; got {timeout_s}, "
                f"{memory_mb} and {max_output}."
            )
        self.timeout_s, self.memory_mb, self.max_output = timeout_s, memory_mb, max_output
        self.description = (
            "runs Python code and shows what it prints and the value of its last line. Names stay for your next call; "
            "standard modules for mathematics and text are there, files and network are not."
        )

    def open(self, task: Task, seed: int) -> PythonSession:
        """Returns a session for one episode; its process starts with the first call."""
        return PythonSession(self, seed)


class PythonSession:
    """The interpreter of one episode.

    Args:
        tool: its limits.
        seed: seed of the module ``random``.
        history: code to run first, when the process starts: that is how a fork gets the names of its origin.
    """

    def __init__(self, tool: Python, seed: int, history: Sequence[str] = ()) -> None:
        self.tool, self.seed = tool, seed
        self._history = list(history)
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[[subprocess.Popen[bytes]], PythonSession] | None = None
        self._closed = False

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Runs one piece of code after the other; returns one result for each."""
        return [self._one(code) for code in queries]

    def fork(self) -> PythonSession:
        """Returns a session with the same names: the same code, run again without a clock and with the same seed."""
        return PythonSession(self.tool, self.seed, self._history)

    def close(self) -> None:
        """Ends the process."""
        self._closed = True
        self._kill()

    def _one(self, code: str) -> ToolResult:
        if self._closed:
            return ToolResult("The session is closed.", "unavailable")
        if len(code) > MAX_CODE:
            return ToolResult(f"The code has {len(code)} characters; at most {MAX_CODE} are run.", "limit")
        if "\0" in code:
            return ToolResult("SyntaxError: the code holds a null character", "invalid")
        code = code.encode("utf-8", "replace").decode()
        if self._process is None and not self._start():
            return UNAVAILABLE
        reply = self._ask(code)
        if reply is not None:
            self._history.append(code)
        return self._stopped() if reply is None else reply

    def _start(self) -> bool:
        """Starts the process and runs the history; returns whether it is ready."""
        options = {
            "seed": self.seed,
            "memory_mb": self.tool.memory_mb,
            "max_output": self.tool.max_output,
            "cpu_s": 3_600,
        }
        command = [sys.executable, "-S", "-s", "-P", _INTERPRETER, json.dumps(options)]
        pipe = subprocess.PIPE
        # The hash seed makes the order of sets the same in every process, so that a fork comes out the same.
        environment = {"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        self._end = weakref.finalize(self, _end, self._process)
        if self._line(time.monotonic() + START_S) != b"ready":
            self._kill()
            return False
        return all(self._ask(code) is not None for code in self._history)

    def _ask(self, code: str) -> ToolResult | None:
        """Returns the result of a piece of code; None if the process ended or ran out of time."""
        process = self._process
        if process is None or process.stdin is None:
            return None
        deadline = time.monotonic() + self.tool.timeout_s
        try:
            process.stdin.write(json.dumps({"code": code}).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            return None
        line = self._line(deadline)
        if line is None:
            return None
        reply = json.loads(line)
        error: ToolError | None = reply["error"]
        return ToolResult(reply["text"], error)

    def _line(self, deadline: float) -> bytes | None:
        """Returns the next line of the process; None if it ends or the time is up."""
        process = self._process
        if process is None or process.stdout is None:
            return None
        descriptor, text = process.stdout.fileno(), bytearray()
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(descriptor, 65_536) if ready else b""
            if not piece:
                return None
            text += piece
        return bytes(text[:-1])

    def _stopped(self) -> ToolResult:
        """Returns why there was no reply; all names are lost, and the next call starts afresh."""
        process = self._process
        over = process is not None and process.poll() is None
        self._kill()
        self._history.clear()
        if over:
            return ToolResult(
                f"The code ran longer than {self.tool.timeout_s:g} s and was stopped; all names are lost.", "timeout"
            )
        return ToolResult("The interpreter crashed or ran out of memory; all names are lost.", "limit")

    def _kill(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    process.wait()
