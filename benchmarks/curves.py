"""Learning curves as a picture."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swirl_env.benchmarks.compare import Arm
from swirl_env.errors import MissingExtra

Floats = NDArray[np.float64]
_CROWD = 5
"""More algorithms than this leave no room for single seeds."""
_STYLES = ("-", "--")


def require() -> None:
    """Checks that pictures can be drawn, before anything long is begun.

    Raises:
        MissingExtra: where matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("The learning curves need 'matplotlib'. Install it with: pip install 'swirl-env[report]'")


def draw(runs: Sequence[Arm], title: str, file: Path) -> None:
    """Writes success over sampled tokens: a line an algorithm, the mean over seeds; where there is room, thin ones for seeds.

    Args:
        runs: finished runs.
        title: stands above.
        file: the PNG.
    """
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells when it has listed the fonts
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(run.name for run in runs))
    for i, name in enumerate(names):
        curves = [run.curve() for run in runs if run.name == name]
        grid, mean = mean_curve(curves)
        axes.plot(grid, 100 * mean, color=f"C{i}", linestyle=_STYLES[i // 5 % 2], marker="o", markersize=3, label=name)
        for curve in curves if len(curves) > 1 and len(names) <= _CROWD else ():
            x, y = np.array(curve).T
            axes.plot(x, 100 * y, color=f"C{i}", linewidth=0.6, alpha=0.5)
    axes.set(xlabel="sampled tokens", ylabel="success at temperature 1, %", title=title, xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", ncols=1 + (len(names) > _CROWD))
    figure.savefig(file)


def mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[Floats, Floats]:
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
