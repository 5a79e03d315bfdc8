"""Evaluations as files of a run folder, and the one number of them that a sweeper optimises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from swirl_env.errors import ConfigError, unknown_name
from swirl_env.evaluate import Estimate, Evaluation
from swirl_env.stages import runs

FIGURES = tuple(field for field, kind in Evaluation.__annotations__.items() if kind == "Estimate")
"""What ``objective=`` may name; of a trained policy also ``greedy.`` and one of them."""


def write(path: Path, table: str | None, evaluation: Evaluation, grader: str = "") -> Path:
    """Writes an evaluation and returns the file; none overwrites that of another table of verdicts or another grader.

    Args:
        path: the run folder.
        table: the table of verdicts that counted; None for those of the episodes.
        evaluation: the evaluation.
        grader: the grader that graded the answers again; empty for the grades of the episodes.
    """
    file = path / ".".join(["evaluation", *filter(None, (table, grader)), "json"])
    runs.write_json(file, {"verdicts": table, **({"grader": grader} if grader else {}), **evaluation.to_dict()})
    return file


def check_objective(objective: str | None, *also: str) -> None:
    """Refuses an objective that no evaluation has.

    Args:
        objective: the figure's name; None for the accuracy.
        *also: names of further evaluations that may stand before it, e.g. ``greedy``.

    Raises:
        UnknownName: with the nearest name.
    """
    known = [*FIGURES, *(f"{how}.{figure}" for how in also for figure in FIGURES)]
    if objective is not None and objective not in known:
        raise unknown_name("objective", objective, known)


def objective_value(objective: str | None, evaluations: Mapping[str, Evaluation]) -> float | None:
    """Returns the figure that an objective names.

    Args:
        objective: a figure, or ``greedy.`` and a figure; None for the accuracy, if there is one.
        evaluations: by name; the first one is meant if the objective names none.

    Raises:
        ConfigError: if the objective is named and there is no such figure.
    """
    how, _, figure = (objective or "accuracy").rpartition(".")
    evaluation = evaluations.get(how) if how else next(iter(evaluations.values()), None)
    estimate: Estimate | None = None if evaluation is None else getattr(evaluation, figure)
    if estimate is not None and estimate.value is not None:
        return estimate.value
    if objective is None:
        return None
    raise ConfigError(
        f"objective={objective}: the run has no such figure. Evaluate it (eval.episodes, eval.split), or name another."
    )
