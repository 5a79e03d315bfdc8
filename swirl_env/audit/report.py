"""The audit's figures: what each signal makes of each step, against the oracle's values and against those of the policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swirl_env.audit import agreement
from swirl_env.audit.branches import step_values
from swirl_env.audit.kinds import KINDS
from swirl_env.audit.oracle import StepValue
from swirl_env.audit.records import PolicyValues
from swirl_env.evaluate import Estimate, Ratio, wilson
from swirl_env.types import Record, Trajectory, Verdict

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
LABELS = {
    "progress": "the action leaves less of the plan to be done, or is a right answer",
    "solvable": "Q*(s, a) = 1; steps with V*(s) = 1 alone, since nothing can be lost elsewhere",
    "policy": "Q(s, a) > V(s) of the policy; steps alone for which the interval of the difference leaves 0 out",
}
"""Truths with two classes -> which steps are GOOD by them."""
RANKED = {
    "q_star": "Q*(s, a), discounted by 0.9 per step still to be taken",
    "a_star": "Q*(s, a) - V*(s), discounted likewise",
    "q_policy": "Q(s, a) of the policy",
    "a_policy": "Q(s, a) - V(s) of the policy",
}
"""Truths that are numbers -> what they are."""


class Agreement(Record, frozen=True):
    """How well the labels of a signal agree with a truth of two classes."""

    accuracy: Estimate
    false_good: Estimate
    """Share of the BAD steps that the signal calls GOOD."""
    false_bad: Estimate
    """Share of the GOOD steps that the signal calls BAD."""
    kappa: Estimate
    """Cohen's kappa."""
    auc: Estimate
    """Area under the ROC curve of the signal's values: no threshold is needed for it."""


class Correlation(Record, frozen=True):
    """How the values of a signal are ranked in comparison with a truth that is a number."""

    spearman: Estimate
    kendall: Estimate
    """Kendall's tau-b."""


class SignalReport(Record, frozen=True):
    """What an audit says of one signal."""

    name: str
    table: str | None
    """The table of verdicts that holds its ratings; None if they are made again each time."""
    steps: int
    scored: int
    """Steps that it rated."""
    failed: int
    """Steps on which it failed."""
    calls: float | None
    """Prompts or actions per step that was rated; None if nobody counted."""
    tokens: float | None
    labels: dict[str, Agreement]
    """By truth (`LABELS`)."""
    ranks: dict[str, Correlation]
    """By truth (`RANKED`)."""
    kinds: dict[str, Estimate]
    """Kind of step -> share of them that the signal labels as the oracle does (`progress`)."""


class Audit(Record, frozen=True):
    """An audit of a run."""

    run: str
    episodes: int
    questions: int
    steps: int
    policy: str | None
    """Fingerprint of the policy whose values were estimated; None if none were."""
    samples: int
    """Fresh episodes per state behind its values."""
    kinds: dict[str, int]
    """Kind of step -> how many there are."""
    truths: dict[str, Estimate]
    """Truth of two classes -> share of GOOD steps."""
    signals: tuple[SignalReport, ...]
    resamples: int
    """Bootstrap replicates behind the intervals of kappa, ROC area and correlations."""


@dataclass(frozen=True)
class Truth:
    """What all steps of the audited episodes are worth, one row per step, NaN or ``known=False`` if that is not known."""

    questions: NDArray[np.int64]
    """[N] which question each step belongs to."""
    kinds: NDArray[np.str_]
    labels: dict[str, tuple[Bools, Bools]]
    """Truth -> ``(good, known)``, [N] each."""
    numbers: dict[str, Floats]
    """Truth -> [N]."""


def truth_of(
    trajectories: Sequence[Trajectory], exact: Sequence[Sequence[StepValue]], policy: Sequence[PolicyValues] | None = None
) -> Truth:
    """Returns the truths about all steps.

    Args:
        trajectories: the episodes.
        exact: the oracle's values, per episode and step.
        policy: the policy's values, per episode; None if they were not estimated.
    """
    numbers: dict[str, int] = {}
    questions = [numbers.setdefault(t.task.id, len(numbers)) for t in trajectories for _ in t.steps]
    flat = [value for of_one in exact for value in of_one]
    progress, q = [value.progress for value in flat], [value.q for value in flat]
    solvable = [value.q is not None and value.v for value in flat]
    labels = {
        "progress": (_bools(map(bool, progress)), _bools(p is not None for p in progress)),
        "solvable": (_bools(map(bool, q)), _bools(solvable)),
    }
    q_star = _floats(value.q_discounted for value in flat)
    ranked = {"q_star": q_star, "a_star": q_star - _floats(value.v_discounted for value in flat)}
    if policy is not None:
        pairs = [pair for t, values in zip(trajectories, policy, strict=True) for pair in step_values(t, values)]
        before, after = (_floats(wins / runs if runs else None for wins, runs in side) for side in zip(*pairs, strict=True))
        bounds = [difference_interval(*pair) for pair in pairs]
        labels["policy"] = (_bools(low > 0 for low, _ in bounds), _bools(low > 0 or high < 0 for low, high in bounds))
        ranked |= {"q_policy": after, "a_policy": after - before}
    return Truth(np.array(questions, np.int64), np.array([value.kind for value in flat]), labels, ranked)


