"""Tables of results for terminals and files: what `swirl eval` and `swirl bench` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from swirl_env.evaluate import Estimate, Evaluation

PLAIN = 200
"""Width of a table where there is no terminal to fit it to."""


def percent(found: Estimate, digits: int = 1) -> str:
    """Returns a share in percent, ``-`` where nothing was counted."""
    return "-" if found.value is None else f"{100 * found.value:.{digits}f}"


def interval(found: Estimate) -> str:
    """Returns the 95 % interval of a share in percent."""
    return "" if found.low is None or found.high is None else f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def mean(found: Estimate) -> str:
    """Returns a mean, ``-`` where nothing was counted."""
    if found.value is None:
        return "-"
    return f"{found.value:.2f}" if found.value < 100 else f"{found.value:,.0f}"


def cells(found: Evaluation) -> dict[str, str]:
    """Returns the columns that stand for an evaluation in a table with one row a run; shares in percent."""
    return {
        "episodes": f"{found.episodes:,}" + (f" ({found.failed:,} failed)" if found.failed else ""),
        "accuracy %": percent(found.accuracy),
        "95 % interval": interval(found.accuracy),
        "F1": percent(found.f1),
        "GOOD steps": percent(found.process),
        "valid actions": percent(found.valid_actions),
        "tool errors": percent(found.tool_errors),
        "steps": mean(found.steps),
        "tokens": mean(found.tokens),
    }


def show(rows: Sequence[Mapping[str, str]], title: str = "", words: int = 1, sections: Sequence[int] = ()) -> None:
    """Prints a table to standard output; what a narrow terminal has no room for is left out, and that is said.

    Args:
        rows: column -> cell, the same columns in each.
        title: stands above it.
        words: how many of the first columns are names; the others are numbers and stand right.
        sections: indices of rows after which a line is drawn.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN)
    columns = list(rows[0]) if rows else []
    hidden: list[str] = []
    while (table := _table(rows, columns, title, words, sections)) and Measurement.get(
        console, console.options.update(width=10_000), table
    ).maximum > console.width:
        spare = next((column for column in _SPARE if column in columns), None)
        if spare is None:
            break
        columns.remove(spare)
        hidden.append(spare)
    console.print(table)
    if hidden:
        console.print(f"(no room for {', '.join(hidden)}: a wider terminal shows them, and so do the files)")


_SPARE = ("tool errors", "F1", "tokens", "valid actions", "steps", "seconds", "kept by outcome", "kept by both", "95 % interval")
"""Columns that a narrow table does without, in this order."""


def _table(rows: Sequence[Mapping[str, str]], columns: Sequence[str], title: str, words: int, sections: Sequence[int]) -> Table:
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for i, column in enumerate(columns):
        first, _, last = column.rpartition(" ")
        head = f"{first.removesuffix(' by')}\n{last}" if i >= words and first else column
        table.add_column(head, justify="left" if i < words else "right", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(*(escape(row[column]) for column in columns), end_section=i in sections)
    return table


def markdown(rows: Sequence[Mapping[str, str]], words: int = 1) -> str:
    """Returns a table as GitHub's Markdown."""
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, [":---" if i < words else "---:" for i in range(len(columns))], *[list(row.values()) for row in rows]]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
