"""Retrieval with this package's search tool."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from swirl_env.registry import make_tool


def build(options: dict[str, Any], look_up: object) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurements: building an index, single queries, and batches of queries (times per query)."""
    queries: Iterator[str] = itertools.cycle(json.loads(Path(options["queries"]).read_text(encoding="utf-8")))
    clock = time.perf_counter_ns
    tools: list[Any] = []

    def index(n: int) -> list[int]:
        times = []
        for _ in range(n):
            tools.clear()
            with tempfile.TemporaryDirectory() as cache:
                start = clock()
                tools.append(make_tool("search", corpus=options["passages"], top_k=options["top_k"], cache_dir=cache))
                times.append(clock() - start)
        return times

    def single(n: int) -> list[int]:
        times = []
        for query in itertools.islice(queries, n):
            start = clock()
            tools[0].run([query])
            times.append(clock() - start)
        return times

    def batch(n: int) -> list[int]:
        times = []
        for _ in range(n):
            several = list(itertools.islice(queries, options["slots"]))
            start = clock()
            tools[0].run(several)
            times.append((clock() - start) // len(several))
        return times

    return {"build": index, "query": single, "batch": batch}
