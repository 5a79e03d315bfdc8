"""Where an action ends: at the first closing tag outside reasoning, or with the end of a turn, and with nothing else."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given
from hypothesis import strategies as st

import tiny_lm
from states import FORMAT, SETTINGS, begin, go_on
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.agents.transformers.stopping import Stopper, completes
from swirl_env.episodes.formats import XmlFormat
from swirl_env.errors import ConfigError
from swirl_env.types import Answer, Malformed, ToolCall

CALL = "<search_query>Oslo</search_query>"


def act(agent: Any, **settings: Any) -> Any:
    return agent.act([begin("Where?", **settings)])[0]


# Think blocks


@pytest.mark.parametrize(
    "reasoning",
    [
        "<think>first I thought <answer>Paris</answer>, but </think> ",
        f"<think>{CALL} and <answer>x</answer></think>\nSo ",
        "<think></think>",
        f"<think>{CALL}</think> and so, after all that was said about it, I search for the town again: ",
        "<think>a</think> then <think><answer>b</answer></think>",
        "<think>1 < 2 </search_query></answer> <think> again </think>",
    ],
)
def test_closing_tags_in_think_blocks_end_nothing(reasoning: str) -> None:
    action = act(tiny_lm.parrot(f"{reasoning}{CALL} and more"))
    assert action.text.startswith(reasoning + CALL) and "more" not in action.text and not action.opened
    assert FORMAT.parse(action.text) == ToolCall("search_query", "Oslo", len(reasoning), len(reasoning + CALL))


@pytest.mark.parametrize("reasoning", ["<answer>Paris</answer> no </think>", f"{CALL}</think> ", "</think>"])
def test_a_block_that_the_prompt_opened_is_reasoning_too(reasoning: str) -> None:
    words = tiny_lm.tokenizer(tiny_lm.THINK_OPENING)
    action = act(tiny_lm.parrot(f"{reasoning}{CALL} and more", words))
    assert action.opened and action.text.startswith(reasoning + CALL) and "more" not in action.text
    assert isinstance(FORMAT.parse(action.text, True), ToolCall)


def test_a_prompt_that_closes_its_block_opens_nothing() -> None:
    closed = tiny_lm.CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n")
    action = act(tiny_lm.parrot(f"{CALL} and more", tiny_lm.tokenizer(closed)))
    assert not action.opened and "more" not in action.text


def test_reasoning_that_never_ends_runs_into_the_limit() -> None:
    agent = tiny_lm.parrot(f"<think>{CALL}<answer>x</answer> and more")
    action = act(agent)
    assert len(action.token_ids) == agent.max_new_tokens and isinstance(FORMAT.parse(action.text), Malformed)


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "<search_query>", "</search_query>", "x", "<", "think>", " "]


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.booleans())
def test_a_text_is_complete_with_its_first_closing_tag_outside_reasoning(pieces: list[str], opened: bool) -> None:
    """Two oracles: a walk over the tags, and the format, which never reads an element beyond that point."""
    text = "".join(pieces)
    form = XmlFormat(SETTINGS.tools)
    inside, first = opened, None
    for tag in re.finditer("</?(?:think|answer|search_query)>", text):
        if "think" in tag.group():
            inside = tag.group() == "<think>"
        elif tag.group() in form.stop and not inside:
            first = tag.end()
            break
    assert next((n for n in range(len(text) + 1) if completes(text[:n], form.stop, opened)), None) == first
    call = form.parse(text, opened)
    if isinstance(call, ToolCall | Answer):
        assert first is not None and first <= call.end


@given(st.lists(st.sampled_from([*PIECES, "some words", "\n"]), max_size=24), st.booleans())
def test_asked_token_by_token_the_answer_is_the_same(pieces: list[str], opened: bool) -> None:
    words = tiny_lm.tokenizer()
    ended = Stopper(Renderer(words).codec).test(begin("q").settings, opened)
    ids = words.encode("".join(pieces), add_special_tokens=False)
    stops = XmlFormat(SETTINGS.tools).stop
    for n in range(1, len(ids) + 1):
        expected = completes(words.decode(ids[:n]), stops, opened)
        assert ended(ids[:n]) == expected
        if expected:
            break


def test_long_reasoning_is_not_read_again_for_each_tag_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def ids_decoded(tags: int) -> int:
        words = tiny_lm.tokenizer()
        renderer = Renderer(words)
        ended = Stopper(renderer.codec).test(begin("q").settings, False)
        ids = words.encode("<think>" + "</answer> " * tags, add_special_tokens=False)
        spent = [0]
        decode = renderer.codec.decode

        def counted(ids: Sequence[int]) -> str:
            spent[0] += len(ids)
            return decode(ids)

        monkeypatch.setattr(renderer.codec, "decode", counted)
        assert not any(ended(ids[:n]) for n in range(1, len(ids) + 1))
        return spent[0]

    assert ids_decoded(80) < 2.4 * ids_decoded(40)


# Special tokens


TOOL_CALL = '<tool_call>{"name": "search_query", "arguments": {"query": "Oslo"}}</tool_call>'
TAGS = ("<search_query>", "</search_query>", "<answer>", "</answer>", "<think>", "</think>")


@pytest.mark.parametrize(
    ("special", "text", "settings"),
    [
        (("<tool_call>", "</tool_call>"), TOOL_CALL, "hermes"),
        (TAGS[:2], CALL, "xml"),
        (TAGS, f"<think>a <answer>b</answer></think>{CALL}", "xml"),
        (TAGS[4:], f"<think>{CALL}</think> so {CALL}", "xml"),
    ],
)
def test_tags_that_a_tokenizer_marks_special_are_text(special: tuple[str, ...], text: str, settings: str) -> None:
    words = tiny_lm.tokenizer(special=special)
    agent = tiny_lm.parrot(f"{text} and more", words)
    action = act(agent, format=settings)
    assert action.text.startswith(text) and "more" not in action.text
    assert set(words.convert_tokens_to_ids(list(special))) & set(action.token_ids)
    # Whoever writes the text, the ids are those that a model samples.
    assert agent.renderer.text_ids(text) == tuple(words.encode(text, add_special_tokens=False)) and action.drift == 0
    before = action.prompt_ids + action.token_ids
    assert agent.renderer.ids(go_on(begin("Where?", format=settings), action))[: len(before)] == before


@pytest.mark.parametrize("special", [("<answer>",), ("</answer>",), ("</search_query>",)])
def test_half_a_tag_that_is_special_is_refused_at_the_start(special: tuple[str, ...]) -> None:
    agent = tiny_lm.parrot("x", tiny_lm.tokenizer(special=special))
    with pytest.raises(ConfigError, match=f"The format 'xml' writes {special[0]}, which this tokenizer"):
        act(agent)


def test_tags_that_the_template_structures_conversations_with_are_refused_at_the_start() -> None:
    template = tiny_lm.CHATML.replace("m['content'] +", "'<answer>' + m['content'] + '</answer>' +")
    for special in (("<answer>", "</answer>"), ()):
        plain = () if special else ("<answer>", "</answer>")
        agent = tiny_lm.parrot("x", tiny_lm.tokenizer(template, plain, special=special))
        with pytest.raises(ConfigError, match=r"The format 'xml' writes </answer>, <answer>, which"):
            act(agent)
        assert act(agent, format="swirl_env.judges.asking:FreeText").text, "free text writes no tags"


@pytest.mark.parametrize("name", ["<repo_name>", "<|image|>", "[CALL]"])
def test_other_special_tokens_end_nothing_and_are_no_text(name: str) -> None:
    words = tiny_lm.tokenizer(special=(name,))
    action = act(tiny_lm.parrot(f"so {name}{CALL} and more", words))
    assert action.text.startswith(f"so {CALL}") and words.convert_tokens_to_ids(name) in action.token_ids


@pytest.mark.parametrize("name", ["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
def test_ends_and_openings_of_turns_end_an_action(name: str) -> None:
    words = tiny_lm.tokenizer()
    action = act(tiny_lm.parrot(f"so {name}{CALL}", words))
    assert action.text == "so " and action.token_ids[-1] == words.convert_tokens_to_ids(name)


CHANNELS = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (f"<|channel|>final<|message|>{CALL} more", CALL),
        (f"<|channel|>analysis<|message|>or <answer>x</answer>?<|end|><|start|>assistant<|channel|>final<|message|>{CALL} more",
         f"<think>or <answer>x</answer>?</think>{CALL}"),
        (f"<|channel|>analysis<|message|>a<|channel|>commentary to=me<|message|>{CALL}<|channel|>final<|message|>{CALL} more",
         f"<think>a</think><think>{CALL}</think>{CALL}"),
    ],
)  # fmt: skip
def test_channels_but_the_final_one_are_reasoning(written: str, text: str) -> None:
    words = tiny_lm.tokenizer(special=CHANNELS)
    agent = tiny_lm.parrot(written, words)
    action = act(agent)
    assert action.text.startswith(text) and "more" not in action.text and isinstance(FORMAT.parse(action.text), ToolCall)
    before = action.prompt_ids + action.token_ids
    assert agent.renderer.ids(go_on(begin("Where?"), action))[: len(before)] == before


MARKS = [
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
]


@pytest.mark.parametrize("marks", MARKS)
def test_marks_of_reasoning_in_other_spellings_are_read_as_think_blocks(marks: tuple[str, str]) -> None:
    words = tiny_lm.tokenizer(special=marks)
    agent = tiny_lm.parrot(f"{marks[0]}or <answer>x</answer>?{marks[1]}{CALL} more", words)
    action = act(agent)
    assert "more" not in action.text and isinstance(FORMAT.parse(action.text), ToolCall), action.text
    before = action.prompt_ids + action.token_ids
    assert agent.renderer.ids(go_on(begin("Where?"), action))[: len(before)] == before
    cut = act(tiny_lm.parrot(f"{marks[0]}or <answer>x</answer>, or", words))
    assert isinstance(FORMAT.parse(cut.text), Malformed) and cut.text.startswith("<think>or <answer>x</answer>, or")