def difference_interval(before: tuple[int, int], after: tuple[int, int]) -> tuple[float, float]:
    """Returns the 95 % interval of Q - V for two independent shares (Newcombe 1998, Statistics in Medicine 17, method 10).

    A share of one run is taken as certain: it is the outcome itself.

    Args:
        before: wins and runs behind V(s).
        after: wins and runs behind Q(s, a).
    """
    if not before[1] or not after[1]:
        return -1.0, 1.0
    (v, v_low, v_high), (q, q_low, q_high) = (_share(*pair) for pair in (before, after))
    difference = q - v
    return difference - math.hypot(q - q_low, v_high - v), difference + math.hypot(q_high - q, v - v_low)


def _share(wins: int, runs: int) -> tuple[float, float, float]:
    share = wins / runs
    return (share, share, share) if runs == 1 else (share, *wilson(share, runs))


def report_signal(
    name: str,
    table: str | None,
    verdicts: Sequence[Verdict],
    truth: Truth,
    weights: Floats,
    *,
    good_above: float | None = None,
    calls: float | None = None,
    tokens: float | None = None,
) -> SignalReport:
    """Returns the figures of one signal.

    Args:
        name: how a table shows the signal.
        table: the table of verdicts that holds its ratings.
        verdicts: [N] one per step, in the order of `truth`.
        truth: what the steps are worth.
        weights: [1 + B, N] bootstrap weights (see `agreement.bootstrap_weights`).
        good_above: from which value on a step counts as GOOD; None takes labels, and values above 0 if there are none.
        calls: prompts or actions per step.
        tokens: tokens per step.
    """
    values = _floats(verdict.reward if verdict.status == "scored" else None for verdict in verdicts)
    rated = _bools(is_good(verdict, good_above) for verdict in verdicts)
    scored = np.isfinite(values)
    labels, ranks, kinds = {}, {}, {}
    for against, (good, known) in truth.labels.items():
        use = scored & known
        labels[against] = _agreement(good[use], rated[use], values[use], truth.questions[use], weights[:, use])
    for against, numbers in truth.numbers.items():
        use = scored & np.isfinite(numbers)
        ranks[against] = _correlation(numbers[use], values[use], truth.questions[use], weights[:, use])
    good, known = truth.labels["progress"]
    for kind in KINDS:
        use = scored & known & (truth.kinds == kind)
        if use.any():
            kinds[kind] = _share_of(rated[use] == good[use], truth.questions[use])
    failed = sum(verdict.status == "failed" for verdict in verdicts)
    return SignalReport(name, table, len(verdicts), int(scored.sum()), failed, calls, tokens, labels, ranks, kinds)


def is_good(verdict: Verdict, good_above: float | None) -> bool:
    """Returns whether a verdict counts as GOOD."""
    if verdict.reward is None:
        return False
    if good_above is None and verdict.label is not None:
        return verdict.label == "GOOD"
    return verdict.reward > (good_above or 0.0)


def truth_shares(truth: Truth) -> dict[str, Estimate]:
    """Returns the share of GOOD steps by each truth of two classes."""
    return {name: _share_of(good[known], truth.questions[known]) for name, (good, known) in truth.labels.items()}


def count_kinds(truth: Truth) -> dict[str, int]:
    """Returns how many steps of each kind there are."""
    counts = {kind: int((truth.kinds == kind).sum()) for kind in KINDS}
    return {kind: count for kind, count in counts.items() if count}


def _agreement(good: Bools, rated: Bools, values: Floats, questions: NDArray[np.int64], weights: Floats) -> Agreement:
    n, clusters = len(good), len(np.unique(questions))
    return Agreement(
        _share_of(good == rated, questions),
        _share_of(rated[~good], questions[~good]),
        _share_of(~rated[good], questions[good]),
        agreement.estimate(agreement.kappa(agreement.confusion(weights, good, rated)), n, clusters),
        agreement.estimate(agreement.auc(weights, good, values), n, clusters),
    )


def _correlation(truth: Floats, values: Floats, questions: NDArray[np.int64], weights: Floats) -> Correlation:
    n, clusters = len(truth), len(np.unique(questions))
    measures: tuple[Callable[..., Floats], ...] = (agreement.spearman, agreement.kendall)
    return Correlation(*(agreement.estimate(measure(weights, values, truth), n, clusters) for measure in measures))


def _share_of(hits: Bools, questions: NDArray[np.int64]) -> Estimate:
    """Returns a share with an interval by question, as the evaluation of a run has it."""
    ratio = Ratio()
    for question, hit in zip(np.unique(questions, return_inverse=True)[1], hits, strict=True):
        ratio.add(int(question), float(hit))
    return ratio.estimate(share=True)


def _bools(values: Iterator[bool] | Sequence[bool]) -> Bools:
    return np.array(list(values), dtype=np.bool_)


def _floats(values: Iterator[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
