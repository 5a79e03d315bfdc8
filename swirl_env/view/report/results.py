"""What one run folder measured: figures with their intervals, counts, cost, learning curve, and what its judges say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from swirl_env.errors import StoreError
from swirl_env.evaluate import Estimate, Evaluation, evaluate
from swirl_env.stages import folders, runs
from swirl_env.stages.run_config import flat
from swirl_env.store import Store
from swirl_env.types import Trajectory
from swirl_env.view.report.judges import Agreement, JudgeFigures, Judgements
from swirl_env.view.report.training import Point, learning_curve, seconds_spent

_OF_EPISODES = ("accuracy", "f1", "process", "reward", "valid_actions", "tool_errors", "steps", "tokens")
_OF_POLICIES = ("process", "valid_actions", "steps", "tokens")
_COUNTS = ("episodes", "failed", "ungradable", "unscored", "failed_verdicts")
_SPENT = ("updates", "sampled_tokens", "trained_tokens", "judge_calls", "episodes")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    path: str
    kind: folders.Kind
    config: dict[str, Any]
    """Its configuration, nested keys as dotted ones; of episodes that a loop of one's own stored, the folder alone."""
    finished: bool = True
    """Whether it has the figures that it is compared by."""
    figures: dict[str, Estimate] = {}
    """Shares are fractions of 1. Of a trained policy: ``success``, ``greedy`` and, of the policy it began with, ``before.*``."""
    counts: dict[str, int] = {}
    """Episodes of the evaluation, and how many of them are in no rate."""
    spent: dict[str, float] = {}
    """Of a training run: tokens, judge calls, seconds."""
    curve: tuple[Point, ...] = ()
    judges: tuple[JudgeFigures, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    questions: dict[str, float] = {}
    """Task id -> share of its episodes that are right."""
    wrong: tuple[str, int] | None = None
    """Task id and sample of the first wrong episode."""

    @property
    def main_figure(self) -> str:
        """The figure that it is compared by."""
        return "success" if self.kind == "training" else "accuracy"

    def value(self, figure: str) -> float | None:
        """Returns a figure, None if it was not measured."""
        estimate = self.figures.get(figure)
        return None if estimate is None else estimate.value


def read_result(path: Path, kind: folders.Kind, verdicts: str | None = None) -> Result:
    """Reads what a run measured; writes nothing.

    Args:
        path: the run folder.
        kind: what it holds.
        verdicts: name or fingerprint of the judge whose verdicts count; None for those of the episodes.
    """
    config = flat(runs.config_of(path))
    if kind == "training":
        try:
            return _training(path, config)
        except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
            file = path / "evaluation.json"
            raise StoreError(f"{file} is damaged: {error}. Resume the run, or leave it out of the report.") from error
    return _episodes(path, config or {"run": str(path)}, verdicts)


def _episodes(path: Path, config: dict[str, Any], verdicts: str | None) -> Result:
    store = Store(path, "r")
    judgements, grades = Judgements(store), _Grades()
    evaluation = evaluate(grades.watch(judgements.watch(store, runs.table_of(store, verdicts))))
    return Result(
        path=str(path),
        kind="episodes",
        config=config,
        finished=evaluation.accuracy.value is not None,
        figures={name: getattr(evaluation, name) for name in _OF_EPISODES},
        counts={name: getattr(evaluation, name) for name in _COUNTS},
        judges=judgements.figures(),
        agreement=judgements.agreement(),
        questions=grades.shares(),
        wrong=grades.wrong,
    )


class _Grades:
    """Collects the grades of the episodes that pass by, per question."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, int]] = {}
        self.wrong: tuple[str, int] | None = None

    def watch(self, trajectories: Iterator[Trajectory]) -> Iterator[Trajectory]:
        for trajectory in trajectories:
            correct = trajectory.outcome.correct
            if trajectory.ended != "error" and correct is not None:
                right, total = self._sums.get(trajectory.task.id, (0, 0))
                self._sums[trajectory.task.id] = (right + correct, total + 1)
                if not correct and self.wrong is None:
                    self.wrong = trajectory.key
            yield trajectory

    def shares(self) -> dict[str, float]:
        return {task: right / total for task, (right, total) in self._sums.items()}


def _training(path: Path, config: dict[str, Any]) -> Result:
    results = folders.training_results(path)
    after, before, spent = results.get("after"), results.get("before"), results.get("spent", {})
    figures: dict[str, Estimate] = {}
    for prefix, measured in (("before.", before), ("", after)):
        if measured:
            figures |= {f"{prefix}{name}": estimate for name, estimate in _policy_figures(measured).items()}
    evaluation = msgspec.convert(after["sampled"], Evaluation) if after else None
    return Result(
        path=str(path),
        kind="training",
        config=config,
        finished=bool(after),
        figures=figures,
        counts={} if evaluation is None else {name: getattr(evaluation, name) for name in _COUNTS},
        spent={**{name: spent[name] for name in _SPENT if name in spent}, "seconds": seconds_spent(path)} if spent else {},
        curve=learning_curve(path, results),
    )


def _policy_figures(measured: dict[str, Any]) -> dict[str, Estimate]:
    evaluations = {how: msgspec.convert(measured[how], Evaluation) for how in ("sampled", "greedy") if how in measured}
    sampled, greedy = evaluations.get("sampled"), evaluations.get("greedy")
    figures = {} if sampled is None else {"success": sampled.accuracy, **{n: getattr(sampled, n) for n in _OF_POLICIES}}
    return figures if greedy is None else {**figures, "greedy": greedy.accuracy}
