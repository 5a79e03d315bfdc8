"""The contract of action formats."""

from __future__ import annotations

from swirl_env.contract.rules import HOSTILE, HUGE, PLAIN, Unchecked, attempt, expect, random_texts, shown
from swirl_env.contract.samples import DESCRIBED, TAGS
from swirl_env.types import Answer, Malformed, ToolCall

_TOTAL = "parse is total: return Malformed(reason, 0, len(text))"
_MORE = (" and more", "</answer>", "<answer>other</answer>", "<search_query>x</search_query>", "\x00\ud800", "}}]]>")


def has_its_methods(fmt: Unchecked) -> None:
    """Has `stop`, `parse`, `call`, `answer`, `instructions` and `correction`."""
    for name in ("parse", "call", "answer", "instructions", "correction"):
        expect(callable(getattr(fmt, name, None)), f"expected a method `{name}`, got none; add it to {type(fmt).__name__}.")
    stop = getattr(fmt, "stop", None)
    texts = isinstance(stop, tuple) and bool(stop) and all(isinstance(s, str) and s for s in stop)
    expect(texts, f"expected `stop` to be a tuple of texts, got {shown(stop)}.")


def what_it_writes_it_reads(fmt: Unchecked) -> None:
    """parse(call(tool, query)) is that call, parse(answer(text)) that answer, with prose before them too."""
    for tool in TAGS:
        for query in PLAIN:
            for head in ("", "Let me see: 3 < 4. "):
                text = head + fmt.call(tool, query)
                read = _parse(fmt, text)
                same = isinstance(read, ToolCall) and (read.tool, read.query) == (tool, query)
                expect(same, f"expected {shown(text)!r} to read as a call of {tool} with {query!r}, got {shown(read)}.")
    for answer in PLAIN:
        text = "So: " + fmt.answer(answer)
        read = _parse(fmt, text)
        same = isinstance(read, Answer) and read.text == answer
        expect(same, f"expected {shown(text)!r} to read as the answer {answer!r}, got {shown(read)}.")


def spans_hold_the_element(fmt: Unchecked) -> None:
    """text[start:end] is the complete call or answer, alone."""
    for text in _complete(fmt):
        read = _parse(fmt, "Well, " + text + " then")
        inside = ("Well, " + text + " then")[read.start : read.end]
        expect(inside == text, f"expected start and end to hold {shown(text)!r}, got {shown(inside)!r}.")


def text_after_a_complete_element_changes_nothing(fmt: Unchecked) -> None:
    """parse(text + more) == parse(text) once text holds a complete call or answer."""
    for text in _complete(fmt):
        for more in _MORE:
            one, two = _parse(fmt, text), _parse(fmt, text + more)
            expect(one == two, f"expected {shown(text)!r} to read the same with {shown(more)!r} after it, got {shown(two)}.")


def think_blocks_are_not_read(fmt: Unchecked) -> None:
    """What is in <think>...</think> is no action: closed, never closed, or opened by the generation prompt."""
    whole = _complete(fmt)
    draft, final = whole[-1], whole[0]
    for head in (f"<think>{draft} or {draft}</think>", f"{draft} no</think>", f"<think>a {draft}</think> <think>{draft}</think>"):
        read = _parse(fmt, head + final)
        inside = (head + final)[read.start : read.end]
        expect(inside == final, f"expected {shown(head + final)!r} to read as its last element, got {shown(inside)!r}.")
    read = _parse(fmt, f"<think>{draft}")
    expect(isinstance(read, Malformed), f"expected an open think block to hold no action, got {shown(read)}.")
    read = attempt(fmt.parse, draft, True, given="text that begins in a think block", fix="take parse(text, opened)")
    expect(isinstance(read, Malformed), f"expected parse(text, opened=True) to read from </think> on, got {shown(read)}.")


def stop_strings_end_every_element(fmt: Unchecked) -> None:
    """Every call and answer ends with one of the stop strings and holds none before its end."""
    for text in _complete(fmt):
        ends = text.endswith(fmt.stop)
        expect(ends, f"expected {shown(text)!r} to end with one of {fmt.stop}, it does not; generation would run on.")
        early = [s for s in fmt.stop if s in text[: -len(s)]]
        expect(not early, f"expected no stop string inside {shown(text)!r}, got {early}; generation would stop too early.")


def parse_is_total(fmt: Unchecked) -> None:
    """Reads any text: empty, NUL, surrogates, a megabyte, unclosed and nested elements."""
    cut = [text[:k] for text in _complete(fmt) for k in range(0, len(text), 3)]
    opened = _complete(fmt)[0].rpartition(fmt.stop[0])[0] or "<"
    for text in (*HOSTILE, *HUGE, *random_texts(), *cut, opened * (1_000_000 // len(opened)), "".join(fmt.stop) * 20_000):
        read = _parse(fmt, text)
        inside = 0 <= read.start <= read.end <= len(text)
        expect(inside, f"expected a span inside {shown(text)!r}, got {read.start} to {read.end}.")


def unknown_tools_are_malformed(fmt: Unchecked) -> None:
    """A call of a tool that is not on offer is no call."""
    read = _parse(fmt, fmt.call("no_such_tool", "x"))
    expect(not isinstance(read, ToolCall), f"expected a call of an unknown tool to be Malformed, got {shown(read)}.")


def malformed_actions_are_corrected(fmt: Unchecked) -> None:
    """A malformed action gets a reply that says how to write it."""
    text = fmt.correction(_parse(fmt, "I would say five."))
    expect(isinstance(text, str) and bool(text.strip()), f"expected a correction in words, got {shown(text)}.")
    expect(_parse(fmt, "nothing") == _parse(fmt, "nothing"), "expected the same reading every time, got two.")


def instructions_name_every_tool(fmt: Unchecked) -> None:
    """The instructions name every tool and say what it does."""
    text = fmt.instructions(DESCRIBED)
    for tool in DESCRIBED:
        named = isinstance(text, str) and tool.tag in text and tool.description in text
        expect(named, f"expected the tag and the description of {tool.tag!r} in the instructions, got {shown(text)}.")


def _complete(fmt: Unchecked) -> list[str]:
    return [*(fmt.call(tool, query) for tool in TAGS for query in PLAIN[:3]), *(fmt.answer(text) for text in PLAIN[:3])]


def _parse(fmt: Unchecked, text: str) -> Unchecked:
    read = attempt(fmt.parse, text, given=f"the text {shown(text)!r}", fix=_TOTAL)
    known = isinstance(read, ToolCall | Answer | Malformed)
    expect(known, f"expected ToolCall, Answer or Malformed for {shown(text)!r}, got {type(read).__name__}.")
    return read


RULES = (
    has_its_methods,
    what_it_writes_it_reads,
    spans_hold_the_element,
    text_after_a_complete_element_changes_nothing,
    think_blocks_are_not_read,
    stop_strings_end_every_element,
    parse_is_total,
    unknown_tools_are_malformed,
    malformed_actions_are_corrected,
    instructions_name_every_tool,
)
GATES = (has_its_methods,)
TWIN_RULES = ()
