"""The short ways of a step give what the long ways give: reading an action, looking at verdicts, one tool for all episodes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import EchoTool
from swirl_env.env import build_engine
from swirl_env.episodes.formats import XmlFormat
from swirl_env.episodes.guarded import run_judge
from swirl_env.episodes.values import all_usual, checked_verdict
from swirl_env.types import Action, State, SubTrajectory, Task, ToolCall, ToolResult, Verdict

PIECES = ["<a>", "</a>", "<answer>", "</answer>", "<think>", "</think>", "<", ">", " ", "x", "1 < 2", "<b>", "\n"]
ODD_REWARDS = [math.nan, math.inf, -math.inf, 1e39, -1e39, 1, True, "1"]


def in_full(fmt: XmlFormat) -> XmlFormat:
    """Returns a format that reads every action token by token."""
    slow = XmlFormat(fmt.scanner.tags[:-1])
    slow._plain = slow.scanner.plain = lambda text: None
    return slow


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.booleans())
def test_an_action_is_read_at_a_glance_as_it_is_token_by_token(text, opened):
    fmt = XmlFormat(["a"])
    assert fmt.parse(text, opened) == in_full(fmt).parse(text, opened)


def test_most_calls_are_read_at_a_glance_and_one_with_reasoning_after_it_is_not():
    fmt = XmlFormat(["a"])
    tokens, fmt.scanner.first = fmt.scanner.first, lambda text, opened=False: pytest.fail("read token by token")
    assert fmt.parse("I look it up. <a> x </a> and wait") == ToolCall("a", "x", 14, 24)
    fmt.scanner.first = tokens
    assert fmt.parse("<a>x</a></think><a>y</a>") == ToolCall("a", "y", 16, 24)


VERDICTS = st.builds(
    lambda scored, reward, label, *rest: Verdict(
        "scored" if scored else "failed", reward if scored else None, label if scored else None, *rest
    ),
    st.booleans(),
    st.sampled_from([0.0, -0.0, 1.0, 0.25, -3.5, *ODD_REWARDS]),
    st.sampled_from([None, "GOOD", "BAD", "SO-SO"]),
    st.sampled_from(["", "plain", "é", "\ud800"]),
    st.sampled_from(["", "mine", "mïne", "\ud800"]),
    st.sampled_from([{}, {}, {"a": 1.0}]),
)


@given(VERDICTS)
def test_a_verdict_that_needs_no_second_look_would_come_out_of_it_the_same(verdict):
    if all_usual([verdict]):
        checked = checked_verdict(verdict, "Judge")
        assert checked == verdict and type(checked.reward) is type(verdict.reward)


@pytest.mark.parametrize(
    "verdict", [Verdict.good("x", "j"), Verdict.bad("", "j", -0.5), Verdict.unscored("x", "j"), Verdict.failed("x", "j")]
)
def test_verdicts_of_every_status_need_no_second_look(verdict):
    assert all_usual([verdict])


@pytest.mark.parametrize("odd", [*[Verdict("scored", reward, "GOOD", "x", "j") for reward in ODD_REWARDS], None, "GOOD", 1.0])
def test_one_odd_verdict_changes_no_other(odd):
    usual = Verdict.good("x", "j")
    assert not all_usual([usual, odd])

    class Judge:
        pure = True

        def judge(self, steps):
            return [usual, odd][: len(steps)]

    state = State(Task("q", "?"), build_engine([Task("q", "?")], [EchoTool()], None, 3).settings, ())
    steps = [SubTrajectory(state, Action("x"), ToolCall("echo", "x", 0, 1), ToolResult("x"))] * 2
    first, second = run_judge(Judge(), steps)
    assert first == usual
    assert second.status == "failed" or (type(second.reward) is float and math.isfinite(second.reward))


@pytest.mark.parametrize(
    "texts",
    [["<a>1</a>", "<a>2</a>"], ["<a>1</a>", "<b>2</b>", "<a>3</a>"], ["<answer>1</answer>", "<b>2</b>"], ["?", "<a>1</a>"]],
)
def test_results_belong_to_their_episodes_whatever_the_others_call(texts):
    class Named(EchoTool):
        def __init__(self, tag):
            super().__init__()
            self.tag = tag

        def run(self, queries):
            return [ToolResult(f"{self.tag} {query}") for query in queries]

    engine = build_engine([Task("q", "?", "1")], [Named("a"), Named("b")], None, 3)
    states = [engine.begin(engine.tasks[0], i) for i in range(len(texts))]
    batch = engine.step(states, [Action(text) for text in texts])
    assert batch == [engine.step([state], [Action(text)])[0] for state, text in zip(states, texts, strict=True)]
    for text, moved in zip(texts, batch, strict=True):
        wanted = f"{text[1]} {text[3]}" if text[1:2] in ("a", "b") and text[2] == ">" else None
        assert (moved.step.result and moved.step.result.text) == wanted
