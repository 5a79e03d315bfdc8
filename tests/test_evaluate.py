"""Evaluation: rates by hand, intervals by textbook numbers and by simulation."""

import json
import math
import random

import msgspec
import pytest

from swirl_env.errors import PluginError
from swirl_env.evaluate import Ratio, effective, evaluate, t975, wilson
from swirl_env.types import Action, Answer, Malformed, Outcome, Settings, Step, Task, ToolCall, ToolResult, Trajectory, Verdict

CALL, ANSWER, BAD_CALL = ToolCall("search_query", "x", 0, 1), Answer("x", 0, 1), Malformed("no", 0, 1)


def step(call=CALL, verdict=None, error=None, tokens=0):
    result = ToolResult("text", error) if call is CALL else None
    return Step(Action("x", tuple(range(tokens))), call, result, "", verdict or Verdict.good())


def episode(task, steps, *, sample=0, ended="answered", outcome=None):
    return Trajectory(Task(task, "?"), Settings((), 5), "?", tuple(steps), ended, outcome or Outcome("x", True, 1.0), sample)


def test_rates_and_counts_by_hand():
    evaluation = evaluate(
        [
            episode("a", [step(tokens=4), step(ANSWER, tokens=2)]),
            episode("b", [step(error="timeout"), step(BAD_CALL, Verdict.bad()), step(ANSWER, Verdict.failed("away"))],
                    outcome=Outcome("y", False, 0.5)),
            episode("c", [step(ANSWER, Verdict.unscored())], outcome=Outcome("y", None, None)),
            episode("d", [step(BAD_CALL, Verdict.bad())] * 9, ended="error", outcome=Outcome()),
            episode("e", [step(verdict=Verdict("scored", 0.25))], ended="budget", outcome=Outcome(None, False, 0.0)),
        ]
    )  # fmt: skip
    assert (evaluation.episodes, evaluation.failed, evaluation.ungradable, evaluation.unscored, evaluation.failed_verdicts) == (
        5,
        1,
        1,
        1,
        1,
    )
    assert evaluation.accuracy.value == pytest.approx(1 / 3) and (evaluation.accuracy.n, evaluation.accuracy.clusters) == (3, 3)
    assert evaluation.f1.value == pytest.approx(0.5)
    assert evaluation.process.value == pytest.approx(3 / 4) and evaluation.process.n == 4
    assert evaluation.reward.value == pytest.approx((1 + 1 + 1 + 0 + 0.25) / 5)
    assert evaluation.valid_actions.value == pytest.approx(6 / 7)
    assert evaluation.tool_errors.value == pytest.approx(1 / 3)
    assert evaluation.steps.value == pytest.approx(7 / 4)
    assert (evaluation.tokens.value, evaluation.tokens.n, evaluation.tokens.low) == (6.0, 1, None)
    rows = {name: (value, interval, n) for name, value, interval, n in evaluation.table()}
    assert rows["accuracy"] == ("33.3 %", "6.1 to 79.2", "3") and rows["tokens per episode"] == ("6.00", "", "1")
    assert rows["failed (left out)"] == ("1", "", "")
    assert json.loads(json.dumps(evaluation.to_dict()))["accuracy"]["n"] == 3


def test_nothing_to_evaluate():
    evaluation = evaluate([])
    assert evaluation.accuracy.value is None and evaluation.episodes == 0
    assert ("accuracy", "-", "", "0") in evaluation.table()


# Wilson intervals without continuity correction: Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1.0)],
)
def test_wilson_of_the_literature(hits, n, low, high):
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=6e-5)
    ratio = Ratio()
    for i in range(n):
        ratio.add(i, float(i < hits))
    estimate = ratio.estimate(share=True)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=6e-5)


# Tables of Student's t, two-sided 5 %.
@pytest.mark.parametrize(
    ("df", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (30, 2.0423), (120, 1.9799)]
)
def test_t_of_the_tables(df, t):
    assert t975(df) == pytest.approx(t, rel=5e-3 if df < 5 else 3e-4)


def test_a_mean_with_one_unit_per_task_is_the_textbook_interval():
    values = [3.0, 4.0, 4.0, 5.0, 9.0]  # mean 5, sample variance 5.5, se sqrt(1.1), t(4) = 2.7764
    ratio = Ratio()
    for i, value in enumerate(values):
        ratio.add(i, value)
    estimate = ratio.estimate(share=False)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (5.0, 5 - 2.7764 * math.sqrt(1.1), 5 + 2.7764 * math.sqrt(1.1)), rel=1e-3
    )


