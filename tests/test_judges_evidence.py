"""The evidence judge: hand-computed gains and redundancies."""

import pytest

from swirl_env.errors import ConfigError
from swirl_env.judges.evidence import EvidenceJudge
from swirl_env.types import (
    Action,
    Answer,
    Malformed,
    Outcome,
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
THREE = Task(
    "three",
    "Whose?",
    "Vera Lee",
    plan=(
        PlanStep("search_query", "a", "A", (), ("p1", "p1b"), "A"),
        PlanStep("search_query", "b", "B", (0,), ("p2",), "B"),
        PlanStep("search_query", "c", "C", (1,), ("p3",), "C"),
        PlanStep("math_exp", "1 + 1", "2", (2,)),
    ),
)
PASSAGES = Task("passages", "Q?", "Ann", evidence=("x", "y"))
UNKNOWN = Task("unknown", "Q?", "Ann")
OPEN = Task("open", "Any thoughts?")


def search(*ids):
    return ToolCall("search_query", " ".join(ids) or "nothing", 0, 1), ToolResult("found", None, {"ids": list(ids)})


def judged(task, *moves, judge=None, outcome=None):
    """The verdicts on a sequence of moves, each judged in the state that the ones before led to."""
    steps, verdicts = (), []
    for call, result in moves:
        state = State(task, SETTINGS, (Turn("user", "?"),), steps)
        sub = SubTrajectory(state, Action("x"), call, result, outcome if isinstance(call, Answer) else None)
        verdicts += (judge or EvidenceJudge()).judge([sub])
        steps += (Step(Action("x"), call, result),)
    return verdicts


def test_new_evidence_counts_once_and_known_passages_cost():
    verdicts = judged(THREE, search("p1", "z"), search("p1b", "p2"), search("p3", "p2"), search("p1", "z"), search("q"))
    # p1b states what p1 did; p2 is new. Then p3 is new and p2 known; then both known; then one new passage of no use.
    assert [v.reward for v in verdicts] == pytest.approx([1 / 3, 1 / 3, 1 / 3 - 0.6 / 2, -0.6, 0])
    assert [v.label for v in verdicts] == ["GOOD", "GOOD", "GOOD", "BAD", "BAD"]
    assert verdicts[2].parts == pytest.approx({"gain": 1 / 3, "redundancy": 0.5})


def test_evidence_may_be_shown_all_at_once_and_in_any_order():
    assert [v.reward for v in judged(THREE, search("p3", "p2", "p1"))] == [1.0]
    assert [v.reward for v in judged(THREE, search("p3"), search("p1"))] == pytest.approx([1 / 3, 1 / 3])


def test_supporting_passages_stand_in_for_a_plan():
    judge = EvidenceJudge(redundancy=1.0)
    verdicts = judged(PASSAGES, search("x", "x2"), search("x", "y"), search(), judge=judge)
    assert [v.reward for v in verdicts] == pytest.approx([0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("move", "status", "reward"),
    [
        ((ToolCall("search_query", "a", 0, 1), ToolResult("no", "invalid")), "scored", 0.0),
        ((ToolCall("search_query", "a", 0, 1), ToolResult("no", "unavailable")), "unscored", None),
        ((ToolCall("search_query", "a", 0, 1), None), "failed", None),
        ((ToolCall("math_exp", "1 + 1", 0, 1), ToolResult("2", None, {"value": "2"})), "unscored", None),
        ((Malformed("no tags", 0, 1), None), "scored", 0.0),
        ((Answer("Vera Lee", 0, 1), None), "scored", 1.0),
        ((Answer("Vera Moss", 0, 1), None), "scored", 0.5),
    ],
)
def test_what_is_no_search_with_passages(move, status, reward):
    (verdict,) = judged(THREE, move)
    assert (verdict.status, verdict.reward) == (status, reward)


def test_what_nobody_knows_is_unscored():
    assert [v.status for v in judged(UNKNOWN, search("x"), (Answer("Ann", 0, 1), None))] == ["unscored", "scored"]
    assert [v.status for v in judged(OPEN, search("x"), (Answer("Ann", 0, 1), None))] == ["unscored", "unscored"]
    sub = SubTrajectory(State(THREE, SETTINGS, (Turn("user", "?"),)), Action("", error="unavailable"), Malformed("", 0, 0))
    assert EvidenceJudge().judge([sub])[0].status == "unscored"


def test_a_grade_of_the_episodes_own_grader_decides():
    (right,) = judged(THREE, (Answer("the singer", 0, 1), None), outcome=Outcome("the singer", True, 0.0))
    assert (right.reward, right.label) == (1.0, "GOOD")
    (ungraded,) = judged(THREE, (Answer("the singer", 0, 1), None), outcome=Outcome("the singer", None, None))
    assert ungraded.status == "failed"


@pytest.mark.parametrize("options", [{"redundancy": -0.1}, {"answer": float("nan")}, {"redundancy": float("inf")}])
def test_weights_are_checked(options):
    with pytest.raises(ConfigError, match="is a weight of 0 or above"):
        EvidenceJudge(**options)
