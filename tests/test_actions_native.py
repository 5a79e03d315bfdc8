"""The format `native`: each family's notation of calls, read by the rules that all formats share."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import EchoTool, SumTasks
from swirl_env.contract import assert_contract
from swirl_env.env import build_engine
from swirl_env.episodes.formats import NativeFormat
from swirl_env.errors import ConfigError
from swirl_env.types import Action, Answer, Malformed, ToolCall

TOOLS = ("search_query", "math_exp")
FORMAT = NativeFormat(TOOLS)
CALL = {"name": "math_exp", "arguments": {"query": "2 + 3"}}
BARE = json.dumps(CALL)
ROUTE = {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}}, "required": ["a", "n"]}
TAGS = ("<tool_call>", "</tool_call>", "<answer>", "</answer>", "<think>", "</think>", "[TOOL_CALLS]", "<|python_tag|>")
PIECES = [
    *TAGS,
    *("[ARGS]", "math_exp", "math_exp.call(", 'query="x"', ")", "\n", "{", "}", "[", "]", '"', ","),
    *(BARE, f"[{BARE}]", '{"a": 1}', "é", "\ud800"),
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=[]), max_size=3))).map("".join)


def test_the_contract_of_formats():
    assert_contract("format", "native")


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{BARE}\n</tool_call>",  # Hermes, Qwen
        f"<tool_call>{BARE}</tool_call>",
        BARE,  # small models
        json.dumps({"name": "math_exp", "parameters": {"query": "2 + 3"}}),  # Llama 3.2
        json.dumps({"name": "math_exp", "arguments": {"expression": "2 + 3"}}),
        json.dumps({"name": "math_exp", "arguments": json.dumps({"query": "2 + 3"})}),
        json.dumps({"type": "function", "function": CALL}),
        json.dumps(CALL, indent=2),
        f"```json\n{BARE}\n```",
        '<|python_tag|>{"type": "function", "name": "math_exp", "parameters": {"query": "2 + 3"}}',
        '<|python_tag|>math_exp.call(query="2 + 3")',  # Llama 3.1
        f"[TOOL_CALLS][{BARE}]",  # Mistral
        f"[TOOL_CALLS] [{json.dumps({**CALL, 'id': 'abcdefghi'})}]",
        f"[{BARE}]",  # its control token left out by decoding
        '[TOOL_CALLS]math_exp[ARGS]{"query": "2 + 3"}',
        'math_exp{"query": "2 + 3"}',
    ],
)
@pytest.mark.parametrize("before", ["", "I add them up.\n", "<think>or <answer>4</answer>?</think>\n"])
def test_every_family_is_read(text, before):
    call = FORMAT.parse(before + text)
    assert isinstance(call, ToolCall) and (call.tool, call.query) == ("math_exp", "2 + 3")
    assert (before + text)[call.start :].startswith(text.lstrip("`json\n")[:12])
    assert FORMAT.parse(f"{before}{text} and so on {BARE}") == call


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('<tool_call>{"name": "math_exp", "arguments": {"query": "1}</tool_call>', "not valid JSON"),
        ('{"name": "math_exp", "arguments": {"query": "2 + 3"', "not valid JSON"),
        ("[TOOL_CALLS][{\"name\": 'math_exp'}]", "not valid JSON"),
        ('<|python_tag|>math_exp.call(query="2 + 3"', "not valid JSON"),
        ('{"name": "math_exp", "arguments": {"query": NaN}}', "not valid JSON"),
        ('{"name": "rm", "arguments": {"query": "x"}}', "no tool of that name"),
        ('{"name": "math_exp", "arguments": {}}', 'had no arguments; give "arguments": {"query": ...}'),
        (f"[{BARE}, {BARE}]", "held 2 tool calls"),
        (f"<tool_call>\n{BARE}", "<tool_call> was opened but not closed"),
        ('{"city": "Paris"}', "No tool call"),
        ('{"name": "Ann", "age": 3}', "No tool call"),
        (f"Like so: {BARE}", "No tool call"),  # in the middle of a line it is prose
        ("The answer is 5.", "No tool call"),
    ],
)
def test_what_cannot_be_read_is_corrected(text, reason):
    parsed = FORMAT.parse(text)
    assert isinstance(parsed, Malformed) and reason in parsed.reason
    engine = build_engine(SumTasks(1), tools=[EchoTool()], judge=None, format="native", max_steps=3)
    text = text.replace("math_exp", "echo")
    (after,) = engine.step([engine.begin(engine.tasks[0])], [Action(text)])
    assert reason.split(";")[0].replace("math_exp", "echo") in after.step.observation and '"echo"' in after.step.observation


def test_the_first_complete_element_decides():
    assert FORMAT.parse(f"<answer>5</answer>\n{BARE}") == Answer("5", 0, 18)
    assert isinstance(FORMAT.parse(f"{BARE}\n<answer>5</answer>"), ToolCall)
    assert isinstance(FORMAT.parse(f"<answer>\n{BARE}\n</answer>"), Answer)
    assert isinstance(FORMAT.parse(f'{{"city": "Paris"}}\n{BARE}'), ToolCall)
    assert isinstance(FORMAT.parse(f"<think>{BARE}</think>"), Malformed)
    assert isinstance(FORMAT.parse(BARE, opened=True), Malformed)
    assert isinstance(FORMAT.parse(f"{BARE}</think>\n<answer>4</answer>", opened=True), Answer)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"answer": "34"}, "34"),
        ({"answer": 34}, "34"),
        ({"answer": " Jane Austen \n"}, "Jane Austen"),
        ({"value": 3.5}, "3.5"),
        ({"answer": True}, "true"),
        ('{"answer": "34"}', "34"),
        ("34", "34"),
        (34, "34"),
        ({"answer": "{34}"}, "{34}"),
        ({"answer": "a\ud800"}, "a\ufffd"),
    ],
)
@pytest.mark.parametrize("form", ["<tool_call>{}</tool_call>", "{}", "[TOOL_CALLS][{}]", "<|python_tag|>{}"])
def test_a_call_of_answer_is_an_answer(arguments, text, form):
    written = form.replace("{}", json.dumps({"name": "answer", "arguments": arguments}))
    answer = FORMAT.parse(f"So:\n{written}\n{BARE}")
    assert isinstance(answer, Answer) and answer.text == text


@pytest.mark.parametrize(
    "text", ['[TOOL_CALLS]answer[ARGS]{"answer": "5"}', 'answer{"answer": "5"}', '<|python_tag|>answer.call(answer="5")']
)
def test_a_call_of_answer_is_read_in_the_notations_of_a_name(text):
    answer = FORMAT.parse(text)
    assert isinstance(answer, Answer) and answer.text == "5" and text[: answer.end] == text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"answer": ["a", "b"]}, "no text alone"),
        ({"answer": "5", "unit": "km"}, "no text alone"),
        ({"answer": None}, "empty"),
        ({"answer": " "}, "empty"),
        ({}, "empty"),
        (None, "empty"),
    ],
)
def test_an_answer_that_is_no_text_is_corrected(arguments, reason):
    parsed = FORMAT.parse(json.dumps({"name": "answer", "arguments": arguments}))
    assert isinstance(parsed, Malformed) and reason in parsed.reason


def test_the_answer_is_offered_among_the_functions_and_no_tool_may_have_its_name():
    offered = FORMAT.functions([EchoTool()])
    assert [item["function"]["name"] for item in offered] == ["echo", "answer"]
    with pytest.raises(ConfigError, match="Give the tool another tag"):
        NativeFormat(("echo", "answer"))


def test_the_prompt_says_how_results_come_back():
    for fmt, says in (
        ("native", "The result of a call comes back and"),
        ("hermes", "QUERY -> RESULT"),
        ("xml", "QUERY -> RESULT"),
    ):
        engine = build_engine(SumTasks(1), tools=[EchoTool()], judge=None, format=fmt)
        prompt = engine.begin(engine.tasks[0]).turns[0].text
        assert says in prompt and ("QUERY" in prompt) == (fmt != "native")


def test_typed_arguments_are_objects():
    typed = NativeFormat(("route", "math_exp"), {"route": ROUTE})
    call = typed.parse('{"name": "route", "arguments": {"a": "x", "n": 2}}')
    assert isinstance(call, ToolCall) and typed.arguments("route", call.query) == {"a": "x", "n": 2}
    assert typed.arguments("math_exp", '{"a": 1}') == {"query": '{"a": 1}'}
    assert typed.parse(typed.call("route", call.query)).query == call.query


@given(TEXTS, TEXTS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_more_text_changes_no_complete_element(text, more):
    parsed = FORMAT.parse(text)
    assert 0 <= parsed.start <= parsed.end <= len(text)
    if not isinstance(parsed, Malformed) and "</think>" not in text[parsed.end :] + more:
        assert FORMAT.parse(text + more) == parsed
        assert FORMAT.parse(text[: parsed.end]) == parsed


@given(st.sampled_from(TOOLS), st.text(min_size=1).filter(str.strip))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read(tool, query):
    query = query.encode("utf-8", "replace").decode()
    call = FORMAT.parse(FORMAT.call(tool, query))
    assert isinstance(call, ToolCall) and (call.tool, call.query) == (tool, query.strip())
    assert FORMAT.arguments(tool, call.query) == {"query": query.strip()}


OPENINGS = ('{"a":\n', '[{"a":\n', "{\n", '{"', '[TOOL_CALLS]{"a', "math_exp.call(", '<|python_tag|>math_exp.call(a="', "\n \t")


@pytest.mark.parametrize("piece", OPENINGS)
def test_reading_takes_linear_steps(piece, monkeypatch):
    from swirl_env.episodes.formats import native

    class Counting:
        characters = 0

        def raw_decode(self, text, at):
            try:
                value, end = native_decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                self.characters += error.pos - at
                raise
            self.characters += end - at
            return value, end

    native_decoder = native.DECODER
    counts = []
    for n in (200, 400):
        counting = Counting()
        monkeypatch.setattr(native, "DECODER", counting)
        NativeFormat(TOOLS).parse(piece * n)
        counts.append(counting.characters)
    assert counts[1] <= 2 * counts[0] + 50
