"""What was measured with the 0.5B model, in a file next to the page.

The run folders are too large to travel, and all stages together take hours. What one machine has measured stands in this file,
and the run on the next one begins with the stages that are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.benchmarks.qwen.mistakes import kind_of
from swirl_env.benchmarks.qwen.plan import SETS, evaluation_name, judging_name, warm_policy
from swirl_env.benchmarks.small_model.report import BASE, WARM, Row, evaluation_of, last_update, outcomes, work_cells
from swirl_env.errors import ConfigError
from swirl_env.evaluate import Evaluation
from swirl_env.store import Store
from swirl_env.store.lines import replace_file
from swirl_env.types import Record

SETTINGS = ("held_out", "own", "samples", "warm_updates", "budget", "max_new_tokens", "seed")
"""Options that decide what is measured; the others say where and how."""


class Measured(Record, frozen=True):
    """An evaluation."""

    policy: str
    test: str
    """Set of the held-out questions."""
    start: str
    """Which warm start it begins with: the first digits of the SHA-256 of its adapter; empty for the base model."""
    evaluation: Evaluation
    outcomes: str
    """For each question of the set, in the order of `Measurements.questions`: 1 right, 0 wrong, - the agent failed."""
    mistakes: dict[str, int]
    """Kind of episode (`mistakes.KINDS`) -> how many."""


class Measurements(Record, frozen=True):
    """All that the page shows."""

    settings: dict[str, int]
    questions: dict[str, list[str]] = {}
    """Set -> ids of its held-out questions."""
    rows: list[Measured] = []
    judges: list[dict[str, str]] = []
    """Rows of the table of judges."""
    stages: dict[str, dict[str, str]] = {}
    """Stage -> its row of the table of costs."""
    untrained: list[str] = []
    """Arms that ended without a policy, as there was nothing to train on."""

    def of(self, policy: str, test: str) -> list[Measured]:
        """Returns the evaluations of a policy on a set, one for each warm start that there was."""
        return [row for row in self.rows if (row.policy, row.test) == (policy, test)]

    def results(self, row: Measured) -> dict[str, float]:
        """Returns question -> 1.0 for a right answer, else 0.0; without those on which the agent failed."""
        pairs = zip(self.questions[row.test], row.outcomes, strict=True)
        return {question: float(outcome) for question, outcome in pairs if outcome != "-"}


def settings_of(options: argparse.Namespace) -> dict[str, int]:
    """Returns the options that decide what is measured."""
    return {name: getattr(options, name) for name in SETTINGS}


def file_of(page: Path) -> Path:
    """Returns the file of a page's measurements."""
    return page.with_suffix(".json")


def load(page: Path, settings: Mapping[str, int]) -> Measurements:
    """Returns the measurements of a page, none if it has no file.

    Raises:
        ConfigError: if the file cannot be read, or holds measurements of other settings.
    """
    file = file_of(page)
    if not file.is_file():
        return Measurements(dict(settings))
    try:
        held = msgspec.json.decode(file.read_bytes(), type=Measurements)
    except (msgspec.MsgspecError, OSError) as error:
        raise ConfigError(f"{file}: expected measurements of this benchmark ({error}); take another --page.") from None
    if held.settings != settings:
        other = ", ".join(f"--{key.replace('_', '-')} {value}" for key, value in held.settings.items())
        raise ConfigError(f"{file} was measured with {other}; take these, or another --page.")
    return held


def save(page: Path, held: Measurements) -> None:
    """Writes the measurements of a page, one to a line, so that changes can be read."""
    whole = msgspec.to_builtins(held)
    parts = []
    for key, value in whole.items():
        lines = [json.dumps(one) for one in value] if isinstance(value, list) else []
        if isinstance(value, dict):
            lines = [f"{json.dumps(name)}: {json.dumps(one)}" for name, one in value.items()]
        around = "[]" if isinstance(value, list) else "{}"
        parts.append(f"{json.dumps(key)}: {around[0]}\n" + ",\n".join(lines) + f"\n{around[1]}")
    replace_file(file_of(page), ("{" + ",\n".join(parts) + "}\n").encode())


