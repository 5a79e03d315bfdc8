"""Tables of results for terminals and files: what `swirl eval` and `swirl bench` print."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from swirl_env.errors import printable
from swirl_env.evaluate import Estimate, Evaluation, t975

PLAIN = 200
"""Width of a table if there is no terminal to fit it to."""


def percent(estimate: Estimate, digits: int = 1) -> str:
    """Returns a share in percent, ``-`` if nothing was counted."""
    return "-" if estimate.value is None else f"{100 * estimate.value:.{digits}f}"


def interval(estimate: Estimate) -> str:
    """Returns the 95 % interval of a share in percent."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def mean(estimate: Estimate) -> str:
    """Returns a mean, ``-`` if nothing was counted."""
    if estimate.value is None:
        return "-"
    return f"{estimate.value:.2f}" if estimate.value < 100 else f"{estimate.value:,.0f}"


def cells(evaluation: Evaluation) -> dict[str, str]:
    """Returns the columns that stand for an evaluation in a table with one row per run; shares in percent."""
    return {
        "episodes": f"{evaluation.episodes:,}" + (f" ({evaluation.failed:,} failed)" if evaluation.failed else ""),
        "accuracy %": percent(evaluation.accuracy),
        "95 % interval": interval(evaluation.accuracy),
        "F1": percent(evaluation.f1),
        "GOOD steps": percent(evaluation.process),
        "valid actions": percent(evaluation.valid_actions),
        "tool errors": percent(evaluation.tool_errors),
        "steps": mean(evaluation.steps),
        "tokens": mean(evaluation.tokens),
    }


def policy_cells(sampled: Evaluation, greedy: Evaluation | None) -> dict[str, str]:
    """Returns the columns that stand for a trained policy, sampled and greedy; shares in percent."""
    return {
        "success %": percent(sampled.accuracy),
        "95 % interval": interval(sampled.accuracy),
        "greedy %": "-" if greedy is None else percent(greedy.accuracy),
        "GOOD steps": percent(sampled.process),
        "valid actions": percent(sampled.valid_actions),
        "steps": mean(sampled.steps),
    }


def percent_over_seeds(shares: Sequence[float], spread: bool = True) -> str:
    """Returns a mean in percent, for several seeds with half the width of its 95 % interval (Student's t); ``-`` for none."""
    if not shares:
        return "-"
    mean = f"{100 * statistics.fmean(shares):.1f}"
    if len(shares) < 2 or not spread:
        return mean
    half = t975(len(shares) - 1) * statistics.stdev(shares) / math.sqrt(len(shares))
    return f"{mean} ± {100 * half:.1f}"


def show(
    rows: Sequence[Mapping[str, str]],
    title: str = "",
    words: int = 1,
    sections: Sequence[int] = (),
    spare: Sequence[str] = (),
) -> None:
    """Prints a table to standard output; what a narrow terminal has no room for is left out, and that is said.

    Args:
        rows: column -> cell, the same columns in each.
        title: text above it, taken as it is.
        words: how many of the first columns are names; the others are numbers and are right-aligned.
        sections: indices of rows after which a line is drawn.
        spare: columns that a narrow table does without first, on top of the usual ones.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN)
    columns = list(rows[0]) if rows else []
    hidden: list[str] = []
    while (table := _table(rows, columns, title, words, sections)) and Measurement.get(
        console, console.options.update(width=10_000), table
    ).maximum > console.width:
        least = next((column for column in (*spare, *_SPARE) if column in columns), None)
        if least is None:
            break
        columns.remove(least)
        hidden.append(least)
    console.print(table)
    if hidden:
        console.print(f"(no room for {', '.join(hidden)}: a wider terminal shows them, and so do the files)")


_SPARE = ("tool errors", "F1", "tokens", "valid actions", "steps", "seconds", "kept by outcome", "kept by both", "95 % interval")
"""Columns that a narrow table does without, in this order."""


def _table(rows: Sequence[Mapping[str, str]], columns: Sequence[str], title: str, words: int, sections: Sequence[int]) -> Table:
    table = Table(
        title=Text(printable(title)) if title else None,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for i, column in enumerate(columns):
        first, _, last = column.rpartition(" ")
        head = f"{first.removesuffix(' by')}\n{last}" if i >= words and first else column
        table.add_column(head, justify="left" if i < words else "right", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(*(escape(printable(row[column])) for column in columns), end_section=i in sections)
    return table


def markdown(rows: Sequence[Mapping[str, str]], words: int = 1) -> str:
    """Returns a table as GitHub's Markdown."""
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, [":---" if i < words else "---:" for i in range(len(columns))], *[list(row.values()) for row in rows]]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)
