"""50,000 trajectories written, read and filtered, with the memory that each takes, next to plain JSON lines."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.benchmarks.perf.env import episodes
from swirl_env.benchmarks.perf.timing import Report, Row, memory_mb, row, settle
from swirl_env.store import Store
from swirl_env.types import Trajectory

BAR_S = 10.0
BAR_MB = 100.0
"""Growth of resident memory that still counts as constant: 50,000 trajectories held at once take a gigabyte."""
FILTERS = ("process", "outcome", "both")


def store(size: int = 50_000) -> Report:
    """Times writing, reading and filtering `size` different trajectories."""
    base = episodes(min(1_000, size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        settle()
        written, grown = _measure(lambda: _write(path, _many(base, size)))
        rows = [_row("write", [written], grown)]
        megabytes = sum(file.stat().st_size for file in path.rglob("*.jsonl")) / 1e6
        plain, held = _measure(lambda: _read_json(path))
        rows.append(_row("json.loads of every line", [plain], held))
        with Store(path, mode="r") as opened:
            reading, grown = _measure(lambda: _count(opened, size))
            rows.append(_row("read", [reading], grown, "json.loads", plain / reading))
            filtering, most = [], grown
            for name in FILTERS:
                taken, grown = _measure(lambda name=name: opened.filter(name))  # type: ignore[misc]
                filtering.append(taken)
                most = max(most, grown)
                rows.append(_row(f"filter: {name}", [taken], grown, "json.loads", plain / taken))
            selected, grown = _measure(lambda: sum(1 for _ in opened.select("both")))
            rows.append(_row("filter and stream what it keeps", [selected], grown, "json.loads", plain / selected))
            rows.append(_barred(reading + filtering[0], max(most, grown), plain))
    about = f"{size:,} trajectories of {sum(len(t.steps) for t in base) / len(base):.1f} steps, {megabytes:,.0f} MB"
    return Report("store", about, tuple(rows))


def _row(what: str, times: list[int], grown: float, baseline: str = "", ratio: float | None = None) -> Row:
    return row(f"{what} (memory +{max(0.0, grown):.0f} MB)", times, "s", baseline=baseline, ratio=ratio)


def _barred(taken: int, grown: float, plain: int) -> Row:
    report = _row("read, then filter", [taken], grown, "json.loads", plain / taken)
    met = report.p50 < BAR_S and grown < BAR_MB
    return msgspec.structs.replace(report, bar=f"< {BAR_S:g} s, memory < +{BAR_MB:g} MB", met=met)


def _many(base: Sequence[Trajectory], size: int) -> Iterator[Trajectory]:
    """Yields `size` trajectories with keys of their own, made from those of `base`."""
    for i in range(size):
        yield msgspec.structs.replace(base[i % len(base)], sample=i // len(base))


def _write(path: Path, trajectories: Iterable[Trajectory]) -> None:
    with Store(path) as opened:
        for trajectory in trajectories:
            opened.append(trajectory)


def _count(opened: Store, size: int) -> None:
    report = sum(1 for _ in opened)
    if report != size:
        raise RuntimeError(f"{size} trajectories were written, and {report} read")


def _read_json(path: Path) -> None:
    for file in sorted(path.glob("trajectories/*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                json.loads(line)


def _measure(call: Callable[[], Any]) -> tuple[int, float]:
    """Returns nanoseconds of a call, and the most megabytes by which resident memory grew during it."""
    before, most, done = memory_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], memory_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter_ns()
    call()
    taken = time.perf_counter_ns() - start
    most[0] = max(most[0], memory_mb())
    done.set()
    watcher.join()
    return taken, most[0] - before
