"""Stages of a long benchmark, each a command of its own: runs them, and notes which have ended and what they took."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Log:
    """What was run, one line per attempt: stage, words, exit code, seconds by the clock and of processors.

    Args:
        file: where the lines are.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        self._rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]

    def done(self, name: str, words: Sequence[str]) -> bool:
        """Returns whether these very words have ended well."""
        return any(row["stage"] == name and row["words"] == list(words) and row["code"] == 0 for row in self._rows)

    def ended(self, name: str) -> bool:
        """Returns whether the last attempt at a stage came to its end: well, or with an error of its own that is a result."""
        codes = [row["code"] for row in self._rows if row["stage"] == name]
        return bool(codes) and codes[-1] in (0, 2)

    def run(self, name: str, words: Sequence[str], data_dir: str | None) -> int:
        """Runs ``swirl`` with these words and notes what it took, whether it ends well or not; returns its exit code.

        An interrupt ends the stage, which says how to go on, and with it this.

        Args:
            name: of the stage.
            words: what follows ``swirl``.
            data_dir: folder of the question sets; None leaves it to the environment.
        """
        environment = os.environ if data_dir is None else {**os.environ, "SWIRL_DATA_DIR": data_dir}
        begun, before = time.monotonic(), _cpu_seconds()
        process = subprocess.Popen([sys.executable, "-m", "swirl_env.cli", *words], env=environment)
        code = _ended(process)
        self.add(name, words, code, time.monotonic() - begun, _cpu_seconds() - before)
        return code

    def add(self, name: str, words: Sequence[str], code: int, seconds: float, cpu_seconds: float) -> None:
        """Notes an attempt."""
        took = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}
        row = {"stage": name, "words": list(words), "code": code, **took}
        self._rows.append(row)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def spent(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Returns stage, command, folder, last exit code, seconds of all attempts together, for each stage that was run."""
        collected = []
        for name in names:
            mine = [row for row in self._rows if row["stage"] == name]
            if mine:
                folder = next(word.removeprefix("out=") for word in mine[-1]["words"] if word.startswith("out="))
                sums = {key: sum(row[key] for row in mine) for key in ("seconds", "cpu_seconds")}
                code = mine[-1]["code"]
                collected.append({"stage": name, "command": mine[-1]["words"][0], "folder": folder, "code": code, **sums})
        return collected


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process; returns its exit code."""
    with _handed_on_to(process):
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                pass  # Ctrl-C reaches the stage by itself


@contextmanager
def _handed_on_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hands SIGTERM and the end of the terminal on to a process, which would live on alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, frame: process.send_signal(number)) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cpu_seconds() -> float:
    """Returns the processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
