"""The action parsers: total over all strings, decided by the first complete element, linear in length."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swirl_env.episodes.formats import HermesFormat, XmlFormat
from swirl_env.types import Answer, Malformed, ToolCall

TOOLS = ("search_query", "math_exp")
XML, HERMES = XmlFormat(TOOLS), HermesFormat(TOOLS)
TAGS = ["search_query", "math_exp", "answer", "tool_call", "think"]
MARKUP = [f"<{t}>" for t in TAGS] + [f"</{t}>" for t in TAGS]
PIECES = [*MARKUP, "<", ">", "</", "<answer", "\0", "\ud800", "é", '{"name": "', '"}', "{"]
TAGGED = st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=[]), max_size=5))).map("".join)


def blank_reasoning(text):
    """The text with every think block written as as many \\1, block by block from the left."""
    text = text.replace("\1", "\2")
    at = 0
    while True:
        opening, closing = text.find("<think>", at), text.find("</think>", at)
        if closing >= 0 and (opening < 0 or closing < opening):  # closes nothing: all before it is reasoning
            at = closing + 8
            text = "\1" * at + text[at:]
        elif opening >= 0:
            closing = text.find("</think>", opening)
            at = len(text) if closing < 0 else closing + 8
            text = text[:opening] + "\1" * (at - opening) + text[at:]
        else:
            return text


def xml_oracle(text):
    """A second reading of the rule, by brute force: the shortest prefix that holds some <t>...</t> outside think blocks."""
    shown = blank_reasoning(text)
    for end in range(len(text) + 1):
        for tag in (*TOOLS, "answer"):
            if shown[:end].endswith(f"</{tag}>"):
                start = shown[: end - len(tag) - 3].rfind(f"<{tag}>")
                if "\1" in shown[max(start, 0) : end]:
                    continue
                if start >= 0:
                    return tag, text[start + len(tag) + 2 : end - len(tag) - 3].strip(), start, end
    return None


@given(TAGGED)
@example("<math_exp>\1</math_exp>")
@example("<answer>\2\1</answer>")
@settings(max_examples=500)
def test_xml_agrees_with_brute_force(text):
    parsed, expected = XML.parse(text), xml_oracle(text)
    if expected is None:
        assert isinstance(parsed, Malformed) and (parsed.start, parsed.end) == (0, len(text))
        return
    tag, content, start, end = expected
    assert (parsed.start, parsed.end) == (start, end)
    if tag != "answer":
        assert parsed == ToolCall(tag, content, start, end)
    else:
        assert parsed == Answer(content, start, end) if content else isinstance(parsed, Malformed)


@pytest.mark.parametrize("fmt", [XML, HERMES])
@given(text=TAGGED, more=TAGGED)
def test_what_follows_a_complete_action_changes_nothing(fmt, text, more):
    more = more.replace("</think>", "")  # one that closes no block makes what was before it reasoning
    parsed = fmt.parse(text)
    if parsed.end < len(text) or any(text.endswith(stop) for stop in fmt.stop):
        first = fmt.parse(text + more)
        assert first == parsed or isinstance(parsed, Malformed)


@pytest.mark.parametrize("fmt", [XML, HERMES])
@given(query=st.text(st.characters(exclude_categories=["Cs"])).map(str.strip))
def test_what_a_format_writes_it_reads(fmt, query):
    if "</search_query>" in query or "<search_query>" in query:
        return
    call = fmt.parse(fmt.call("search_query", query))
    assert isinstance(call, ToolCall) and (call.tool, call.query) == ("search_query", query)


def test_xml_by_hand():
    cases = {
        "I think <search_query>  who is X? </search_query> yes <answer>X</answer>": ToolCall("search_query", "who is X?", 8, 49),
        "<answer>42</answer>": Answer("42", 0, 19),
        "use <search_query> tags: <search_query>q</search_query>": ToolCall("search_query", "q", 25, 55),
        "<search_query>a <answer>b</answer></search_query>": Answer("b", 16, 34),
        "</answer><answer>late</answer>": Answer("late", 9, 30),
        "<math_exp></math_exp>": ToolCall("math_exp", "", 0, 21),
    }
    for text, expected in cases.items():
        assert XML.parse(text) == expected, text
    assert XML.parse("<answer>no end").reason == "<answer> was opened but not closed."
    assert XML.parse("<answer> \n </answer>").reason == "The answer was empty."
    assert "search_query" in XML.correction(XML.parse("nothing"))


def test_hermes_by_hand():
    def read(body):
        return HERMES.parse(f"<tool_call>{body}</tool_call>")

    one = read('{"name": "math_exp", "arguments": {"expression": " 2+2 "}}')
    assert (one.tool, one.query) == ("math_exp", "2+2")
    assert read('{"name": "math_exp", "arguments": "3*3"}').query == "3*3"
    for body, reason in {
        "{": "not valid JSON",
        "[" * 100_000: "not valid JSON",
        "3": 'no "name"',
        '{"name": 3}': 'no "name"',
        '{"name": "rm", "arguments": {}}': "no tool of that name",
        '{"name": "math_exp", "arguments": [1]}': "not an object",
        '{"name": "math_exp", "arguments": {"a": 1, "b": "é"}}': 'the arguments "a", "b"',
    }.items():
        assert reason in read(body).reason, body
    assert HERMES.parse("<answer>x</answer>").text == "x"


@pytest.mark.parametrize("unit", ["<answer>", "</answer>", "<search_query><answer", "<" * 8, "<tool_call>{", "a<b>"])
@pytest.mark.parametrize("fmt", [XML, HERMES])
def test_megabytes_are_read(fmt, unit):
    text = unit * (4_000_000 // len(unit))  # anything worse than linear would stall the suite here
    assert isinstance(fmt.parse(text), Malformed)
