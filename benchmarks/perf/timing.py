"""Times, rows and reports of the performance suite."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

import swirl_env
from swirl_env.types import Record

Given = TypeVar("Given")
US = 1e3
MS = 1e6
S = 1e9


class Row(Record, frozen=True):
    """One measurement with its baseline and its bar."""

    what: str
    unit: str
    p50: float
    p99: float
    mean: float
    n: int
    """How many times it was measured."""
    baseline: str = ""
    """What `ratio` compares with, run in the same process."""
    ratio: float | None = None
    """Median of the baseline over the median of this: how many times faster it is."""
    bar: str = ""
    """What it has to reach; empty where there is no bar."""
    met: bool | None = None


class Comparison(Record, frozen=True):
    """A peer's time for some work next to ours, measured in turns, each in a process of its own."""

    what: str
    peer: str
    """Its name and version."""
    about: str
    """How it was driven, and what it does not do."""
    unit: str
    theirs: float | None = None
    """Median; None if there is none, for the reason in `note`."""
    ours: float | None = None
    ratio: float | None = None
    """Their time over ours: how many times faster ours is."""
    cpu_ratio: float | None = None
    """The same for processor time, which other work on the machine changes less."""
    note: str = ""


class Report(Record, frozen=True):
    """What one benchmark found."""

    name: str
    about: str
    """What was run on, with sizes."""
    rows: tuple[Row, ...]
    seconds: float = 0.0
    machine: dict[str, Any] = {}
    comparisons: tuple[Comparison, ...] = ()
    """What peers take for the same work."""

    @property
    def missed(self) -> list[Row]:
        """Rows that miss their bar."""
        return [row for row in self.rows if row.met is False]


def row(what: str, times: Sequence[float] | np.ndarray[Any, Any], unit: str = "us", **fields: Any) -> Row:
    """Returns the row of some times in nanoseconds."""
    scale = {"us": US, "ms": MS, "s": S}[unit]
    results = np.asarray(times, dtype=np.float64) / scale
    p50, p99 = (float(np.percentile(results, q)) for q in (50, 99))
    return Row(what, unit, p50, p99, float(results.mean()), len(results), **fields)


def timed(call: Callable[[Given], object], inputs: Iterable[Given]) -> list[int]:
    """Returns how long the call took on each input, in nanoseconds."""
    clock, times = time.perf_counter_ns, []
    for given in inputs:
        start = clock()
        call(given)
        times.append(clock() - start)
    return times


@contextlib.contextmanager
def stopwatch(into: list[int]) -> Iterator[None]:
    """Adds the nanoseconds that its block takes to a list."""
    start = time.perf_counter_ns()
    yield
    into.append(time.perf_counter_ns() - start)


def memory_mb() -> float:
    """Returns the resident memory of this process in megabytes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    except OSError:  # no Linux: the peak so far
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def settle() -> None:
    """Collects garbage and moves what is alive out of the collector's way, as a long-running process would."""
    gc.collect()
    gc.freeze()


def machine() -> dict[str, Any]:
    """Returns what a figure depends on other than the code."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "swirl_env": swirl_env.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def show(report: Report, console: Console) -> None:
    """Prints a report as a table."""
    table = Table(title=f"{report.name}: {report.about}", title_justify="left", title_style="bold")
    for name in ("what", "p50", "p99", "mean", "ratio", "bar"):
        table.add_column(name, justify="left" if name in ("what", "bar") else "right", overflow="fold")
    table.add_column("met")
    for r in report.rows:
        against = "" if r.ratio is None else f"{_short(r.ratio)} x {r.baseline}"
        met = "" if r.met is None else "[green]yes[/]" if r.met else "[red]NO[/]"
        table.add_row(r.what, *(f"{_short(x)} {r.unit}" for x in (r.p50, r.p99, r.mean)), against, r.bar, met)
    console.print(table)
    if report.comparisons:
        console.print(_next_to_peers(report.comparisons))
    missed = len(report.missed)
    verdict = f"{missed} bar{'s' if missed > 1 else ''} missed" if missed else "every bar met"
    console.print(f"{verdict if any(r.met is not None for r in report.rows) else 'no bar'}, {report.seconds:.1f} s\n")


def _next_to_peers(comparisons: Sequence[Comparison]) -> Table:
    table = Table(title="next to peers: their time over ours", title_justify="left", title_style="bold")
    for name in ("what", "peer", "theirs", "ours", "ratio", "by processor time"):
        table.add_column(name, justify="left" if name in ("what", "peer") else "right", overflow="fold")
    table.add_column("note", overflow="fold")
    for c in comparisons:
        times = ["-" if x is None else f"{_short(x)} {c.unit}" for x in (c.theirs, c.ours)]
        ratios = ["" if x is None else f"{_short(x)} x" for x in (c.ratio, c.cpu_ratio)]
        table.add_row(c.what, c.peer, *times, *ratios, "; ".join(part for part in (c.about, c.note) if part))
    return table


def _short(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"
