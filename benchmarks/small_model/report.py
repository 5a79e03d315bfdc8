"""What came of the stages of `small_model`: tables read from their run folders, and what each of them took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.evaluate import Evaluation, t975
from swirl_env.stages import tables
from swirl_env.store import Store

BASE, WARM = "base", "warm start"
"""Names of two policies: the model as it came, and after the demonstrations."""
_UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One evaluation."""

    policy: str
    test: str
    """Set of the held-out questions."""
    temperature: float
    folder: str
    """Its run folder, below that of all runs."""


def report(out: Path, rows: Sequence[Row], spent: Sequence[Mapping[str, Any]]) -> str:
    """Returns the tables as Markdown: every evaluation, transfer for each temperature, what the stages took.

    Args:
        out: the folder of all runs.
        rows: the evaluations, in the order of the table; those without results are left out.
        spent: `swirl_env.benchmarks.stage_log.Log.spent`.
    """
    parts = [tables.markdown([_evaluation_cells(row, held) for row in rows if (held := evaluation_of(out, row)) is not None])]
    for temperature in dict.fromkeys(row.temperature for row in rows):
        title = "Success in %, and what it is above (+) or below (-) the warm start: mean over the same questions ± 95 %."
        parts.append(f"{title} T={temperature:g}.\n\n{tables.markdown(transfer(out, rows, temperature))}")
    parts.append(tables.markdown([_cost_cells(stage) for stage in spent]))
    return "\n".join(part or "nothing yet\n" for part in parts)


def transfer(out: Path, rows: Sequence[Row], temperature: float) -> list[dict[str, str]]:
    """Returns a row per policy and a column per test set: success, and the paired difference to the warm start."""
    chosen = {(row.policy, row.test): row for row in rows if row.temperature == temperature}
    tests = list(dict.fromkeys(test for _, test in chosen))
    collected = []
    for policy in dict.fromkeys(policy for policy, _ in chosen):
        cells = {"policy": policy}
        for test in tests:
            mine = outcomes(out, chosen.get((policy, test)))
            before = {} if policy in (BASE, WARM) else outcomes(out, chosen.get((WARM, test)))
            cells[f"tested on {test}"] = _success(mine) + _difference(mine, before)
        collected.append(cells)
    return collected


def outcomes(out: Path, row: Row | None) -> dict[str, float]:
    """Returns task id -> 1.0 for a right answer, else 0.0, of an evaluation; empty where there is none yet."""
    if row is None or evaluation_of(out, row) is None:
        return {}
    return {t.task.id: float(bool(t.outcome.correct)) for t in Store(out / row.folder, "r") if t.ended != "error"}


def paired(mine: Mapping[str, float], before: Mapping[str, float]) -> tuple[float, float]:
    """Returns the mean difference over the questions that both have, and half its 95 % interval (Student's t).

    ``mean(d) ± t * sd(d) / sqrt(n)``, d_q = mine_q - before_q. Two questions are the fewest.
    """
    gains = [mine[task] - before[task] for task in mine if task in before]
    mean = math.fsum(gains) / len(gains)
    variance = math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)
    return mean, t975(len(gains) - 1) * math.sqrt(variance / len(gains))


def _success(mine: Mapping[str, float]) -> str:
    return f"{100 * math.fsum(mine.values()) / len(mine):.1f}" if mine else _UNKNOWN


def _difference(mine: Mapping[str, float], before: Mapping[str, float]) -> str:
    if len(mine.keys() & before.keys()) < 2:
        return ""
    mean, half = paired(mine, before)
    return f" ({100 * mean:+.1f} ± {100 * half:.1f})"


def evaluation_of(out: Path, row: Row) -> Evaluation | None:
    """Returns the figures of an evaluation; None if it was not made yet."""
    file = out / row.folder / "evaluation.json"
    if not file.is_file():
        return None
    collected = json.loads(file.read_text(encoding="utf-8"))
    return msgspec.convert({key: value for key, value in collected.items() if key != "verdicts"}, Evaluation)


def _evaluation_cells(row: Row, collected: Evaluation) -> dict[str, str]:
    return {
        "policy": row.policy,
        "tested on": row.test,
        "T": f"{row.temperature:g}",
        "questions": f"{collected.episodes}" + (f" ({collected.failed} failed)" if collected.failed else ""),
        "success %": tables.percent(collected.accuracy),
        "95 % interval": tables.interval(collected.accuracy),
        "GOOD steps %": tables.percent(collected.process),
        "valid actions %": tables.percent(collected.valid_actions),
        "steps": tables.mean(collected.steps),
        "tokens": tables.mean(collected.tokens),
    }


def _cost_cells(stage: Mapping[str, Any]) -> dict[str, str]:
    seconds = {"seconds": f"{stage['seconds']:,.0f}", "processor seconds": f"{stage['cpu_seconds']:,.0f}"}
    return {"stage": str(stage["stage"]), **seconds, **work_cells(stage)}


def work_cells(stage: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a stage sampled, trained on and had judged, as cells; `-` for what its folder does not say.

    Args:
        stage: one of `swirl_env.benchmarks.stage_log.Log.spent`.
    """
    sampled, trained, calls = _work(str(stage["command"]), Path(stage["folder"]))
    counts = {"sampled tokens": sampled, "trained tokens": trained, "judge calls": calls}
    return {name: _UNKNOWN if count is None else f"{count:,}" for name, count in counts.items()}


def _work(command: str, folder: Path) -> tuple[int | None, int | None, int | None]:
    """Returns sampled tokens, trained tokens and judge calls of a stage; None for what is not known."""
    if command in ("generate", "judge") and (folder / "trajectories").is_dir():
        steps = [step for trajectory in Store(folder, "r") for step in trajectory.steps]
        # The folder of a judge's stage is that of the run it judged: the tokens in it are the policy's, not the judge's.
        sampled = sum(len(step.action.token_ids) for step in steps) if command == "generate" else None
        return sampled, 0, len(steps)
    file = folder / "evaluation.json"
    collected = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if command == "eval" and collected:
        return _total(collected, "tokens"), 0, _total(collected, "steps")
    spent = collected.get("spent") or last_update(folder)
    return spent.get("sampled_tokens"), spent.get("trained_tokens"), spent.get("judge_calls")


def last_update(folder: Path) -> dict[str, Any]:
    """Returns what a training run that did not end well wrote of its last update; empty if there was none."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return dict(json.loads(lines[-1])) if lines else {}


def _total(collected: Mapping[str, Any], field: str) -> int:
    """Returns mean times count: ``tokens`` and ``steps`` are counted per episode."""
    estimate = collected[field]
    return round(float(estimate["value"] or 0) * int(estimate["n"]))
