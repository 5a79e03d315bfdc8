"""The figures of the page about the 0.5B model, written from its measurements into their place of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swirl_env.benchmarks.places import FIGURES, comments, has_place, place, replaced
from swirl_env.benchmarks.qwen.mistakes import KINDS
from swirl_env.benchmarks.qwen.record import Measured, Measurements
from swirl_env.benchmarks.small_model.report import BASE, WARM, Row, paired
from swirl_env.errors import ConfigError
from swirl_env.stages import tables
from swirl_env.store.lines import replace_file

PAPER = """\
The paper's figures (Gemma 2 27B, answers judged by a model):

| policy | GSM8K | HotpotQA |
| :--- | ---: | ---: |
| base | 65 | 65 |
| SWiRL trained on GSM8K | 79 | 71 |
| SWiRL trained on HotpotQA | 76 | 73 |
"""
_NOT_RUN = "not run yet"
_UNTRAINED = "no policy: nothing to train on"
_FIGURES = ("success %", "95 % interval", "difference", "GOOD steps %", "valid actions %", "steps", "tokens")
_JUDGES = "Judges by the 0.5B model itself, step by step against the rules, on the base model's episodes:"


def read_page(page: Path) -> str:
    """Returns a page, one with nothing but a place for the figures if there is none.

    Raises:
        ConfigError: if it has no place for the figures.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# Qwen2.5-Coder-0.5B\n\n{place(FIGURES, '')}"
    if not has_place(text, FIGURES):
        raise ConfigError(f"{page} has no place for the figures, between the lines {comments(FIGURES)}.")
    return text


def write_figures(page: Path, held: Measurements, rows: Sequence[Row], stages: Sequence[str]) -> None:
    """Writes the figures into a page; the text before and after them stays.

    Args:
        page: a Markdown file; made if it is absent.
        held: what was measured.
        rows: evaluations in the order of the table, measured or not.
        stages: names of all stages.
    """
    costs = [{"stage": stage, **held.stages[stage]} for stage in stages if stage in held.stages]
    parts = [
        f"{len(costs)} of {len(stages)} stages have been run, the rest not yet." if len(costs) < len(stages) else "",
        tables.markdown([line for row in rows for line in _lines(held, row)]),
        PAPER,
        *(_mistakes(row) for test in held.questions for row in held.of(BASE, test)),
        f"{_JUDGES}\n\n{tables.markdown(held.judges)}" if held.judges else "",
        tables.markdown(costs),
    ]
    figures = "\n\n".join(part.strip() for part in parts if part.strip())
    replace_file(page, replaced(read_page(page), FIGURES, figures).encode())


def _lines(held: Measurements, row: Row) -> list[dict[str, str]]:
    """Returns what the table says of an evaluation: a line for each warm start, mostly one."""
    measured = held.of(row.policy, row.test)
    if not measured:
        why = _UNTRAINED if row.policy in held.untrained else _NOT_RUN
        return [{"policy": row.policy, "tested on": row.test, "questions": why, **dict.fromkeys(_FIGURES, "")}]
    return [_cells(held, one) for one in measured]


def _cells(held: Measurements, row: Measured) -> dict[str, str]:
    several = len({one.start for one in held.rows if one.start}) > 1 and row.policy != BASE
    evaluation = row.evaluation
    return {
        "policy": row.policy + (f" ({row.start})" if several else ""),
        "tested on": row.test,
        "questions": f"{evaluation.episodes}" + (f" ({evaluation.failed} failed)" if evaluation.failed else ""),
        "success %": tables.percent(evaluation.accuracy),
        "95 % interval": tables.interval(evaluation.accuracy),
        "difference": _difference(held, row),
        "GOOD steps %": tables.percent(evaluation.process),
        "valid actions %": tables.percent(evaluation.valid_actions),
        "steps": tables.mean(evaluation.steps),
        "tokens": tables.mean(evaluation.tokens),
    }


def _difference(held: Measurements, row: Measured) -> str:
    """Returns the paired difference to the warm start that an arm began with; of a warm start, to the base model."""
    if row.policy == BASE:
        return ""
    others = held.of(BASE if row.policy == WARM else WARM, row.test)
    other = next((one for one in others if one.start in ("", row.start)), None)
    if other is None:
        return ""
    mine, before = held.results(row), held.results(other)
    if len(mine.keys() & before.keys()) < 2:
        return ""
    mean, half = paired(mine, before)
    return f"{100 * mean:+.1f} ± {100 * half:.1f}"


def _mistakes(row: Measured) -> str:
    """Returns how the episodes of an evaluation went wrong, each counted once."""
    lines = [{"episodes": kind, "number": f"{row.mistakes.get(kind, 0)}"} for kind in KINDS]
    episodes = sum(row.mistakes.values())
    return f"How the {episodes} episodes of {row.policy} on {row.test} went:\n\n{tables.markdown(lines)}"
