"""The pictures of a report: every seed as a dot, learning curves, and the dashboard of training, as PNG and SVG."""

from __future__ import annotations

import importlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from swirl_env.errors import MissingExtra, printable
from swirl_env.view.report.cells import Cell
from swirl_env.view.report.report import Block, Report
from swirl_env.view.report.training import Point, mean_curve

_INK, _GRID = "#3a3f44", "#d9dbd6"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8528f", "#a37500", "#3b8ec2", "#7a5cc0", "#6b6f73")
"""Distinct for most colour-blind readers (after Okabe and Ito)."""
_DARK = {
    _INK: "#d3d6d9",
    _GRID: "#3d4246",
    **dict(zip(_COLOURS, ("#62b0e8", "#ff8a4c", "#3fcf9f", "#e592c0", "#e3b341", "#8cc8f0", "#b39df0", "#aab0b5"), strict=True)),
}
"""The same colours for a dark page."""
_LONGEST = 34
"""Characters of a label."""
_CROWD = 8
"""More lines than this have no legend in a small picture."""
Axes = Any
Series = Sequence[tuple[float, float]]


class Picture(msgspec.Struct, frozen=True):
    """A picture, and what it shows in words."""

    name: str
    title: str
    about: str
    """For readers who do not see it."""
    group: str
    """Label of the section that it belongs to; empty for the dashboard."""
    png: bytes
    svg: bytes

    @property
    def dark(self) -> bytes:
        """The SVG in the colours of a dark page."""
        return re.sub(rb"#[0-9a-f]{6}", lambda match: _DARK.get(match[0].decode(), match[0].decode()).encode(), self.svg)


