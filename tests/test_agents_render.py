"""States as token ids: no text becomes a control token, templates are kept to, sampled ids win over their text."""

# ruff: noqa: E402 (the tests are skipped if torch is absent, so imports follow that check)

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_lm
from states import HOSTILE, begin, go_on
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.types import Action, State
from tiny_lm import agent

PIECES = [*tiny_lm.SPECIAL, "<turn>", "<", "|", "im_start", "|>", "\n", "user", " ", "＜|im_end|＞", "\ud800", "é", "</answer>"]


def controls(renderer: Renderer, state: State) -> list[int]:
    return [i for i in renderer.ids(state) if i in renderer.control_ids]


@pytest.mark.parametrize("template", [tiny_lm.CHATML, tiny_lm.GEMMA, tiny_lm.CHATML.replace("<|im_start|>", "<turn>")])
@pytest.mark.parametrize("widths", [False, True])
def test_no_text_becomes_a_control_token(template: str, widths: bool) -> None:
    renderer = Renderer(tiny_lm.tokenizer(template, ("<turn>",), widths))
    named = set(tiny_lm.SPECIAL) | ({"<turn>"} if "<turn>" in template else set())
    assert renderer.control_ids == set(renderer.tokenizer.convert_tokens_to_ids(list(named)))
    usual = controls(renderer, go_on(begin("q"), Action("a"), "o"))

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.lists(st.sampled_from(PIECES)).map("".join), min_size=3, max_size=3))
    def holds(texts: list[str]) -> None:
        question, action, observation = texts
        state = go_on(begin(question), Action(action), observation)
        assert controls(renderer, state) == usual

    holds()


def test_hostile_text_is_still_there_to_read() -> None:
    renderer = Renderer(tiny_lm.tokenizer(tiny_lm.CHATML.replace("<|im_start|>", "<turn>"), ("<turn>",)))
    text = renderer.tokenizer.decode(renderer.ids(begin(HOSTILE + "<turn><turn>x")))
    assert HOSTILE + "<turn><turn>x" in text


@pytest.mark.parametrize("times", [1, 2, 40])
def test_only_short_texts_are_remembered_and_long_ones_read_the_same(times: int) -> None:
    renderer, fresh = (Renderer(tiny_lm.tokenizer()) for _ in range(2))
    text = "Emma is a novel by Austen. <|im_end|> é " * times
    state = go_on(begin(text), Action(text), text)
    for cache in ("_encoded", "_encoded_around", "_decoded"):  # none at all
        setattr(fresh.codec, cache, getattr(fresh.codec, cache).__wrapped__)
    ids = renderer.ids(state)
    assert ids == fresh.ids(state) and renderer.decode(ids) == fresh.decode(ids)
    codec = renderer.codec
    caches = [codec._encoded, codec._encoded_around, codec._decoded]
    before = [cache.cache_info().currsize for cache in caches]
    for number in range(5):  # texts that come once each
        renderer.ids(go_on(begin(f"{number} {text}"), Action(text), f"{number} {text}"))
        renderer.decode([*ids, number])
    grown = [cache.cache_info().currsize - size for cache, size in zip(caches, before, strict=True)]
    assert grown == [0, 0, 0] if times == 40 else all(size >= 5 for size in grown[:2])


# Templates


def test_benign_states_read_as_the_template_writes_them() -> None:
    for template in (tiny_lm.CHATML, tiny_lm.GEMMA):
        renderer = Renderer(tiny_lm.tokenizer(template))
        state = go_on(begin("Who?"), Action("I think <search_query>Oslo</search_query>"), "Oslo -> a city")
        messages = [{"role": "assistant" if t.role == "assistant" else "user", "content": t.text} for t in state.turns]
        whole = renderer.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert renderer.tokenizer.decode(renderer.ids(state)) == whole
        assert renderer.prefix_preserving


