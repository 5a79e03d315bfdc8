"""A driver in a process of its own, measured on request."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

_WORKER = Path(__file__).parent / "drivers" / "worker.py"


class DriverError(Exception):
    """A driver that could not be built, or failed; the message is its last line."""


class Block(msgspec.Struct, frozen=True):
    """One block of measurements."""

    times: list[int]
    """Nanoseconds of each."""
    cpu: int
    """Processor time of the block in nanoseconds, what was not timed included."""
    memory: int
    """The most memory that the process has had so far, in bytes."""


class Driver:
    """A running driver; get one from `running`."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self._process, self._errors = process, errors

    def measure(self, what: str, n: int) -> Block:
        """Returns n measurements of a kind.

        Raises:
            DriverError: if the driver fails.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; what it said is read below
            self._process.stdin.write(json.dumps({"what": what, "n": n}) + "\n")
            self._process.stdin.flush()
        return msgspec.convert(self.answer(), Block)

    def answer(self) -> dict[str, Any]:
        """Returns the next line that the driver writes.

        Raises:
            DriverError: if it is an error, or there is none.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            lines = self._errors.read_text("utf-8", "replace").strip().splitlines()
            last = f": {lines[-1][:200]}" if lines else ""
            raise DriverError(f"it ended with exit code {self._process.wait()}{last}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DriverError(str(answer["error"]).strip().splitlines()[0][:300])
        return answer


@contextlib.contextmanager
def running(python: str, module: str, options: Mapping[str, Any], threads: int = 1) -> Iterator[Driver]:
    """Runs a driver until the block ends.

    Args:
        python: the Python that runs it.
        module: a module below `drivers`, ``step.gem``.
        options: for its `build`.
        threads: threads of numerical libraries; a single one is pinned to one core.

    Raises:
        DriverError: if it cannot be built.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [python, str(_WORKER), module, json.dumps(dict(options) | {"pinned": threads == 1})]
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        with errors.open("w", encoding="utf-8") as stream:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stream}
            process = subprocess.Popen(command, text=True, env=environment, **pipes)
        try:
            driver = Driver(process, errors)
            driver.answer()
            yield driver
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
