"""Learning curves as a picture."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swirl_env.benchmarks.compare import Arm
from swirl_env.errors import MissingExtra
from swirl_env.view.report.training import mean_curve

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
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(run.name for run in runs))
    lines: list[Line2D] = []
    for i, name in enumerate(names):
        curves = [run.curve() for run in runs if run.name == name]
        grid, mean = mean_curve(curves)
        lines += axes.plot(grid, 100 * mean, color=f"C{i}", linestyle=_STYLES[i // 5 % 2], marker="o", markersize=3, label=name)
        for curve in curves if len(curves) > 1 and len(names) <= _CROWD else ():
            x, y = np.array(curve).T
            axes.plot(x, 100 * y, color=f"C{i}", linewidth=0.6, alpha=0.5)
    axes.set(xlabel="sampled tokens", ylabel="success at temperature 1, %", title=title, xlim=(0, None), ylim=(0, None))
    axes.grid(alpha=0.3)
    # Next to the curves, in the order in which they end.
    lines.sort(key=lambda line: -float(np.asarray(line.get_ydata())[-1]))
    figure.legend(handles=lines, loc="outside right upper")
    figure.savefig(file)
