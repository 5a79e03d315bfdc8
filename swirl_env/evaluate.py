"""How good a policy is: rates over stored trajectories, each with a 95 % interval.

The unit that is drawn at random is the *task*, so every interval is by task:

- If each task counts once (accuracy with one sample per task) it is Wilson's score interval.
- If it counts several times (several samples, or several steps of an episode) its units are correlated; a plain interval
  would be too narrow. The variance of the ratio R = sum y_c / sum n_c over C tasks is then the linearised one,
  ``C/(C-1) * sum (y_c - R n_c)^2 / (sum n_c)^2`` (Cochran, Sampling Techniques, 3rd ed., section 6.4). Shares put it into
  Wilson's interval as an effective number of units (the design effect of survey statistics), which keeps the bounds inside
  [0, 1] and off a width of zero at 0 % and 100 %; means use it with Student's t, C - 1 degrees of freedom.

Episodes that ended in an error are counted and left out of every rate: they will be run again.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import msgspec
import numpy as np

from swirl_env.errors import PluginError, log_once, plugin_failure
from swirl_env.protocols import Grader
from swirl_env.registry import Spec, make_grader
from swirl_env.types import Malformed, Outcome, Record, Task, Trajectory

Z95 = 1.959963984540054
"""97.5 % point of the standard normal distribution."""
_LARGEST = 1e100
"""Largest reward that is counted: sums of squares stay finite."""


class Estimate(Record, frozen=True):
    """A rate or a mean with its 95 % interval; all None if there was nothing to count."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Units counted (episodes or steps)."""
    clusters: int
    """Tasks that they come from."""


class Evaluation(Record, frozen=True):
    """The rates and counts of a set of episodes. Shares are fractions of 1."""

    accuracy: Estimate
    """Share of correct episodes among those that can be graded."""
    f1: Estimate
    """Mean token F1 of the same episodes."""
    process: Estimate
    """Mean process label: share of GOOD among the steps that a judge labelled."""
    reward: Estimate
    """Mean step reward among the steps that a judge scored."""
    valid_actions: Estimate
    """Share of the actions that could be read as a call or an answer."""
    tool_errors: Estimate
    """Share of the tool calls whose result was an error."""
    steps: Estimate
    """Mean actions per episode."""
    tokens: Estimate
    """Mean sampled tokens per episode, over the episodes whose agent reports them."""
    episodes: int
    """Episodes seen, those that failed included."""
    failed: int
    """Episodes that ended in an error; in no rate."""
    ungradable: int
    """Finished episodes without gold answer or grade; in all rates but accuracy and F1."""
    unscored: int
    """Steps of finished episodes that no judge scored."""
    failed_verdicts: int
    """Steps of finished episodes on which the judge failed."""

    def table(self) -> list[tuple[str, str, str, str]]:
        """Returns rows ``(name, value, 95 % interval, n)`` for a terminal table; counts have no interval."""
        rows = [_row(name, getattr(self, field), share) for field, (name, share) in _SHOWN.items()]
        return [*rows, *((name, f"{getattr(self, field):,}", "", "") for field, name in _COUNTS.items())]

    def to_dict(self) -> dict[str, object]:
        """Returns nested dicts of plain numbers, as for JSON."""
        return {field: msgspec.to_builtins(value) if isinstance(value, Estimate) else value for field, value in _fields(self)}


_SHOWN = {
    "accuracy": ("accuracy", True),
    "f1": ("F1", True),
    "process": ("mean process label", True),
    "reward": ("mean step reward", False),
    "valid_actions": ("valid actions", True),
    "tool_errors": ("tool errors", True),
    "steps": ("steps per episode", False),
    "tokens": ("tokens per episode", False),
}
_COUNTS = {
    "episodes": "episodes",
    "failed": "failed (left out)",
    "ungradable": "ungradable",
    "unscored": "unscored steps",
    "failed_verdicts": "failed verdicts",
}


