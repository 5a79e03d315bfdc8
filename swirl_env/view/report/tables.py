"""The tables of a report: rows of text for terminals and pages, rows of plain numbers for CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from swirl_env.errors import printable
from swirl_env.evaluate import Estimate
from swirl_env.view.report.cells import Cell, Section, seed_of
from swirl_env.view.report.comparisons import Comparison, Overall, Summary
from swirl_env.view.report.report import Block, Report
from swirl_env.view.report.results import Result
from swirl_env.view.report.statistics import Interval

Row = dict[str, str]
"""Column -> text."""


def clean(rows: list[Row]) -> list[Row]:
    """Returns rows without control characters and marks of direction, which act in terminals and turn lines around."""
    return [{printable(column): printable(cell) for column, cell in row.items()} for row in rows]


def cell_rows(block: Block) -> list[Row]:
    """Returns a row per cell: figures over its seeds, shares in percent."""
    pairs = list(zip(block.section.cells, block.summaries, strict=True))
    single = any(len(summary.get(block.section.main_figure, _NONE).values) == 1 for _, summary in pairs)
    return [_cell_row(block.section, cell, summary, single) for cell, summary in pairs]


_NONE = Summary((), 0.0, 0.0, None)


def _cell_row(section: Section, cell: Cell, summary: dict[str, Summary], single: bool) -> Row:
    main = summary.get(section.main_figure)
    row = {"cell": cell.label, "seeds": str(len(main.values)) if main else "0"}
    row |= {f"{section.main_figure} %": _percent(main), "IQM": _percent(main, "iqm")}
    row["95 % over seeds"] = "-" if main is None else _interval(main.interval) if main.interval else main.seeds
    row["lowest seed"] = "-" if main is None else f"{100 * min(main.values):.1f}"
    if single:
        row["95 % over questions"] = _over_questions(cell, section.main_figure)
    if section.kind == "training":
        row["greedy %"] = _percent(summary.get("greedy"))
        row["GOOD before"], row["GOOD after"] = _percent(summary.get("before.process")), _percent(summary.get("process"))
        row |= {f"{name.replace('_', ' ')}": _spent(cell, name) for name in ("sampled_tokens", "trained_tokens", "seconds")}
    else:
        row["GOOD steps"] = _percent(summary.get("process"))
        row["valid actions"] = _percent(summary.get("valid_actions"))
        row["episodes"] = f"{sum(result.counts.get('episodes', 0) for result in cell.results):,}"
    return {**row, "excluded": f"{_excluded(cell):,}"}


def _excluded(cell: Cell) -> int:
    return sum(result.counts.get(name, 0) for result in cell.results for name in ("failed", "ungradable"))


def _over_questions(cell: Cell, figure: str) -> str:
    finished = [result for result in cell.results if result.finished]
    estimate: Estimate | None = finished[0].figures.get(figure) if len(finished) == 1 else None
    if estimate is None or estimate.low is None or estimate.high is None:
        return "-"
    return _interval(Interval(estimate.low, estimate.high))


def _spent(cell: Cell, name: str) -> str:
    values = [result.spent[name] for result in cell.results if name in result.spent]
    return f"{sum(values) / len(values):,.0f}" if values else "-"


def _percent(summary: Summary | None, what: str = "mean") -> str:
    return "-" if summary is None else f"{100 * float(getattr(summary, what)):.1f}"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def comparison_rows(rows: Sequence[Comparison]) -> list[Row]:
    """Returns a row per pair of cells; differences in points of percent."""
    return [
        {
            "cell": one.first,
            "compared with": one.second,
            "difference": f"{100 * one.difference:+.1f}",
            "95 % interval": _signed(one.interval),
            "pairs": f"{one.pairs:,} {one.unit}{'' if one.pairs == 1 else 's'}",
            "better": f"{one.better:,}",
            "worse": f"{one.worse:,}",
            "P(improvement)": "-" if one.improvement is None else f"{one.improvement:.2f}",
            "95 % of P": "-"
            if one.improvement_interval is None
            else f"{one.improvement_interval.low:.2f} to {one.improvement_interval.high:.2f}",
        }
        for one in rows
    ]


def _signed(interval: Interval | None) -> str:
    return "-" if interval is None else f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def overall_rows(rows: Sequence[Overall]) -> list[Row]:
    """Returns a row per cell over all sets of questions."""
    return [
        {
            "cell": one.label,
            "sets": str(one.sections),
            "runs": str(len(one.summary.values)),
            "mean %": _percent(one.summary),
            "IQM": _percent(one.summary, "iqm"),
            "95 % interval": _interval(one.summary.interval) if one.summary.interval else "fewer than 3 seeds",
        }
        for one in rows
    ]


def judge_rows(report: Report) -> list[Row]:
    """Returns a row per run and judge."""
    return [
        {
            "run": result.path,
            "judge": judge.judge,
            "GOOD steps": "-" if judge.good is None else f"{100 * judge.good:.1f}",
            "labelled steps": f"{judge.labelled:,}",
            "failed verdicts": f"{judge.failed:,}",
        }
        for result in report.results()
        for judge in result.judges
    ]


def agreement_rows(report: Report) -> list[Row]:
    """Returns a row per run and pair of judges."""
    return [
        {
            "run": result.path,
            "judges": f"{pair.first} and {pair.second}",
            "agree %": f"{100 * pair.share:.1f}",
            "kappa": "-" if pair.kappa is None else f"{pair.kappa:.2f}",
            "steps": f"{pair.steps:,}",
            "both GOOD": f"{pair.both_good:,}",
            "only first": f"{pair.only_first_good:,}",
            "only second": f"{pair.only_second_good:,}",
            "both BAD": f"{pair.both_bad:,}",
        }
        for result in report.results()
        for pair in result.agreement
    ]


def dashboard_rows(report: Report) -> list[Row]:
    """Returns a row per training run: how far it has come."""
    return [
        {
            "run": one.path,
            "state": "ended" if one.finished else "no final evaluation yet",
            "updates": f"{one.updates:,}",
            "sampled tokens": f"{one.sampled_tokens:,.0f}",
            "of at most": "-" if one.budget is None else f"{one.budget:,.0f}",
        }
        for one in report.dashboards
    ]


def run_values(report: Report) -> Iterator[dict[str, Any]]:
    """Yields a row of plain values per run, so that every figure can be computed again from them."""
    for block in report.blocks:
        yield from run_values_of(block)


def run_values_of(block: Block) -> Iterator[dict[str, Any]]:
    """Yields the rows of one section's runs."""
    for cell in block.section.cells:
        for result in cell.results:
            yield {
                "cell": cell.label,
                "seed": seed_of(result),
                "run": result.path,
                "section": block.section.label,
                "kind": result.kind,
                "finished": result.finished,
                **{name: estimate.value for name, estimate in result.figures.items()},
                **{f"count.{name}": count for name, count in result.counts.items()},
                **{f"spent.{name}": value for name, value in result.spent.items()},
            }