def pictures(report: Report) -> list[Picture]:
    """Draws all pictures of a report.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    drawn: list[Picture] = []
    for number, block in enumerate(report.blocks, 1):
        drawn += _of_section(block, f"{number}-" if len(report.blocks) > 1 else "")
    return [*drawn, *_dashboard(report)]


def _of_section(block: Block, prefix: str) -> Iterator[Picture]:
    section = block.section
    if any(summary for summary in block.summaries):
        height = min(30.0, 1.1 + 0.36 * len(section.cells))
        title = f"{section.main_figure.capitalize()} of each seed"
        about = "; ".join(_in_words(cell, section.main_figure) for cell in section.cells)
        yield _picture(f"{prefix}seeds", title, about, section.label, height, lambda axes: _dots(axes, block))
    if section.kind != "training" or not any(result.curve for cell in section.cells for result in cell.results):
        return
    for what, over in (("sampled_tokens", "sampled tokens"), ("trained_tokens", "training tokens"), ("seconds", "seconds")):
        lines = [(i, cell.label, [_curve(result.curve, what) for result in cell.results]) for i, cell in enumerate(section.cells)]
        about = f"Success at temperature 1 over {over}: " + "; ".join(_ends(label, curves) for _, label, curves in lines)
        draw = _drawer(lines, over, "success at temperature 1, %")
        yield _picture(f"{prefix}success-over-{over.replace(' ', '-')}", f"Success over {over}", about, section.label, 3.3, draw)
    labels = [
        (i, cell.label, [[(p.sampled_tokens, 100 * p.label) for p in r.curve if p.label is not None] for r in cell.results])
        for i, cell in enumerate(section.cells)
    ]
    if any(curve for _, _, curves in labels for curve in curves):
        about = "Share of GOOD steps over sampled tokens: " + "; ".join(_ends(label, curves) for _, label, curves in labels)
        draw = _drawer(labels, "sampled tokens", "GOOD steps, %")
        yield _picture(f"{prefix}good-steps", "GOOD steps over sampled tokens", about, section.label, 3.3, draw)


def _curve(points: Sequence[Point], what: str) -> list[tuple[float, float]]:
    return [(x, 100 * point.success) for point in points if (x := getattr(point, what)) is not None]


def _dashboard(report: Report) -> Iterator[Picture]:
    cells = [(i, cell) for block in report.blocks for i, cell in enumerate(block.section.cells)]
    cell_of = {result.path: (i, cell.label) for i, cell in cells for result in cell.results}
    names = list(dict.fromkeys(panel.name for dashboard in report.dashboards for panel in dashboard.panels))
    for name in names:
        lines: dict[tuple[int, str], list[Series]] = {}
        for dashboard in report.dashboards:
            for panel in dashboard.panels:
                if panel.name == name:
                    lines.setdefault(cell_of[dashboard.path], []).append(panel.points)
        about = f"{name} over training tokens: " + "; ".join(_ends(label, curves) for (_, label), curves in lines.items())
        file = "training-" + re.sub(r"[^a-z]+", "-", name.lower()).strip("-")
        series = [(i, label, curves) for (i, label), curves in lines.items()]
        draw = _drawer(series, "training tokens", name, marked=name.startswith("held-out"))
        yield _picture(file, f"{name[0].upper()}{name[1:]}", about, "", 2.7, draw)


def _drawer(
    lines: Sequence[tuple[int, str, Sequence[Series]]], over: str, what: str, marked: bool = True
) -> Callable[[Axes], None]:
    """Returns what draws lines over their cost: the mean over seeds, and thin ones for the seeds."""

    def draw(axes: Axes) -> None:
        for i, label, curves in lines:
            whole = [curve for curve in curves if curve]
            if not whole:
                continue
            style = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": ("-", "--", ":")[i // len(_COLOURS) % 3]}
            for curve in whole if len(whole) > 1 else ():
                axes.plot(*zip(*curve, strict=True), linewidth=0.7, alpha=0.55, **style)
            x, y = mean_curve(whole)
            axes.plot(x, y, linewidth=1.5, marker="o" if marked else None, markersize=2.5, label=_short(label), **style)
        axes.set(xlabel=over, ylabel=what if "%" in what else "")
        axes.margins(x=0.02)
        axes.xaxis.set_major_formatter(_engineering())
        if 1 < len(lines) <= _CROWD:
            axes.legend(frameon=False, fontsize=7, loc="best", labelcolor=_INK)

    return draw


def _engineering() -> Any:
    return importlib.import_module("matplotlib.ticker").FuncFormatter(
        lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}"
    )


def _dots(axes: Axes, block: Block) -> None:
    """Draws every seed of every cell, the interquartile mean and its interval."""
    figure, cells = block.section.main_figure, block.section.cells
    for i, (cell, summary) in enumerate(zip(cells, block.summaries, strict=True)):
        if figure not in summary:
            continue
        one, colour = summary[figure], _COLOURS[i % len(_COLOURS)]
        if one.interval is not None:
            axes.plot([100 * one.interval.low, 100 * one.interval.high], [i, i], color=colour, linewidth=5, alpha=0.35)
        axes.plot([100 * one.iqm], [i], marker="|", markersize=16, markeredgewidth=2, color=colour)
        axes.plot([100 * v for v in one.values], [i] * len(one.values), "o", color=colour, markersize=5, alpha=0.8)
        for start in cell.values(f"before.{figure}"):
            axes.plot([100 * start], [i], marker="x", color=_INK, markersize=5, alpha=0.6)
    axes.set_yticks(range(len(cells)), [_short(cell.label) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlim(-2, 102)
    crosses = "   cross: before training" if block.section.kind == "training" else ""
    axes.set_xlabel(f"{figure}, %   dot: seed   bar: IQM, 95 % interval{crosses}")


def _in_words(cell: Cell, figure: str) -> str:
    return f"{cell.label}: " + (", ".join(f"{100 * value:.1f} %" for value in cell.values(figure)) or "no result")


def _ends(label: str, curves: Sequence[Series]) -> str:
    ends = [f"{curve[0][1]:.4g} to {curve[-1][1]:.4g}" for curve in curves if curve]
    return f"{label} from {', '.join(ends)}" if ends else f"{label}: nothing"


def _short(label: str) -> str:
    """Returns a label that fits: control characters as escapes, the middle left out; legends hide a leading underscore."""
    text = printable(" ".join(label.split()))
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2 - 1]}…{text[-_LONGEST // 2 :]}"
    return f" {text}" if text.startswith("_") else text


def _picture(name: str, title: str, about: str, group: str, height: float, draw: Callable[[Axes], None]) -> Picture:
    try:
        figures, matplotlib = importlib.import_module("matplotlib.figure"), importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingExtra("The pictures need 'matplotlib'. Install it with: pip install 'swirl-env[report]'") from error
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells when it has listed the fonts
    ink: dict[str, Any] = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK)
    style = {
        **ink,
        "font.size": 8,
        "grid.color": _GRID,
        "svg.hashsalt": name,
        "text.parse_math": False,
        "axes.titlelocation": "left",
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script that the font lacks
        figure = figures.Figure(figsize=(5.2, height), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, fontsize=9, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=180, facecolor="white")
        figure.set_layout_engine("none")  # the layout stays as it is; computing it again costs half of the time
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Picture(name, title, printable(about), group, png.getvalue(), svg.getvalue())
