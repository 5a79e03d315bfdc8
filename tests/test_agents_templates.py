"""Chat templates are written as the templates themselves write them, token for token, or refused with the difference."""

import datetime
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_lm
from states import begin, go_on
from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.errors import ConfigError
from swirl_env.types import Action, State

RESULT = ' Emma -> a "novel"\\by <b>Austen</b> \n'


def conversation(action: str = "I look it up. <search_query>Emma</search_query>") -> State:
    return go_on(begin(" Who wrote Emma?\n"), Action(action), RESULT)


def whole(tokenizer: Any, state: State, system: str | None = None, **options: Any) -> str:
    """What the tokenizer's own renderer makes of a state."""
    messages = [{"role": "assistant" if t.role == "assistant" else "user", "content": t.text} for t in state.turns]
    messages = [*([{"role": "system", "content": system}] if system else []), *messages]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))


TEMPLATES = {
    "chatml": tiny_lm.CHATML,
    "trim": tiny_lm.TRIMMING,
    "tojson": tiny_lm.QUOTING,
    "upper": tiny_lm.UPPER,
    "gemma": tiny_lm.GEMMA,
    "inst": tiny_lm.LLAMA2,
}


KINDS = {
    "bytes": tiny_lm.tokenizer,
    "first": tiny_lm.sentencepiece,
    "legacy": lambda template: tiny_lm.sentencepiece(template, legacy=True),
    "unigram always": tiny_lm.unigram,
    "unigram first": lambda template: tiny_lm.unigram(template, "first"),
    "unigram never": lambda template: tiny_lm.unigram(template, "never"),
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_states_are_what_the_template_writes_token_for_token(template: str, kind: str) -> None:
    tokenizer = KINDS[kind](TEMPLATES[template])
    renderer = Renderer(tokenizer)
    for state in (begin(" Who wrote Emma?\n"), begin("{{ 1 }} \\n é"), begin("12 日本"), begin(""), conversation()):
        ids = list(renderer.ids(state))
        expected = tokenizer.encode(whole(tokenizer, state), add_special_tokens=False)
        assert tokenizer.decode(ids) == tokenizer.decode(expected)
        if len(state.turns) == 1:
            assert ids == expected


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("template", ["chatml", "inst"])
def test_sentencepiece_pieces_get_no_extra_blanks(template: str, legacy: bool) -> None:
    tokenizer = tiny_lm.sentencepiece(TEMPLATES[template], legacy)
    renderer = Renderer(tokenizer)
    text = "I look it up. <search_query>Emma</search_query>"
    ids = renderer.text_ids(text)
    assert renderer.decode(ids).lstrip() == text and not renderer.drifts(ids, renderer.decode(ids))
    # What a model writes behind the prompt is read with the blank it has, and enters the next state as it is.
    sampled = tuple(
        tokenizer.encode("|" + " " + text, add_special_tokens=False)[len(tokenizer.encode("|", add_special_tokens=False)) :]
    )
    assert renderer.decode(sampled) == " " + text
    action = Action(" " + text, sampled, prompt_ids=renderer.ids(begin("Who?")))
    after = renderer.render(go_on(begin("Who?"), action))
    assert after.sampled == (True,) and after.ids[: len(action.prompt_ids + sampled)] == action.prompt_ids + sampled


def test_the_end_of_a_turn_that_was_sampled_is_not_doubled_behind_blanks() -> None:
    tokenizer = tiny_lm.sentencepiece(tiny_lm.LLAMA2)
    renderer = Renderer(tokenizer)
    ids = (*renderer.text_ids("I look it up."), tokenizer.eos_token_id)
    rendered = renderer.ids(go_on(begin("Who?"), Action(renderer.decode(ids), ids)))
    assert rendered.count(tokenizer.eos_token_id) == 1


def test_a_template_whose_frame_depends_on_the_text_is_refused_with_the_difference() -> None:
    nosy = tiny_lm.CHATML.replace("m['role'] + '\n'", "m['role'] + (' long' if m['content'] | length > 15 else '') + '\n'")
    quoting = nosy.replace("m['content'] +", "(m['content'] | tojson) +")
    difference = r"something else around a message of the user because of its text: expected .*user.*got .*long"
    with pytest.raises(ConfigError, match=difference):
        Renderer(tiny_lm.tokenizer(quoting)).ids(begin("A question of more than fifteen letters"))
    dropping = tiny_lm.CHATML.replace("m['content']", "(m['content'] | replace('@', ''))")
    with pytest.raises(ConfigError, match="does not write each of the messages"):
        Renderer(tiny_lm.tokenizer(dropping))


@pytest.mark.parametrize("system", ["Be brief.", 'Use "tools".'])
def test_a_template_that_demands_a_system_message_takes_the_one_given(system: str) -> None:
    for template in (tiny_lm.DEMANDING, tiny_lm.DEMANDING.replace("m['content']", "(m['content'] | trim)")):
        tokenizer = tiny_lm.tokenizer(template)
        renderer = Renderer(tokenizer, system=system)
        assert renderer.prefix_preserving
        assert tokenizer.decode(renderer.ids(conversation())) == whole(tokenizer, conversation(), system)
        with pytest.raises(ConfigError, match=r"a system message, please.* set system="):
            Renderer(tokenizer)


# Dates


def test_the_date_of_a_prompt_is_the_one_set_or_that_of_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_lm.tokenizer(tiny_lm.DATED)
    assert "Today is 02 Jan 2026.\n" in tokenizer.decode(Renderer(tokenizer, date="2026-01-02").ids(begin("q")))
    renderer = Renderer(tokenizer)
    today = datetime.date.today()

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime(2031, 5, 6)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert "Today is 06 May 2031." in whole(tokenizer, begin("q"))
    assert f"Today is {today:%d %b %Y}.\n" in tokenizer.decode(renderer.ids(begin("another day")))


def test_dates_in_other_forms() -> None:
    def opening(head: str, **options: Any) -> str:
        tokenizer = tiny_lm.tokenizer(head + tiny_lm.CHATML)
        return tokenizer.decode(Renderer(tokenizer, date="2026-01-02", **options).ids(begin("q"))).partition("\n")[0]

    assert opening("{% set form = '%Y-%m-%d' %}{{ strftime_now(form) + '\n' }}") == "2026-01-02"
    assert opening('{% macro head() %}{{ strftime_now("%B") }}{% endmacro %}{{ head() + "\n" }}') == "January"
    assert opening("{{ strftime_now(form) + '\n' }}", template_options={"form": "%A"}) == "Friday"
    computed = "{{ strftime_now('%' ~ 'd') + '\n' }}" + tiny_lm.CHATML
    with pytest.raises(ConfigError, match="format that is no literal"):
        Renderer(tiny_lm.tokenizer(computed))


def test_dates_tell_agents_apart_and_wrong_ones_are_refused() -> None:
    words, model = tiny_lm.tokenizer(tiny_lm.DATED), tiny_lm.llama(len(tiny_lm.tokenizer()))
    prints = [
        TransformersAgent(model, tokenizer=words, date=day).fingerprint for day in ("2026-01-02", "2026-01-03", "2026-01-02")
    ]
    assert prints[0] == prints[2] != prints[1]
    plain = [tiny_lm.agent(model, date=day).fingerprint for day in ("2026-01-02", "2026-01-03")]
    assert plain[0] == plain[1], "a template without a date does not change"
    for bad in ("tomorrow", "02.01.2026", ""):
        with pytest.raises(ConfigError, match="YYYY-MM-DD"):
            Renderer(words, date=bad)


# Cost


def test_rendering_long_states_reads_each_character_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(n: int, call_first: bool) -> int:
        tokenizer = tiny_lm.tokenizer.__wrapped__()
        renderer = Renderer(tokenizer, "plain")
        filler = "a long plain text " * n
        text = "<search_query>x</search_query>" + filler if call_first else filler
        ids = tuple(tokenizer.encode(text))
        state = go_on(begin(filler), Action(text, ids), filler)
        spent = [0]
        encode, decode = tokenizer.encode, tokenizer.decode

        def counted_encode(text: str, **options: Any) -> Any:
            spent[0] += len(text)
            return encode(text, **options)

        def counted_decode(ids: Any, **options: Any) -> Any:
            spent[0] += len(ids)
            return decode(ids, **options)

        monkeypatch.setattr(tokenizer, "encode", counted_encode)
        monkeypatch.setattr(tokenizer, "decode", counted_decode)
        assert renderer.render(state).sampled == (True,)
        return spent[0]

    for call_first in (False, True):
        assert cost(400, call_first) < 2.6 * cost(200, call_first)
