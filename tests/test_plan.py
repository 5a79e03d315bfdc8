"""Progress along a gold plan, on hand-made plans and against a plain fold over random histories."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl_env.gold_plan import Plan, is_computation, plan_of
from swirl_env.types import Action, PlanStep, Step, Task, ToolCall, ToolResult

CHAIN = Task(
    "chain",
    "Who runs the town where the maker of the clock was born?",
    "Vera",
    plan=(
        PlanStep("search_query", "maker of clock", "Otto", (), ("p0",), "clock"),
        PlanStep("search_query", "birthplace of Otto", "Ulm", (0,), ("p1",), "Otto"),
        PlanStep("search_query", "mayor of Ulm", "Vera", (1,), ("p2", "p9"), "Ulm"),
    ),
)
MIXED = Task(
    "mixed",
    "How much do A and B earn in three years?",
    "210",
    grading="number",
    plan=(
        PlanStep("search_query", "salary of A", "30", (), ("a",), "A"),
        PlanStep("search_query", "salary of B", "40", (), ("b",), "B"),
        PlanStep("math_exp", "30 + 40", "70", (0, 1)),
        PlanStep("math_exp", "70 * 3", "210", (2,)),
    ),
)
PASSAGES = Task("passages", "Q?", "A", evidence=("x", "y"))


def search(*ids: str, query: str = "q") -> Step:
    return Step(Action(query), ToolCall("search_query", query, 0, 1), ToolResult("found", None, {"ids": list(ids)}))


def calculate(query: str, value: str, tool: str = "math_exp") -> Step:
    return Step(Action(query), ToolCall(tool, query, 0, 1), ToolResult(value, None, {"value": value}))


def after(task: Task, *steps: Step) -> list[int]:
    """The plan steps that can be taken next."""
    plan = plan_of(task)
    return plan.open(plan.progress(steps))


def test_a_step_opens_when_what_it_rests_on_has_been_shown():
    assert after(CHAIN) == [0]
    assert after(CHAIN, search("p0")) == [1]
    assert after(CHAIN, search("p7"), search("p0"), search("p1")) == [2]
    assert after(CHAIN, search("p0"), search("p1"), search("p9")) == []
    assert after(MIXED) == [0, 1]


def test_a_search_ahead_of_its_time_resolves_nothing():
    assert after(CHAIN, search("p2")) == [0]
    # The passage has been shown all the same: with the steps before it found, nothing is missing.
    plan = plan_of(CHAIN)
    assert plan.all_evidence_seen(plan.progress((search("p2"), search("p0"), search("p1"))))


def test_a_search_resolves_the_best_ranked_open_step_only():
    both = search("b", "a")
    assert after(MIXED, both) == [0, 2]
    # What was shown may be built upon at once.
    assert after(MIXED, both, calculate("30+40", "70")) == [0, 3]


def test_a_value_resolves_its_step_and_those_that_it_rests_on():
    searches = (search("a"), search("b"))
    assert after(MIXED, *searches, calculate("(30 + 40) * 3", "210")) == []
    assert after(MIXED, *searches, calculate("30 + 40", "70.0")) == [3]
    assert after(MIXED, *searches, calculate("210", "210")) == [2]
    assert after(MIXED, *searches, calculate("30 + 41", "71")) == [2]
    assert after(MIXED, *searches, calculate("30 + 40", "70", tool="other")) == [2]


def test_a_value_from_amounts_that_nobody_has_shown_counts_for_nothing():
    assert after(MIXED, search("a"), calculate("30 + 40", "70")) == [1]


def test_errors_and_malformed_actions_change_nothing():
    failed = Step(Action("x"), ToolCall("search_query", "x", 0, 1), ToolResult("late", "timeout", {"ids": ["p0"]}))
    assert after(CHAIN, failed, Step(Action("x"), ToolCall("search_query", "x", 0, 1), None)) == [0]


def test_supporting_passages_are_a_plan_in_any_order():
    assert after(PASSAGES) == [0, 1]
    assert after(PASSAGES, search("y")) == [0]
    assert after(PASSAGES, search("y", "x")) == []


def test_the_final_value_is_any_that_equals_the_answer():
    plan = plan_of(MIXED)
    assert not plan.is_computed(plan.progress((search("a"), search("b"), calculate("30+40", "70"))))
    assert plan.is_computed(plan.progress((search("a"), search("b"), calculate("70*3", "210"))))
    assert plan_of(CHAIN).is_computed((0, 0))


@pytest.mark.parametrize("query", ["1+1", "-5*2", "48/2", "15% of 80", "2(3)", "2(3+4)", "x = 4", "sqrt(2)", "3!", "2^8", "7-5"])
def test_computations(query):
    assert is_computation(query)


@pytest.mark.parametrize("query", ["", "5", "-5", "(5)", "((-5))", "$1,250.00", "15%", " 3.5 =", "+7", "€ 12"])
def test_bare_numbers_are_no_computations(query):
    assert not is_computation(query)


STEPS = st.one_of(
    st.lists(st.sampled_from(["p0", "p1", "p2", "p9", "a", "b", "x", "y", "z"]), max_size=4).map(lambda ids: search(*ids)),
    st.sampled_from(["30", "70", "210", "70.0", "71"]).map(lambda value: calculate("1 * 1", value)),
    st.just(Step(Action("?"), ToolCall("search_query", "?", 0, 1), ToolResult("no", "limit"))),
)


@given(task=st.sampled_from([CHAIN, MIXED, PASSAGES]), steps=st.lists(STEPS, max_size=9), other=STEPS)
def test_following_an_episode_gives_what_reading_it_again_gives(task, steps, other):
    followed = Plan(task)
    states = [tuple(steps[:i]) for i in range(len(steps) + 1)]
    seen = [followed.progress(state) for state in states]
    assert seen == [Plan(task).progress(state) for state in states]
    # A history that shares its last step with one that was followed is another history.
    if steps:
        forked = (other, steps[-1])
        assert followed.progress(forked) == Plan(task).progress(forked)
        assert followed.progress((*forked, steps[-1])) == Plan(task).progress((*forked, steps[-1]))
    for before, step, state in zip(states, steps, states[1:], strict=False):
        call, result = step.call, step.result
        assert followed.follow(before, call, result)[:2] == (Plan(task).progress(before), Plan(task).progress(state))
        assert followed.progress(state) == Plan(task).progress(state)
    for earlier, later in itertools.pairwise(seen):
        assert earlier[0] & ~later[0] == 0 and earlier[1] & ~later[1] == 0


@given(task=st.sampled_from([CHAIN, MIXED]), steps=st.lists(STEPS, max_size=9))
def test_open_steps_are_unresolved_and_rest_on_what_was_seen(task, steps):
    plan = Plan(task)
    seen, resolved = plan.progress(tuple(steps))
    for i in plan.open((seen, resolved)):
        assert not resolved >> i & 1
        assert all(seen >> need & 1 for need in task.plan[i].needs)
    assert resolved & ~seen == 0