def evaluate(trajectories: Iterable[Trajectory], grader: Spec | Callable[[Task, str], bool | None] | None = None) -> Evaluation:
    """Evaluates a stream of trajectories; memory grows by about 300 bytes per task.

    Args:
        trajectories: e.g. a `Store`, ``store.select("none")`` or ``store.with_verdicts(judge)``.
        grader: spec of what grades the answers again, in batches, or a function of a task and an answer; None takes the
            outcomes of the episodes. F1 stays as it is.
    """
    ratios = {name: Ratio() for name in _SHOWN}
    counts = dict.fromkeys(_COUNTS, 0)
    numbers: dict[str, int] = {}
    for trajectory in trajectories if grader is None else regraded(trajectories, make_grader(grader)):
        counts["episodes"] += 1
        if trajectory.ended == "error":
            counts["failed"] += 1
            continue
        task = numbers.setdefault(trajectory.task.id, len(numbers))
        _count_outcome(trajectory, task, ratios, counts)
        _count_steps(trajectory, task, ratios, counts)
    estimates = {name: ratios[name].estimate(share) for name, (_, share) in _SHOWN.items()}
    return msgspec.convert({**estimates, **counts}, Evaluation)


def regraded(trajectories: Iterable[Trajectory], grader: Grader, batch: int = 64) -> Iterator[Trajectory]:
    """Yields the trajectories with `correct` as a grader says: None if it could not tell, False without an answer.

    An answer on which the grader raises, or returns something other than True, False or None, is left open.

    Raises:
        PluginError: if the grader raises on every answer of a batch, or does not give one grade per answer.
    """
    rest = iter(trajectories)
    while group := list(islice(rest, batch)):
        answered = [t for t in group if t.ended != "error" and t.outcome.answer is not None]
        grades = _grade_all(grader, [t.task for t in answered], [t.outcome.answer or "" for t in answered]) if answered else []
        grade_of = {id(t): grade for t, grade in zip(answered, grades, strict=True)}
        for t in group:
            if id(t) in grade_of:
                t = msgspec.structs.replace(t, outcome=Outcome(t.outcome.answer, grade_of[id(t)], t.outcome.f1))
            yield t


