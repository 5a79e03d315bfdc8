"""The figures of the page about the 0.5B model, read from stored runs and written into their place of the page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swirl_env.benchmarks.places import FIGURES, comments, has_place, place, replaced
from swirl_env.benchmarks.qwen.mistakes import KINDS, kind_of
from swirl_env.benchmarks.small_model.report import BASE, WARM, Row, evaluation_of, outcomes, paired, work_cells
from swirl_env.stages import tables
from swirl_env.store import Store
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


def write_figures(page: Path, out: Path, rows: Sequence[Row], spent: Sequence[Mapping[str, Any]], stages: int) -> None:
    """Writes the figures into a page; the text before and after them stays.

    Args:
        page: a Markdown file; made if it is absent.
        out: folder of all runs.
        rows: evaluations, done or not.
        spent: what the stages took (`Log.spent`).
        stages: how many stages there are in all.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# Qwen2.5-Coder-0.5B\n\n{place(FIGURES, '')}"
    if not has_place(text, FIGURES):
        raise ValueError(f"{page} has no place for the figures, between the lines {comments(FIGURES)}.")
    parts = [
        f"{len(spent)} of {stages} stages have been run, the rest not yet.",
        tables.markdown([_cells(out, row, rows) for row in rows]),
        PAPER,
        *(_mistakes(out, row) for row in rows if row.policy == BASE),
        _judges(out / next(row.folder for row in rows if row.policy == BASE)),
        tables.markdown([_cost(stage) for stage in spent]),
    ]
    figures = "\n\n".join(part.strip() for part in parts if part.strip())
    replace_file(page, replaced(text, FIGURES, figures).encode())


def _cells(out: Path, row: Row, rows: Sequence[Row]) -> dict[str, str]:
    """Returns a line of the table; the difference is the paired one to the warm start, of the warm start to the base model."""
    evaluation = evaluation_of(out, row)
    cells = {"policy": row.policy, "tested on": row.test}
    if evaluation is None:
        empty = ("success %", "95 % interval", "difference", "GOOD steps %", "valid actions %", "steps", "tokens")
        return {**cells, "questions": _NOT_RUN, **dict.fromkeys(empty, "")}
    other = BASE if row.policy == WARM else WARM
    reference = next((r for r in rows if (r.policy, r.test) == (other, row.test)), None) if row.policy != BASE else None
    return {
        **cells,
        "questions": f"{evaluation.episodes}" + (f" ({evaluation.failed} failed)" if evaluation.failed else ""),
        "success %": tables.percent(evaluation.accuracy),
        "95 % interval": tables.interval(evaluation.accuracy),
        "difference": _difference(outcomes(out, row), outcomes(out, reference)),
        "GOOD steps %": tables.percent(evaluation.process),
        "valid actions %": tables.percent(evaluation.valid_actions),
        "steps": tables.mean(evaluation.steps),
        "tokens": tables.mean(evaluation.tokens),
    }


def _mistakes(out: Path, row: Row) -> str:
    """Returns how the episodes of an evaluation went wrong, each counted once; empty if it was not run."""
    if evaluation_of(out, row) is None:
        return ""
    counts = Counter(kind_of(trajectory) for trajectory in Store(out / row.folder, "r"))
    lines = [{"episodes": kind, "number": f"{counts[kind]}"} for kind in KINDS]
    return f"How the {counts.total()} episodes of {row.policy} on {row.test} went:\n\n{tables.markdown(lines)}"


def _difference(mine: Mapping[str, float], reference: Mapping[str, float]) -> str:
    if len(mine.keys() & reference.keys()) < 2:
        return ""
    mean, half = paired(mine, reference)
    return f"{100 * mean:+.1f} ± {100 * half:.1f}"


def _judges(folder: Path) -> str:
    """Returns how far the judges of a run agree with the rules, step by step; empty if there are none."""
    if not (folder / "verdicts").is_dir():
        return ""
    store = Store(folder, "r")
    lines = []
    for name in store.judges():
        pairs = [
            (step.verdict, verdict)
            for trajectory in store
            for step, verdict in zip(trajectory.steps, store.verdicts(name).get(trajectory.key, ()), strict=False)
            if step.verdict.label is not None
        ]
        if not pairs:
            continue
        both = [(rule.label == "GOOD", verdict.label == "GOOD") for rule, verdict in pairs if verdict.label is not None]
        lines.append(
            {
                "judge": name.partition("-")[0],
                "steps": f"{len(pairs)}",
                "failed %": f"{100 * sum(v.status == 'failed' for _, v in pairs) / len(pairs):.1f}",
                "GOOD %, rules": _share([rule for rule, _ in both]),
                "GOOD %, judge": _share([judge for _, judge in both]),
                "agreement %": _share([rule == judge for rule, judge in both]),
                "GOOD recognised %": _share([judge for rule, judge in both if rule]),
                "BAD recognised %": _share([not judge for rule, judge in both if not rule]),
            }
        )
    title = "Judges by the 0.5B model itself, step by step against the rules, on the base model's episodes:"
    return f"{title}\n\n{tables.markdown(lines)}" if lines else ""


def _share(values: Sequence[bool]) -> str:
    return f"{100 * math.fsum(values) / len(values):.1f}" if values else "-"


def _cost(stage: Mapping[str, Any]) -> dict[str, str]:
    seconds = {"minutes": f"{stage['seconds'] / 60:,.0f}", "processor minutes": f"{stage['cpu_seconds'] / 60:,.0f}"}
    return {"stage": str(stage["stage"]), **seconds, **work_cells(stage)}
