"""The rules judge and the outcome judge, verdict by verdict."""

import pytest

from swirl_env.judges.outcome import OutcomeJudge
from swirl_env.judges.rules import RulesJudge
from swirl_env.types import (
    Action,
    Answer,
    Malformed,
    PlanStep,
    Settings,
    State,
    Step,
    SubTrajectory,
    Task,
    ToolCall,
    ToolResult,
    Turn,
)

SETTINGS = Settings(("search_query", "math_exp"), 9)
HOPS = Task(
    "hops",
    "Who runs the town where Otto was born?",
    "Vera",
    plan=(
        PlanStep("search_query", "birthplace of Otto", "Ulm", (), ("p1",), "Otto"),
        PlanStep("search_query", "mayor of Ulm", "Vera", (0,), ("p2",), "Ulm"),
    ),
)
SUM = Task(
    "sum",
    "Half of 48, and 3 more?",
    "27",
    grading="number",
    plan=(PlanStep("math_exp", "48 / 2", "24"), PlanStep("math_exp", "24 + 3", "27", (0,))),
)
REAL = Task("real", "Q?", "Ann Lee", ("Lee",), evidence=("x", "y"))
BARE = Task("bare", "What is 48/2?", "24", grading="number")
OPEN = Task("open", "Any thoughts?")


def search(query: str, *ids: str) -> tuple[ToolCall, ToolResult]:
    return ToolCall("search_query", query, 0, 1), ToolResult("found", None, {"ids": list(ids)})


def calc(query: str, value: str) -> tuple[ToolCall, ToolResult]:
    return ToolCall("math_exp", query, 0, 1), ToolResult(value, None, {"value": value})


def failing(error: str) -> tuple[ToolCall, ToolResult]:
    return ToolCall("search_query", "birthplace of Otto", 0, 1), ToolResult("sorry", error)


def answer(text: str) -> tuple[Answer, None]:
    return Answer(text, 0, 1), None


def last(task: Task, *moves, judge=None):
    """The verdict on the last move."""
    steps = tuple(Step(Action("a"), call, result) for call, result in moves[:-1])
    call, result = moves[-1]
    state = State(task, SETTINGS, (Turn("user", task.question),), steps)
    (verdict,) = (judge or RulesJudge()).judge([SubTrajectory(state, Action("a"), call, result)])
    assert verdict.judge in ("rules", "outcome")
    assert (verdict.reward is None) == (verdict.status != "scored")
    return verdict


ULM = search("birthplace of Otto", "p7", "p1")
VERA = search("mayor of Ulm", "p2")


@pytest.mark.parametrize(
    ("task", "moves", "label", "said"),
    [
        (HOPS, [ULM], "GOOD", "birthplace of Otto"),
        (HOPS, [ULM, VERA], "GOOD", "mayor of Ulm"),
        (HOPS, [failing("timeout"), ULM], "GOOD", ""),
        (HOPS, [failing("unavailable"), ULM], "GOOD", ""),
        (HOPS, [ULM, VERA, answer("vera.")], "GOOD", "follows from the results"),
        (HOPS, [VERA], "BAD", "skips ahead"),
        (HOPS, [ULM, ULM], "BAD", "repeats"),
        (HOPS, [ULM, search("where Otto came from", "p1")], "BAD", "found before"),
        (HOPS, [search("Ulm")], "BAD", "nothing that the question needs"),
        (HOPS, [calc("1 + 1", "2")], "BAD", "does not need this tool"),
        (HOPS, [failing("timeout")], "BAD", "timeout"),
        (HOPS, [failing("invalid")], "BAD", "invalid"),
        (HOPS, [failing("limit")], "BAD", "limit"),
        (HOPS, [(Malformed("No call was found.", 0, 1), None)], "BAD", "No call was found."),
        (HOPS, [ULM, answer("Vera")], "BAD", "do not show it"),
        (HOPS, [ULM, VERA, answer("Otto")], "BAD", "wrong"),
        (SUM, [calc("48 / 2", "24")], "GOOD", "48 / 2"),
        (SUM, [calc("48 * 0.5", "24.0")], "GOOD", ""),
        (SUM, [calc("48 / 2 + 3", "27")], "GOOD", ""),
        (SUM, [calc("48 / 2 + 3", "27"), answer("27.0")], "GOOD", ""),
        (SUM, [calc("24", "24")], "BAD", "bare number"),
        (SUM, [calc("48 + 2", "50")], "BAD", "not one that the question needs"),
        (SUM, [calc("48 / 2", "24"), calc("48 / 2", "24")], "BAD", "repeats"),
        (SUM, [calc("48 / 2", "24"), calc("12 * 2", "24")], "BAD", "not one that the question needs"),
        (SUM, [calc("48 / 2 + 3", "27"), calc("48 / 2", "24")], "BAD", "not one"),
        (SUM, [calc("48 / 2", "24"), answer("27")], "BAD", "not been computed"),
        (SUM, [search("half of 48", "p1")], "BAD", "does not need this tool"),
        (REAL, [search("a", "z", "y")], "GOOD", "supporting passage"),
        (REAL, [search("a", "y"), search("b", "x", "y")], "GOOD", ""),
        (REAL, [search("a", "y"), search("b", "y")], "BAD", "found before"),
        (REAL, [search("a", "x", "y"), answer("lee")], "GOOD", ""),
        (REAL, [search("a", "x"), answer("Lee")], "BAD", "do not show it"),
        (REAL, [calc("5", "5")], "BAD", "bare number"),
        (BARE, [calc("48/2", "24")], "GOOD", ""),
        (BARE, [calc("48/2", "24"), calc("48/2", "24")], "BAD", "repeats"),
        (BARE, [calc("48", "48")], "BAD", "bare number"),
        (BARE, [search("q")], "BAD", "brings nothing"),
        (BARE, [answer("24")], "GOOD", ""),
    ],
)
def test_verdicts(task, moves, label, said):
    verdict = last(task, *moves)
    assert (verdict.status, verdict.label, verdict.reward) == ("scored", label, float(label == "GOOD"))
    assert said in verdict.critique
    assert verdict.critique.endswith(".")