def _grade_all(grader: Grader, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
    name = type(grader).__name__
    try:
        grades = list(grader.grade(list(tasks), list(answers)))
    except BaseException as raised:
        plugin_failure(raised)
        return _grade_singly(grader, tasks, answers)
    if len(grades) != len(answers):
        raise PluginError(f"{name}.grade gave {len(grades)} grades for {len(answers)} answers.")
    return [_checked_grade(grader, answer, grade) for answer, grade in zip(answers, grades, strict=True)]


def _grade_singly(grader: Grader, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
    """Grades the answers of a batch that raised one by one, so that one bad answer does not spoil the others."""
    grades: list[bool | None] = []
    error: Exception | None = None
    for task, answer in zip(tasks, answers, strict=True):
        try:
            (grade,) = grader.grade([task], [answer])
        except BaseException as raised:
            error = plugin_failure(raised)
            log_once(grader, f"grader {type(grader).__name__}", error, answer)
            grades.append(None)
        else:
            grades.append(_checked_grade(grader, answer, grade))
            error = None
    if error is not None and not any(grade is not None for grade in grades):
        raise PluginError(f"{type(grader).__name__}.grade raises on every answer: {type(error).__name__}: {error}") from error
    return grades


def _checked_grade(grader: Grader, answer: str, grade: object) -> bool | None:
    if grade is None or isinstance(grade, (bool, np.bool_)):
        return None if grade is None else bool(grade)
    error = TypeError(f"expected True, False or None as a grade, got {grade!r:.40}")
    log_once(grader, f"grader {type(grader).__name__}", error, answer)
    return None


class Ratio:
    """Sum of y over sum of n, stored by task (16 bytes each): ``R = sum y_c / sum n_c``."""

    def __init__(self) -> None:
        self._y, self._n = array("d"), array("d")

    def add(self, task: int, y: float, n: int = 1) -> None:
        """Counts `n` units of a task (numbered from 0) whose sum is `y`."""
        while len(self._n) <= task:
            self._y.append(0.0)
            self._n.append(0.0)
        self._y[task] += y
        self._n[task] += n

    def estimate(self, share: bool) -> Estimate:
        """Returns the ratio and its 95 % interval.

        Args:
            share: whether every unit lies in [0, 1], so that Wilson's interval is the one to take.
        """
        n = np.frombuffer(self._n)
        y, n = np.frombuffer(self._y)[n > 0], n[n > 0]  # [C] each
        clusters, total = len(n), int(n.sum())
        if not total:
            return Estimate(None, None, None, 0, 0)
        value = math.fsum(y) / total
        if share and clusters == total and bool(np.isin(y, (0, 1)).all()):
            low, high = wilson(value, total)
        elif clusters == 1:  # one task says nothing about how tasks differ
            return Estimate(value, 0.0 if share else None, 1.0 if share else None, total, 1)
        else:
            variance = clusters / (clusters - 1) * float(np.square(y - value * n).sum()) / total**2
            t = t975(clusters - 1)
            half = t * math.sqrt(variance)
            low, high = wilson(value, effective(value, variance, clusters), t) if share else (value - half, value + half)
        return Estimate(value, low, high, total, clusters)


def effective(value: float, variance: float, clusters: int) -> float:
    """Returns how many independent units would give a share this variance; at 0 % and 100 %, which show none, the tasks."""
    plain = value * (1 - value)
    if plain <= 0 or variance < 1e-12 * plain:
        return float(clusters)
    return plain / variance


def wilson(p: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Returns Wilson's score interval of a share.

    ``(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`` (Wilson 1927, JASA 22).

    Args:
        p: the share seen, in [0, 1].
        n: (effective) number of units.
        z: quantile; 1.96 for 95 %.
    """
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(max(0.0, p * (1 - p)) / n + z * z / (4 * n * n))
    return (0.0 if p <= 0 else max(0.0, (centre - half) / scale)), (1.0 if p >= 1 else min(1.0, (centre + half) / scale))


def t975(df: int) -> float:
    """Returns the 97.5 % point of Student's t, to 0.5 % or better (exact for 1 and 2 degrees, else an expansion in 1/df).

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    if df == 1:
        return math.tan(math.pi * 0.475)
    if df == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z = Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / df**power for power, term in enumerate(terms, 1))


def _count_outcome(trajectory: Trajectory, task: int, ratios: dict[str, Ratio], counts: dict[str, int]) -> None:
    outcome = trajectory.outcome
    if outcome.correct is None:
        counts["ungradable"] += 1
        return
    ratios["accuracy"].add(task, float(outcome.correct))
    if outcome.f1 is not None and math.isfinite(outcome.f1):
        ratios["f1"].add(task, outcome.f1)


def _count_steps(trajectory: Trajectory, task: int, ratios: dict[str, Ratio], counts: dict[str, int]) -> None:
    steps = trajectory.steps
    verdicts = [step.verdict for step in steps]
    labels = [verdict.label for verdict in verdicts if verdict.status == "scored" and verdict.label is not None]
    scored = [verdict.reward for verdict in verdicts if verdict.status == "scored" and verdict.reward is not None]
    rewards = [reward for reward in scored if abs(reward) <= _LARGEST]
    results = [step.result for step in steps if step.result is not None]
    tokens = [len(step.action.token_ids) for step in steps]
    ratios["process"].add(task, labels.count("GOOD"), len(labels))
    ratios["reward"].add(task, math.fsum(rewards), len(rewards))
    ratios["valid_actions"].add(task, sum(not isinstance(step.call, Malformed) for step in steps), len(steps))
    ratios["tool_errors"].add(task, sum(result.error is not None for result in results), len(results))
    ratios["steps"].add(task, len(steps))
    if any(tokens):
        ratios["tokens"].add(task, sum(tokens))
    counts["unscored"] += sum(verdict.status == "unscored" for verdict in verdicts)
    # A reward that is no number (an own store may hold one) is no judgement.
    counts["failed_verdicts"] += sum(verdict.status == "failed" for verdict in verdicts) + len(scored) - len(rewards)


def _row(name: str, estimate: Estimate, share: bool) -> tuple[str, str, str, str]:
    if estimate.value is None:
        return name, "-", "", "0"
    scale, digits, unit = (100, 1, " %") if share else (1, 2, "")
    value = f"{estimate.value * scale:,.{digits}f}{unit}"
    if estimate.low is None or estimate.high is None:
        return name, value, "", f"{estimate.n:,}"
    return name, value, f"{estimate.low * scale:,.{digits}f} to {estimate.high * scale:,.{digits}f}", f"{estimate.n:,}"


def _fields(evaluation: Evaluation) -> list[tuple[str, object]]:
    return [(field, getattr(evaluation, field)) for field in evaluation.__struct_fields__]
