"""Printed arguments: what a command prints is read back, through a shell and the command line, as the same value."""

import pytest
import shell
from hypothesis import example, given
from hypothesis import strategies as st

from swirl_env.config.arguments import read_arguments
from swirl_env.config.overrides import choice, command, override, tool_choices

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS


def read_back(word):
    """Returns the value of an argument that was pasted into a shell."""
    (pasted,) = shell.words(command(word))
    (parsed,) = read_arguments([pasted]).parsed()
    assert not parsed.is_sweep_override()
    return plain(parsed.value())


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return getattr(value, "text", value) if not isinstance(value, str) else str(value)


@example("sweep/algo=swirl,seed=0")
@example("it's")
@example("null")
@example("m/x[/y]")
@example("C:\\x\\")
@example("a,b")
@given(TEXTS)
def test_texts_are_read_back(text):
    if "${" not in text:
        assert read_back(override("out", text)) == text


@example([["a:b", "c d"], {"rules": 0.7}, "1e5"])
@given(st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
@example(["A¹"])
@example("naïve")
def test_values_are_read_back(value):
    if "${" not in str(value):
        assert read_back(override("key", value)) == value


@pytest.mark.parametrize(
    "judges",
    [{"rules": 0.7, "outcome": 0.5}, {"my.mod:Judge": 1.0, "a b": 2}, {"llm": {"name": "llm", "rubric": "Is it good, or bad?"}}],
)
def test_plugins_with_nested_options_are_read_back(judges):
    head, word = choice("judge", {"name": "weighted", "judges": judges})
    assert head == "judge=weighted" and read_back(word) == judges


def test_choices_leave_out_usual_values_and_name_the_rest():
    assert choice("judge", None) == ["judge=none"]
    assert choice("judge", {"name": "rules", "good": 1.0, "bad": -1.0}) == ["judge=rules", "judge.bad=-1.0"]
    tools = {"search": {"name": "search", "corpus": None, "top_k": 3}, "calculator": {"name": "calculator"}}
    assert tool_choices(tools) == ["tool=[search,calculator]", "tool.search.top_k=3"]
    assert tool_choices(None) == [] and tool_choices({}) == ["tool=[]"]


@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=3))
@example(["a\x1b[31mb", "two\nlines", "it's\t", "\\'\x7f", "\u202eabc", "\udcff"])
def test_printed_words_are_printable_and_a_shell_reads_them_back(words):
    printed = command(*words)
    assert printed.isprintable()
    assert shell.words(printed) == words