@pytest.mark.parametrize(
    ("task", "moves"),
    [
        (HOPS, [failing("unavailable")]),
        (BARE, [search("q", "p1")]),
        (REAL, [calc("1 + 1", "2")]),
        (OPEN, [answer("none")]),
        (OPEN, [(ToolCall("other", "q", 0, 1), ToolResult("hm"))]),
    ],
)
def test_what_the_rules_cannot_tell_is_unscored(task, moves):
    assert last(task, *moves).status == "unscored"


def test_a_call_without_a_result_is_a_failed_verdict_and_not_a_zero():
    assert last(HOPS, (ToolCall("search_query", "q", 0, 1), None)).status == "failed"


def test_an_agent_that_could_not_act_is_not_blamed():
    state = State(HOPS, SETTINGS, ())
    step = SubTrajectory(state, Action("", error="unavailable"), Malformed("", 0, 0))
    for judge in (RulesJudge(), OutcomeJudge()):
        assert judge.judge([step])[0].status == "unscored"


def test_options():
    moves = (calc("48 / 2", "24"), answer("27"))
    assert last(SUM, *moves, judge=RulesJudge(require_computed=False)).label == "GOOD"
    assert last(HOPS, answer("Vera"), judge=RulesJudge(require_evidence=False)).label == "GOOD"
    judge = RulesJudge(good=0.5, bad=-1)
    assert [last(HOPS, move, judge=judge).reward for move in (ULM, VERA)] == [0.5, -1.0]


def test_two_facts_in_one_result_may_be_looked_up_again_once_or_built_upon():
    pair = Task(
        "pair",
        "Who is older, A or B?",
        "A",
        plan=(
            PlanStep("search_query", "age of A", "9", (), ("a",), "A"),
            PlanStep("search_query", "age of B", "8", (), ("b",), "B"),
        ),
    )
    both = search("ages", "a", "b")
    assert last(pair, both, answer("A")).label == "GOOD"
    again = search("age of B", "b")
    assert last(pair, both, again).label == "GOOD"
    assert last(pair, both, both).label == "BAD"
    assert last(pair, both, again, again).label == "BAD"


def test_a_batch_gives_what_single_calls_give():
    moves = [ULM, VERA, ULM, answer("Vera")]
    subs = []
    for i, (call, result) in enumerate(moves):
        steps = tuple(Step(Action("a"), *move) for move in moves[:i])
        subs.append(SubTrajectory(State(HOPS, SETTINGS, (), steps), Action("a"), call, result))
    judge = RulesJudge()
    assert judge.judge(subs[::-1]) == [judge.judge([sub])[0] for sub in subs[::-1]]
    assert judge.judge([]) == []


def test_outcome_is_silent_until_the_answer():
    judge = OutcomeJudge()
    for move in (ULM, failing("timeout"), (Malformed("?", 0, 1), None)):
        verdict = last(HOPS, move, judge=judge)
        assert (verdict.status, verdict.reward, verdict.label) == ("scored", 0.0, None)
    assert last(HOPS, answer("Vera"), judge=judge).reward == 1.0
    assert last(HOPS, answer("Otto"), judge=judge).reward == 0.0
    assert last(OPEN, answer("Otto"), judge=judge).status == "failed"
