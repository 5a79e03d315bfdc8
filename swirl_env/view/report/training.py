"""The logs of a training run as curves: success over what it cost, and every metric over sampled tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from swirl_env.algos.run_logs import METRICS, TIMING, read_log
from swirl_env.errors import StoreError

Floats = NDArray[np.float64]
Row = dict[str, Any]
"""One update's metrics."""
_WINDOW = 10
"""Updates over which tokens per second are counted."""


class Point(msgspec.Struct, frozen=True):
    """An evaluation on the way of a training run, and what the run had cost by then."""

    sampled_tokens: float
    trained_tokens: float | None
    seconds: float | None
    success: float
    """At temperature 1."""
    label: float | None
    """Mean process label: share of GOOD steps."""


def learning_curve(folder: Path, results: Mapping[str, Any]) -> tuple[Point, ...]:
    """Returns the evaluations of a run from the policy it began with to its end.

    An evaluation on all episodes takes the place of a quick one after the same number of tokens.

    Args:
        folder: the run folder, for its metrics and times.
        results: what its evaluation.json holds.
    """
    seconds = seconds_by_update(folder)
    points: dict[float, Point] = {}
    for row in _metrics(folder):
        if row.get("eval_success") is not None:
            tokens, trained = row["sampled_tokens"], row["trained_tokens"]
            points[tokens] = Point(tokens, trained, seconds.get(row["update"]), row["eval_success"], row.get("eval_label"))
    whole = [(at["spent"], at) for at in results.get("at", {}).values()]
    whole += [(results["spent"], results["after"])] if results.get("after") else []
    whole += [({"sampled_tokens": 0, "trained_tokens": 0, "updates": 0}, results["before"])] if results.get("before") else []
    for spent, measured in whole:
        success, label = (measured["sampled"][name]["value"] for name in ("accuracy", "process"))
        if success is not None:
            updates = spent.get("updates")
            time = 0.0 if updates == 0 else seconds.get(updates)
            points[spent["sampled_tokens"]] = Point(spent["sampled_tokens"], spent.get("trained_tokens"), time, success, label)
    return tuple(points[tokens] for tokens in sorted(points))


def _rows(folder: Path, name: str, *numbers: str) -> list[Row]:
    """Returns the rows of a log, each with the numbers that are named.

    Raises:
        StoreError: naming the file, if a row is none.
    """
    rows = read_log(folder, name)
    for number, row in enumerate(rows, 1):
        lacking = [key for key in numbers if not isinstance(row.get(key), int | float)]
        if lacking:
            raise StoreError(f"{folder / name} is damaged: row {number} has no number {lacking[0]!r}. Leave the run out.")
    return rows


def _metrics(folder: Path) -> list[Row]:
    return _rows(folder, METRICS, "update", "sampled_tokens", "trained_tokens")


def mean_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> tuple[Floats, Floats]:
    """Returns the mean of curves over the stretch that all of them cover.

    Args:
        curves: points (x, y) of each, x rising.

    Returns:
        x where any curve has a point, [P], and the mean of y there, straight lines between points, [P].
    """
    columns = [np.array(curve, dtype=np.float64).T for curve in curves]  # [2, points] each
    start, end = max(x[0] for x, _ in columns), min(x[-1] for x, _ in columns)
    grid = np.unique(np.concatenate([x[(x >= start) & (x <= end)] for x, _ in columns]))
    return grid, np.mean([np.interp(grid, x, y) for x, y in columns], axis=0)


def seconds_by_update(folder: Path) -> dict[int, float]:
    """Returns the seconds of training up to each update, evaluations left out; a resumed run starts counting again."""
    seconds: dict[int, float] = {}
    past = last = 0.0
    for row in _rows(folder, TIMING, "update", "seconds"):
        past, last = past + (last if row["seconds"] < last else 0.0), row["seconds"]
        seconds[row["update"]] = past + last
    return seconds


def seconds_spent(folder: Path) -> float:
    """Returns the seconds of training in all."""
    return round(max(seconds_by_update(folder).values(), default=0.0), 1)


def progress(folder: Path) -> tuple[int, int]:
    """Returns how many updates a run has made, and how many tokens it has sampled."""
    rows = _metrics(folder)
    return (int(rows[-1]["update"]), int(rows[-1]["sampled_tokens"])) if rows else (0, 0)


class Panel(msgspec.Struct, frozen=True):
    """One metric of a training run over training tokens, which grow with every update; many may share what was sampled once."""

    name: str
    points: tuple[tuple[float, float], ...]


PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loss", ("loss",)),
    ("mean reward of trained steps", ("reward",)),
    ("success of rollouts", ("success",)),
    ("held-out success", ("eval_success",)),
    ("held-out GOOD share", ("eval_label",)),
    ("KL to the first policy", ("kl",)),
    ("share of clipped tokens", ("clip_fraction",)),
    ("mean ratio to the sampling policy", ("ratio",)),
    ("gradient norm", ("grad_norm",)),
    ("surprise, nats per token", ("surprise",)),
    ("unusable steps", ("unusable_steps",)),
)
"""Title of a panel -> the keys of metrics.jsonl that it may show."""


def panels(folder: Path) -> list[Panel]:
    """Returns the dashboard of a run, finished or not: each metric that it logs, and tokens per second."""
    rows = _metrics(folder)
    shown = [Panel(name, _series(rows, keys)) for name, keys in PANELS]
    shown.append(Panel("tokens per second", _rate(rows, seconds_by_update(folder))))
    return [panel for panel in shown if panel.points and (panel.name not in _QUIET or any(y for _, y in panel.points))]


_QUIET = ("KL to the first policy", "unusable steps")
"""Panels that say nothing as long as they are zero."""


def _series(rows: Iterable[Row], keys: tuple[str, ...]) -> tuple[tuple[float, float], ...]:
    return tuple(
        (float(row["trained_tokens"]), float(row[key])) for row in rows for key in keys if isinstance(row.get(key), int | float)
    )


def _rate(rows: list[Row], seconds: Mapping[int, float]) -> tuple[tuple[float, float], ...]:
    """Returns tokens sampled and trained per second over the last `_WINDOW` updates before each one."""
    timed = [row for row in rows if row["update"] in seconds]
    spent = [(seconds[row["update"]], row["sampled_tokens"] + row["trained_tokens"], row) for row in timed]
    rates: list[tuple[float, float]] = []
    for i, (now, tokens, row) in enumerate(spent):
        then, before = spent[i - _WINDOW][:2] if i >= _WINDOW else (0.0, 0)
        if now > then:
            rates.append((float(row["trained_tokens"]), (tokens - before) / (now - then)))
    return tuple(rates)
