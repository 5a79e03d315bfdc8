"""The HTML page of a report: tables that sort and filter, pictures in the colours of the theme, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from swirl_env.errors import printable
from swirl_env.view.html import render_page
from swirl_env.view.report import tables
from swirl_env.view.report.figures import Picture
from swirl_env.view.report.report import KINDS, Block, Report


class Table(NamedTuple):
    """A table of the page."""

    title: str
    rows: list[tables.Row]
    words: int = 1
    """How many of the first columns are words."""


class Part(NamedTuple):
    """A section of the page."""

    title: str
    texts: list[str]
    tables: list[Table]
    pictures: list[Picture]
    open: int = 2
    """How many of its tables are unfolded at first."""


def render(report: Report, pictures: Sequence[Picture]) -> str:
    """Returns the page."""
    return render_page(
        "report",
        folders=list(map(printable, report.folders)),
        compared=report.compared,
        notes=list(map(printable, report.notes)),
        sections=list(_parts(report, pictures)),
        commands=[(one.about, printable(one.text)) for one in report.commands],
    )


def _parts(report: Report, pictures: Sequence[Picture]) -> Iterator[Part]:
    for kind, over in report.overall.items():
        if over:
            title = f"{KINDS[kind]}: all sets of questions"
            yield Part(
                title, ["Interquartile mean over all runs; the interval draws within each set."], [_shown(title, over)], []
            )
    for block in report.blocks:
        yield _section(block, [picture for picture in pictures if picture.group == block.section.label])
    judges, agreement = tables.judge_rows(report), tables.agreement_rows(report)
    if judges:
        text = "Share of steps that each judge calls GOOD. Kappa is agreement above chance (Cohen 1960)."
        rows = [Table("Agreement of judges", tables.clean(agreement), 2)] if agreement else []
        yield Part("Judges", [text], [*rows, Table("Judges", tables.clean(judges), 2)], [], open=1)
    dashboard = [picture for picture in pictures if not picture.group]
    if dashboard:
        training = Table("Runs in training", tables.clean(tables.dashboard_rows(report)))
        live = any(not one.finished for one in report.dashboards)
        yield Part("Training", [], [training], dashboard, open=1 if live else 0)


def _shown(title: str, rows: Any) -> Table:
    return Table(title, tables.clean(tables.overall_rows(rows)))


def _section(block: Block, pictures: list[Picture]) -> Part:
    section = block.section
    title = f"{KINDS[section.kind]}: {printable(section.label)}"
    shown = [Table("Cells", tables.clean(tables.cell_rows(block)))] if any(block.summaries) else []
    if block.comparisons:
        shown.append(Table("Pairs of cells, points of percent", tables.clean(tables.comparison_rows(block.comparisons)), 2))
    rows = [
        {name: _plain(value) for name, value in row.items() if name not in ("section", "kind")}
        for row in tables.run_values_of(block)
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    runs = [{name: row.get(name, "-") for name in columns} for row in rows]
    return Part(title, [], [*shown, Table("Runs", tables.clean(runs), 3)], pictures, open=len(shown))


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