def test_copies_of_a_sample_narrow_nothing():
    """A policy that gives the same answer every time: 8 samples per task tell no more than one."""
    once, eight = Ratio(), Ratio()
    for i in range(40):
        once.add(i, float(i % 4 == 0))
        for _ in range(8):
            eight.add(i, float(i % 4 == 0))
    one, many = once.estimate(share=True), eight.estimate(share=True)
    assert one.value == many.value == 0.25
    assert many.high - many.low >= one.high - one.low
    assert effective(0.25, 0.25 * 0.75 / 39, 40) == pytest.approx(39)


def covered(share, draw, truth, runs=600):
    rng = random.Random(5)
    hits = 0
    for _ in range(runs):
        ratio = Ratio()
        for task, y, n in draw(rng):
            ratio.add(task, y, n)
        estimate = ratio.estimate(share)
        hits += estimate.low <= truth <= estimate.high
    return hits / runs


def alike(rng, tasks=40, samples=5):
    """Shares that differ between tasks, Beta(2, 1): strongly alike samples, mean 2/3."""
    for i in range(tasks):
        p = rng.betavariate(2, 1)
        yield i, sum(rng.random() < p for _ in range(samples)), samples


def uneven(rng, tasks=60):
    """Means of tasks with 1 to 6 units each, the mean of all units being 0: their offset is the task's own."""
    for i in range(tasks):
        n, offset = rng.randint(1, 6), rng.gauss(0, 1)
        yield i, sum(offset + rng.gauss(0, 1) for _ in range(n)), n


def rare(rng, tasks=50):
    for i in range(tasks):
        yield i, float(rng.random() < 0.03), 1


@pytest.mark.parametrize(("share", "draw", "truth"), [(True, alike, 2 / 3), (False, uneven, 0.0), (True, rare, 0.03)])
def test_intervals_cover_the_truth(share, draw, truth):
    """Of 600 intervals at 95 %, 93 to 97.5 % hold the truth (the noise of the simulation is 0.9 %)."""
    assert 0.93 <= covered(share, draw, truth) <= 0.985


def test_a_plain_interval_would_not_cover():
    """The oracle above can fail: taking samples of one task for independent falls far short."""
    rng, hits = random.Random(5), 0
    for _ in range(300):
        rows = list(alike(rng))
        total = sum(n for _, _, n in rows)
        low, high = wilson(sum(y for _, y, _ in rows) / total, total)
        hits += low <= 2 / 3 <= high
    assert hits / 300 < 0.9


class Yes:
    def __init__(self, short=0):
        self.short, self.seen = short, []

    def grade(self, tasks, answers):
        self.seen.append(list(answers))
        return [None if answer == "?" else answer == "yes" for answer in answers][self.short :]


def test_a_grader_grades_again_in_batches():
    answers = ["yes", "no", "?", None] * 30
    episodes = [episode(f"t{i}", [step(ANSWER)], outcome=Outcome(a, False, 0.0)) for i, a in enumerate(answers)]
    episodes.append(episode("err", [], ended="error", outcome=Outcome()))
    grader = Yes()
    evaluation = evaluate(iter(episodes), grader)
    assert (evaluation.accuracy.value, evaluation.accuracy.n, evaluation.ungradable, evaluation.failed) == (
        pytest.approx(1 / 3),
        90,
        30,
        1,
    )
    assert [len(batch) for batch in grader.seen] == [48, 42]
    with pytest.raises(PluginError, match="47 grades for 48 answers"):
        evaluate(iter(episodes), Yes(short=1))


class Picky:
    """Raises on some answers, and returns something invalid on others."""

    def __init__(self, raises=("bad",)):
        self.raises = raises

    def grade(self, tasks, answers):
        if any(answer in self.raises for answer in answers):
            raise ValueError("cannot read this")
        return ["yes" if answer == "odd" else answer == "right" for answer in answers]


def test_one_answer_that_a_grader_cannot_take_leaves_the_others_graded():
    answers = ["right", "bad", "wrong", "odd", "right"]
    episodes = [episode(f"t{i}", [step(ANSWER)], outcome=Outcome(a, False, 0.0)) for i, a in enumerate(answers)]
    evaluation = evaluate(episodes, Picky())
    assert (evaluation.accuracy.value, evaluation.accuracy.n, evaluation.ungradable) == (pytest.approx(2 / 3), 3, 2)
    with pytest.raises(PluginError, match="raises on every answer: ValueError: cannot read this"):
        evaluate(episodes, Picky(raises=answers))


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf, 1e300])
def test_a_reward_that_is_no_number_is_counted_as_failed(reward):
    steps = [step(), step(verdict=Verdict("scored", 0.5)), step(ANSWER, msgspec.structs.replace(Verdict.good(), reward=reward))]
    evaluation = evaluate([episode("a", steps), episode("b", [step(ANSWER)], outcome=Outcome("x", False, math.nan))])
    assert (evaluation.reward.value, evaluation.failed_verdicts) == (pytest.approx(2.5 / 3), 1)
    json.dumps(evaluation.to_dict(), allow_nan=False)