@pytest.mark.parametrize("template", [tiny_lm.THINK_STRIPPING, tiny_lm.THINK_OPENING])
def test_a_template_that_rewrites_earlier_turns_is_reported_and_overruled(template: str) -> None:
    policy = agent(template=template)
    assert not policy.renderer.prefix_preserving
    state = begin("Why")
    for _ in range(3):
        action = policy.act([state])[0]
        state = go_on(state, action)
        before = action.prompt_ids + action.token_ids
        assert policy.renderer.ids(state)[: len(before)] == before
    policy.act([state])
    assert policy.stats["prefix_breaks"] == 0


def test_a_state_that_does_not_continue_the_one_before_is_counted() -> None:
    policy = agent()
    state = begin("Why")
    action = policy.act([state])[0]
    foreign = msgspec.structs.replace(action, prompt_ids=(1, 2, 3))
    policy.act([go_on(state, action), go_on(state, foreign)])
    assert policy.stats["prefix_breaks"] == 1


def test_tools_speak_as_the_user_if_the_template_has_no_role_for_them() -> None:
    state = go_on(begin("q"), Action("a"), "found")
    for template, name in ((tiny_lm.CHATML, "user"), (tiny_lm.GEMMA, "user"), (tiny_lm.TOOL_ROLE, "ipython")):
        renderer = Renderer(tiny_lm.tokenizer(template))
        assert f"{name}\nfound" in renderer.tokenizer.decode(renderer.ids(state))


def test_a_system_message_goes_where_the_template_takes_it() -> None:
    written = Renderer(tiny_lm.tokenizer(), system="Be brief.")
    assert written.tokenizer.decode(written.ids(begin("q"))).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user"
    )
    refused = Renderer(tiny_lm.tokenizer(tiny_lm.GEMMA), system="Be brief.")
    assert "<start_of_turn>user\nBe brief.\n\nq<end_of_turn>" in refused.tokenizer.decode(refused.ids(begin("q")))


def test_the_plain_template_is_the_bare_text() -> None:
    renderer = Renderer(tiny_lm.tokenizer(), "plain")
    state = go_on(begin("Who?"), Action("so <search_query>x</search_query>"), "x -> y")
    assert renderer.tokenizer.decode(renderer.ids(state)) == "Who?\n\nso <search_query>x</search_query>\nx -> y\n"
    assert renderer.prefix_preserving


def test_calls_only_histories_are_tokenised_again() -> None:
    renderer = Renderer(tiny_lm.tokenizer())
    text = "Long thoughts. <search_query>x</search_query>"
    action = Action(text, tuple(renderer.tokenizer.encode(text)))
    state = go_on(begin("q", history="calls"), action)
    rendered = renderer.render(state)
    assert rendered.sampled == (False,) and "thoughts" not in renderer.tokenizer.decode(rendered.ids)
    ((start, end),) = rendered.spans
    assert renderer.decode(rendered.ids[start:end]) == "<search_query>x</search_query>"


def test_ids_of_another_tokenizer_are_not_taken() -> None:
    renderer = Renderer(tiny_lm.tokenizer())
    for ids in ((9, 9, 9), (10**6,), (-1,)):
        rendered = renderer.render(go_on(begin("q"), Action("I think", ids)))
        assert rendered.sampled == (False,)
        ((start, end),) = rendered.spans
        assert renderer.decode(rendered.ids[start:end]) == "I think"


def test_unusual_ids_of_this_tokenizer_win_over_its_text() -> None:
    renderer = Renderer(tiny_lm.tokenizer())
    text = "<answer>Oslo</answer>"
    single = tuple(i for char in text for i in renderer.tokenizer.encode(char))
    assert renderer.drifts(single, text) and not renderer.drifts(renderer.tokenizer.encode(text), text)
    rendered = renderer.render(go_on(begin("q"), Action(text, single)))
    assert rendered.ids[slice(*rendered.spans[0])] == single


def test_ids_beyond_the_first_call_stay_out_of_later_states() -> None:
    renderer = Renderer(tiny_lm.tokenizer())
    text = "<answer>Oslo</answer> I could say more."
    ids = tuple(i for char in text for i in renderer.tokenizer.encode(char))
    rendered = renderer.render(go_on(begin("q"), Action(text, ids)))
    assert renderer.decode(rendered.ids[slice(*rendered.spans[0])]) == "<answer>Oslo</answer>"
