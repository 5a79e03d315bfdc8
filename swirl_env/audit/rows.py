"""The audit as rows of CSV files: one row per figure, and one per step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from swirl_env.audit.branches import step_values
from swirl_env.audit.oracle import StepValue
from swirl_env.audit.records import PolicyValues
from swirl_env.audit.report import Agreement, Audit, Correlation
from swirl_env.evaluate import Estimate
from swirl_env.types import Trajectory, Verdict

Row = Mapping[str, object]


def flat_rows(audit: Audit) -> Iterator[Row]:
    """Yields one row per figure, for a CSV file: signal, truth, measure, value, interval and counts."""
    for signal in audit.signals:
        for against, labels in signal.labels.items():
            yield from _rows(signal.name, against, labels)
        for against, ranks in signal.ranks.items():
            yield from _rows(signal.name, against, ranks)
        for kind, share in signal.kinds.items():
            yield _row(signal.name, f"kind: {kind}", "accuracy", share)
        for measure in ("calls", "tokens"):
            value = getattr(signal, measure)
            yield _row(signal.name, "cost", f"{measure} per step", Estimate(value, None, None, signal.scored, audit.questions))


def step_rows(
    trajectories: Sequence[Trajectory],
    exact: Sequence[Sequence[StepValue]],
    policy: Sequence[PolicyValues] | None,
    ratings: Mapping[str, Sequence[Verdict]],
) -> Iterator[Row]:
    """Yields one row per step, for a CSV file: what the oracle and the policy's episodes say of it, and how each signal rates it.

    Args:
        trajectories: the episodes.
        exact: the oracle's values, per episode and step.
        policy: the policy's values, per episode; None if they were not estimated.
        ratings: signal -> its verdicts on all steps, in the order of the episodes.
    """
    place = 0
    for number, trajectory in enumerate(trajectories):
        pairs = None if policy is None else step_values(trajectory, policy[number])
        for i, value in enumerate(exact[number]):
            row: dict[str, object] = {"task": trajectory.task.id, "sample": trajectory.sample, "step": i + 1, "kind": value.kind}
            row |= {"left": value.left, "needed": value.needed, "needed_after": value.needed_after}
            row |= {"v_star": int(value.v), "q_star": _whole(value.q), "progress": _whole(value.progress)}
            if pairs is not None:
                (row["v_wins"], row["v_runs"]), (row["q_wins"], row["q_runs"]) = pairs[i]
            yield row | {f"signal:{name}": verdicts[place].reward for name, verdicts in ratings.items()}
            place += 1


def _whole(value: bool | None) -> int | None:
    return None if value is None else int(value)


def _rows(name: str, against: str, figures: Agreement | Correlation) -> Iterator[Row]:
    for measure in figures.__struct_fields__:
        yield _row(name, against, measure, getattr(figures, measure))


def _row(name: str, against: str, measure: str, figure: Estimate) -> Row:
    where = {"signal": name, "against": against, "measure": measure}
    return {**where, "value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n, "questions": figure.clusters}