def cell_values(report: Report) -> Iterator[dict[str, Any]]:
    """Yields a row of plain numbers per cell and figure."""
    for block in report.blocks:
        for cell, of_cell in zip(block.section.cells, block.summaries, strict=True):
            for figure, summary in of_cell.items():
                low, high = summary.interval or (None, None)
                head = {"section": block.section.label, "cell": cell.label, "figure": figure, "seeds": len(summary.values)}
                yield {**head, "mean": summary.mean, "iqm": summary.iqm, "low": low, "high": high, "lowest": min(summary.values)}


def comparison_values(report: Report) -> Iterator[dict[str, Any]]:
    """Yields a row of plain numbers per pair of cells."""
    for block in report.blocks:
        for one in block.comparisons:
            row: dict[str, Any] = msgspec.to_builtins(one)
            for name in ("interval", "improvement_interval"):
                low, high = row.pop(name) or (None, None)
                row |= {f"{name}.low": low, f"{name}.high": high}
            yield row


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Returns rows as CSV with all their columns; what a row lacks is empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(report: Report) -> dict[str, Any]:
    """Returns a report as plain values: sections, cells, runs with their curves, comparisons, judges."""
    return {
        "folders": report.folders,
        "compared": report.compared,
        "notes": report.notes,
        "sections": [_section(block) for block in report.blocks],
        "overall": msgspec.to_builtins(report.overall),
    }


def _section(block: Block) -> dict[str, Any]:
    cells = [
        {
            "label": cell.label,
            "keys": cell.keys,
            "figures": msgspec.to_builtins(summary),
            "runs": [_run(result) for result in cell.results],
        }
        for cell, summary in zip(block.section.cells, block.summaries, strict=True)
    ]
    head = {"label": block.section.label, "kind": block.section.kind, "questions": block.section.questions}
    return {**head, "cells": cells, "comparisons": msgspec.to_builtins(block.comparisons)}


def _run(result: Result) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(result)
    return {"seed": seed_of(result), **{key: value for key, value in row.items() if key not in ("config", "questions")}}