def measured(held: Measurements, out: Path) -> set[str]:
    """Returns the names of the stages whose measurements are there.

    Not those of a warm start that is another one than the arms of this folder begin with: they are compared with their own.
    """
    warm = warm_policy(out)
    start = _digits(warm) if warm.is_dir() else None
    rows = {evaluation_name(row.policy, row.test) for row in held.rows if row.policy != WARM or start in (None, row.start)}
    rows |= {evaluation_name(policy, test) for policy in held.untrained for test in SETS}
    return rows | {name for line in held.judges if (name := judging_name(line["judge"])) in held.stages}


def gathered(held: Measurements, out: Path, rows: Sequence[Row], spent: Iterable[Mapping[str, Any]]) -> Measurements:
    """Returns measurements with those that a folder of runs has, which replace older ones of the same name and warm start.

    Args:
        held: the measurements of before.
        out: folder of all runs.
        rows: evaluations, done or not.
        spent: what the stages that have ended took (`Log.spent`).
    """
    spent = list(spent)
    stages = {**held.stages, **{str(stage["stage"]): _cost(stage) for stage in spent}}
    ran = {str(stage["stage"]) for stage in spent}
    untrained = {*held.untrained} - ran | {str(stage["stage"]) for stage in spent if _was_in_vain(stage, held.settings["budget"])}
    questions, evaluations = dict(held.questions), {(row.policy, row.test, row.start): row for row in held.rows}
    done = [(row, evaluation) for row in rows if (evaluation := evaluation_of(out, row)) is not None]
    warm = _digits(warm_policy(out)) if any(row.policy != BASE for row, _ in done) else ""
    for row, evaluation in done:
        results = outcomes(out, row)
        episodes = list(Store(out / row.folder, "r"))
        questions.setdefault(row.test, sorted(episode.task.id for episode in episodes))
        digits = "".join(f"{results[one]:.0f}" if one in results else "-" for one in questions[row.test])
        start = "" if row.policy == BASE else warm
        kinds = dict(Counter(map(kind_of, episodes)))
        evaluations[row.policy, row.test, start] = Measured(row.policy, row.test, start, evaluation, digits, kinds)
    base = next(row.folder for row in rows if row.policy == BASE)
    lines = [line for line in _judges(out / base) if line["judge"] == "rules" or judging_name(line["judge"]) in stages]
    judges = {line["judge"]: line for line in (*held.judges, *lines)}
    return Measurements(held.settings, questions, list(evaluations.values()), list(judges.values()), stages, sorted(untrained))


def _was_in_vain(stage: Mapping[str, Any], budget: int) -> bool:
    """Returns whether an arm ended in an error, its tokens sampled and none trained on; a refused option is another error."""
    update = last_update(Path(stage["folder"])) if stage["command"] == "train" and stage["code"] else {}
    return update.get("trained_tokens") == 0 and update["sampled_tokens"] >= budget


def _digits(policy: Path) -> str:
    return hashlib.sha256((policy / "adapter_model.safetensors").read_bytes()).hexdigest()[:8]


def _judges(folder: Path) -> list[dict[str, str]]:
    """Returns how far the judges of a run agree with the rules, step by step; nothing if there are none."""
    if not (folder / "verdicts").is_dir():
        return []
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
                "failed %": _share([verdict.status == "failed" for _, verdict in pairs]),
                "GOOD %, rules": _share([rule for rule, _ in both]),
                "GOOD %, judge": _share([judge for _, judge in both]),
                "agreement %": _share([rule == judge for rule, judge in both]),
                "GOOD recognised %": _share([judge for rule, judge in both if rule]),
                "BAD recognised %": _share([not judge for rule, judge in both if not rule]),
            }
        )
    return lines


def _share(values: Sequence[bool]) -> str:
    return f"{100 * sum(values) / len(values):.1f}" if values else "-"


def _cost(stage: Mapping[str, Any]) -> dict[str, str]:
    seconds = {"minutes": f"{stage['seconds'] / 60:,.0f}", "processor minutes": f"{stage['cpu_seconds'] / 60:,.0f}"}
    return {**seconds, **work_cells(stage)}
