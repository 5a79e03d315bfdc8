"""Think blocks: what a model drafts in them is neither an action nor a reason to stop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import EchoTool, SumTasks
from swirl_env.contract import check
from swirl_env.env import ToolUseEnv
from swirl_env.episodes.formats import HermesFormat, XmlFormat
from swirl_env.episodes.reasoning import reasoning_end
from swirl_env.errors import ConfigError
from swirl_env.types import Action, Answer, Malformed, ToolCall

TOOLS = ("search_query", "math_exp")
FORMATS = [XmlFormat(TOOLS), HermesFormat(TOOLS)]
DRAFT = "<answer>Bergen</answer>"
PIECES = ["<think>", "</think>", DRAFT, "<answer>", "</answer>", "x", " ", "\n", "<", "</thin"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def both(fmt):
    return fmt.call("search_query", "Oslo"), fmt.answer("Bergen")


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    "head",
    [
        "<think>maybe {a} or so</think> ",
        "<think>maybe {a}</think> hm <think>{a} {c}</think>\n",
        "maybe {a} or so</think>\n\n",
        "<think>the <think> tag, {a}</think>",
        "<think>one <think>two</think> {a}</think> ",
        "plain <search_query> words, <think>{a}</think> then ",
        "<think></think>",
    ],
)
def test_drafts_in_think_blocks_are_not_read(fmt, head):
    call, answer = both(fmt)
    text = head.format(a=answer, c=fmt.call("math_exp", "1+1")) + call
    read = fmt.parse(text + " " + answer)
    assert isinstance(read, ToolCall) and (read.tool, read.query) == ("search_query", "Oslo")
    assert text[read.start : read.end] == call
    assert reasoning_end(text) <= read.start


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_open_block_is_reasoning_up_to_the_end(fmt):
    call, answer = both(fmt)
    for text in (f"<think>{answer}", f"<think>a</think> so <think> {call}", f"<think>{answer} </thin", "<think>"):
        assert isinstance(fmt.parse(text), Malformed) and reasoning_end(text) == len(text)
        assert fmt.parse(text).reason == "<think> was opened but not closed."


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_block_opened_by_the_generation_prompt(fmt):
    call, answer = both(fmt)
    assert isinstance(fmt.parse(answer, True), Malformed) and reasoning_end(answer, True) == len(answer)
    text = f"{answer} no</think>{call}"
    assert fmt.parse(text, True) == fmt.parse(text) and fmt.parse(text).query == "Oslo"
    assert text[reasoning_end(text, True) :] == call


@pytest.mark.parametrize("fmt", FORMATS)
def test_reasoning_after_a_complete_action_changes_nothing(fmt):
    call, answer = both(fmt)
    for more in (f"<think>{answer}</think>", f" <think>a</think>{answer}", "<think>", f" {answer} <think>"):
        assert fmt.parse(call + more) == fmt.parse(call)


@given(TEXTS, st.booleans())
def test_no_action_ends_inside_reasoning(text, opened):
    read = FORMATS[0].parse(text, opened)
    if isinstance(read, Answer):
        assert "think>" not in text[read.start : read.end]
        assert reasoning_end(text[: read.end], opened) <= read.start


@given(TEXTS, st.booleans())
def test_reasoning_end_agrees_with_a_walk(text, opened):
    inside, end, at = opened, 0, 0
    while at < len(text):
        if text.startswith("</think>", at):
            inside, end = False, at + 8
        elif text.startswith("<think>", at):
            inside = True
        at += 1
    assert reasoning_end(text, opened) == (len(text) if inside else end)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("unit", ["<think></think>", "</think>", "<think>", f"</think>{DRAFT}", f"<think>{DRAFT}</think>"])
def test_megabytes_of_think_blocks_are_read(fmt, unit):
    fmt.parse(unit * (2_000_000 // len(unit)))


def test_an_episode_goes_on_after_a_drafted_answer():
    env = ToolUseEnv(SumTasks(), tools=[EchoTool()])
    env.reset(seed=0)
    observation, _, terminated, _, _ = env.step(f"<think>{DRAFT}</think><echo>hi</echo>")
    assert not terminated and observation == "hi -> HI"
    observation, _, terminated, _, info = env.step(Action(DRAFT, opened=True))
    assert not terminated and isinstance(info["call"], Malformed) and "<think>" in observation


def test_a_tool_cannot_be_called_think():
    tool = EchoTool()
    tool.tag = "think"
    with pytest.raises(ConfigError, match="'think' is taken"):
        ToolUseEnv(SumTasks(), tools=[tool])


def test_the_contract_names_a_format_that_reads_think_blocks():
    class Careless(XmlFormat):
        def parse(self, text, opened=False):
            return super().parse(text.replace("think>", "THINK>"))

    broken = [finding.name for finding in check("format", Careless(TOOLS)) if not finding.ok]
    assert broken == ["think blocks are not read"]
