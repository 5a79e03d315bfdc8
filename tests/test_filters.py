"""Filters and selections: what is kept, why the rest is not, and equal sizes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl_env.errors import ConfigError, UnknownName
from swirl_env.store.filters import FILTERS, Selection, both, make_filter, match_sizes, none, outcome, process, subsample, why_not
from swirl_env.types import Action, Malformed, Outcome, Settings, Step, Task, Trajectory, Verdict

GOOD, BAD, UNSCORED, FAILED = Verdict.good(), Verdict.bad(), Verdict.unscored(), Verdict.failed("away")
NO_LABEL = Verdict("scored", 1.0)


def episode(verdicts, correct, ended="answered"):
    steps = tuple(Step(Action("a"), Malformed("no", 0, 1), None, "", verdict) for verdict in verdicts)
    return Trajectory(Task("t", "?"), Settings((), 5), "?", steps, ended, Outcome("x", correct))


@pytest.mark.parametrize(
    ("verdicts", "correct", "ended", "kept", "why"),
    [
        ([GOOD, GOOD], True, "answered", "none process outcome both", {}),
        ([GOOD, GOOD], False, "answered", "none process", {"outcome": "wrong answer", "both": "wrong answer"}),
        ([GOOD, BAD], True, "answered", "none outcome", {"process": "bad step", "both": "bad step"}),
        ([GOOD, FAILED], True, "answered", "none outcome", {"process": "failed verdict", "both": "failed verdict"}),
        ([UNSCORED, GOOD], True, "answered", "none outcome", {"process": "unscored step"}),
        ([NO_LABEL], True, "answered", "none outcome", {"process": "unscored step"}),
        ([GOOD], None, "answered", "none process", {"outcome": "ungradable"}),
        ([GOOD], False, "budget", "none process", {"outcome": "wrong answer"}),
        ([], False, "length", "none", {"process": "no steps"}),
        ([GOOD], True, "error", "", {"none": "error", "process": "error", "outcome": "error", "mine": "error"}),
        ([GOOD], True, "answered", "none process outcome both", {"mine": "not mine"}),
    ],
)
def test_what_is_kept_and_why(verdicts, correct, ended, kept, why):
    trajectory = episode(verdicts, correct, ended)
    assert [name for name, keep in FILTERS.items() if keep(trajectory)] == kept.split()
    assert {name: why_not(name, trajectory) for name in why} == why


@given(st.lists(st.sampled_from([GOOD, BAD, UNSCORED, FAILED]), max_size=4), st.sampled_from([True, False, None]))
def test_both_is_process_and_outcome_and_all_imply_none(verdicts, correct):
    trajectory = episode(verdicts, correct)
    assert both(trajectory) == (process(trajectory) and outcome(trajectory))
    assert none(trajectory) >= max(process(trajectory), outcome(trajectory))


def test_filters_by_name_path_and_function():
    assert make_filter("process") == ("process", process)
    assert make_filter("swirl_env.store.filters:both") == ("both", both)
    name, keep = make_filter(episode)
    assert (name, keep) == ("episode", episode)
    with pytest.raises(UnknownName, match="Did you mean 'outcome'"):
        make_filter("outcom")
    with pytest.raises(UnknownName, match="no 'absent'"):
        make_filter("swirl_env.store.filters:absent")

    def process_(trajectory):
        return True

    process_.__name__ = "process"
    with pytest.raises(ConfigError, match="'process' is the name of a built-in filter"):
        make_filter(process_)


def selection(name, numbers):
    return Selection(name, tuple((f"q{i}", 0) for i in numbers), 100, {"bad step": 100 - len(numbers)})


def test_equal_sizes_are_seeded_and_share_what_they_can():
    wide, narrow = selection("none", range(100)), selection("process", range(20, 60))
    one, two = match_sizes([wide, narrow], seed=1)
    assert one.size == two.size == 40 and two.keys == narrow.keys
    assert (one.limit, one.seed, one.excluded) == (40, 1, {"bad step": 0, "limit": 60})
    assert match_sizes([wide, narrow], seed=1) == [one, two] and subsample(wide, 40, seed=2).keys != one.keys
    assert [s.size for s in match_sizes([wide, narrow], limit=7)] == [7, 7]
    assert set(subsample(wide, 10, 1).keys) < set(subsample(wide, 20, 1).keys) < set(one.keys)
    assert list(one.keys) == sorted(one.keys, key=lambda key: int(key[0][1:])), "the order of the store"
    shuffled = list(wide.keys)
    random.Random(0).shuffle(shuffled)
    assert set(subsample(Selection("none", tuple(shuffled), 100), 40, 1).keys) == set(one.keys)
    for made in (one, two):
        assert made.total == made.size + sum(made.excluded.values())
    with pytest.raises(ConfigError, match="-1"):
        subsample(wide, -1)
    assert one.table() == [("trajectories", "100"), ("excluded: bad step", "0"), ("excluded: limit", "60"), ("kept", "40")]


def test_the_draw_is_even():
    """Over 2,000 seeds each of 10 keys is among the chosen 3 about 600 times (standard deviation 20)."""
    counts = dict.fromkeys(selection("none", range(10)).keys, 0)
    for seed in range(2_000):
        for key in subsample(selection("none", range(10)), 3, seed).keys:
            counts[key] += 1
    assert all(500 < count < 700 for count in counts.values())
