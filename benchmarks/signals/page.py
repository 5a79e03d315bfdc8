"""The page about step signals: its tables, and the figures in its text, are those of the stored audits."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from swirl_env.audit.report import Audit, SignalReport
from swirl_env.benchmarks.signals.words import TEXT, TITLES
from swirl_env.evaluate import Estimate
from swirl_env.stages.audit import load
from swirl_env.stages.audit_tables import interval, kind_rows, number, oracle_rows, policy_rows
from swirl_env.stages.tables import markdown, percent

WIDTH = 128
"""Longest line of a paragraph."""
READING, WRITING = "reading", "writing"
"""Names of the audits of signals that let a language model read, or write too; on the first episodes of a run."""


def write(page: Path, out: Path, runs: Sequence[str]) -> None:
    """Writes the page.

    Args:
        page: the Markdown file.
        out: folder of the runs.
        runs: the runs that were audited.
    """
    audits = {run: with_models(out / run) for run in runs}
    page.write_text(text(audits), encoding="utf-8")


def with_models(run: Path) -> Audit:
    """Returns the audit of a run, with the signals of those that asked a language model at its end if there are any."""
    audit = load(run)
    more = [load(run, name) for name in (READING, WRITING) if (run / "audit" / f"{name}.json").is_file()]
    return msgspec.structs.replace(audit, signals=(*audit.signals, *(signal for other in more for signal in other.signals)))


def text(audits: Mapping[str, Audit]) -> str:
    """Returns the page."""
    parts = [TEXT["head"], _facts(audits)]
    for title, rows in (("oracle", _oracle), ("policy", _policy), ("kinds", _kinds)):
        parts.append(TEXT[title])
        parts += [f"### {TITLES[run]}\n\n{rows(audit)}" for run, audit in audits.items() if rows(audit)]
    parts.append(_wrapped(filled(TEXT["conclusions"], audits)))
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _facts(audits: Mapping[str, Audit]) -> str:
    rows = [
        {
            "run": TITLES[run],
            "episodes": f"{audit.episodes:,}",
            "steps": f"{audit.steps:,}",
            "steps that make progress %": percent(audit.truths["progress"]),
            "steps that keep the question solvable %": percent(audit.truths["solvable"]),
            "fresh episodes per state": str(audit.samples),
            "steps that these decide": f"{audit.truths['policy'].n:,}" if "policy" in audit.truths else "-",
        }
        for run, audit in audits.items()
    ]
    return markdown(rows)


def _oracle(audit: Audit) -> str:
    return markdown([_code(row) for row in oracle_rows(audit.signals)])


def _policy(audit: Audit) -> str:
    signals = [signal for signal in audit.signals if "policy" in signal.labels]
    return markdown([_code(row) for row in policy_rows(signals)])


def _kinds(audit: Audit) -> str:
    return markdown([_code(row) for row in kind_rows(audit)])


def _code(row: Mapping[str, str]) -> dict[str, str]:
    return {**row, "signal": f"`{row['signal']}`"}


def filled(words: str, audits: Mapping[str, Audit]) -> str:
    """Returns a text with its figures, ``{run|signal|what}``, as the tables show them; ``-`` for one that no audit has.

    ``what`` is a truth and a measure (``progress.kappa``, ``policy.accuracy``), a rank (``a_star``), ``kind.NAME``, ``calls``,
    ``tokens``, ``steps`` or ``failed``; a ``+`` at its end adds the interval.
    """
    return re.sub(r"\{([^{}|]+)\|([^{}|]+)\|([^{}|]+)\}", lambda match: _shown(audits, *match.groups()), words)


def _wrapped(words: str) -> str:
    """Returns a text with its paragraphs broken into lines again; headings and tables stay as they are."""
    wrapper = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    blocks = words.replace(" %", "\N{NO-BREAK SPACE}%").split("\n\n")  # a number stays with its sign
    lines = "\n\n".join(block if block[:1] in "#|" else wrapper.fill(block) for block in blocks)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def _shown(audits: Mapping[str, Audit], run: str, name: str, what: str) -> str:
    signals = audits[run].signals if run in audits else ()
    signal = next((signal for signal in signals if signal.name == name), None)
    figure, share = (None, False) if signal is None else _figure(signal, what.rstrip("+"))
    if isinstance(figure, int):
        return f"{figure:,}"
    if isinstance(figure, float):
        return f"{figure:,.1f}" if figure < 10 else f"{figure:,.0f}"
    if figure is None or figure.value is None:
        return "-"
    shown = f"{percent(figure)} %" if share else number(figure)
    if not what.endswith("+") or figure.low is None or figure.high is None:
        return shown
    return f"{shown} ({100 * figure.low:.1f} to {100 * figure.high:.1f})" if share else f"{shown} ({interval(figure)})"


def _figure(signal: SignalReport, what: str) -> tuple[Estimate | float | int | None, bool]:
    """Returns a figure of a signal, and whether it is a share to be shown in percent."""
    first, _, second = what.partition(".")
    if first == "kind":
        return signal.kinds.get(second), True
    if first in ("calls", "tokens"):
        cost: float | None = getattr(signal, first)
        return cost, False
    if first in ("steps", "failed"):
        count: int = getattr(signal, first)
        return count, False
    if first in signal.ranks:
        return signal.ranks[first].spearman, False
    if first not in signal.labels:
        return None, False
    figure: Estimate = getattr(signal.labels[first], second)
    return figure, second not in ("kappa", "auc")
