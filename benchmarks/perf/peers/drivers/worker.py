"""Runs one driver: ``python worker.py MODULE OPTIONS`` answers each line of its standard input with one line of JSON.

A line in is ``{"what": measurement, "n": how often}``; a line out ``{"times": [nanoseconds], "cpu": nanoseconds in all, "memory":
bytes at the peak}``. The first line out is ``{"ready": seconds}``, or ``{"error": text}`` if the driver cannot be built.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import Any, TextIO


def look_up(query: str) -> str:
    """Returns the result of the tool that all environments call."""
    return f"Nothing is known about {query}."


def main() -> None:
    """Builds the driver and measures what is asked for until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints goes elsewhere
    module, options = sys.argv[1], json.loads(sys.argv[2])
    if options.pop("pinned", False) and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before any library starts threads
    start = time.perf_counter()
    try:
        measures = importlib.import_module(module).build(options, look_up)
    except Exception as error:
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    _say(answers, {"ready": time.perf_counter() - start})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            _say(answers, _measure(measures[asked["what"]], asked["n"]))
        except Exception as error:
            _say(answers, {"error": f"{type(error).__name__}: {error}"})


def _measure(measure: Any, n: int) -> dict[str, Any]:
    gc.collect()
    gc.freeze()
    before = time.process_time_ns()
    times = measure(n)
    spent = time.process_time_ns() - before
    gc.unfreeze()
    return {"times": times, "cpu": spent, "memory": _peak()}


def _peak() -> int:
    """Returns the most memory that the process has had, in bytes; 0 if the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def _say(stream: TextIO, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
