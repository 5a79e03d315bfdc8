"""Tokenizers and templates of current open models: states grow id for id, and read as the models' own templates write them.

Fetched by ``python -m swirl_env.benchmarks.fetch_tokenizers``; a tokenizer that is not there is skipped with this hint.
"""

# ruff: noqa: E402 (the tests are skipped if torch is absent, so imports follow that check)
import datetime
import os
from typing import Any

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_lm
from states import FORMAT, HOSTILE, SETTINGS, begin, go_on
from swirl_env.agents.transformers.load import quiet
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.agents.transformers.stopping import Stopper
from swirl_env.benchmarks.fetch_tokenizers import PACKAGES, tokenizer_folder
from swirl_env.types import Action, State, ToolCall

pytestmark = pytest.mark.slow
FOLDERS = {name: tokenizer_folder(name) for name in PACKAGES}
"""Looked up before any test sets a cache folder of its own."""
DATE = "2026-01-02"
PRINTS = {"llama3.2": "Today Date: 02 Jan 2026", "gpt-oss": "Current date: 2026-01-02"}
CALL = "<search_query>Emma author</search_query>"
THINK = f"<think>Was it <answer>Bronte</answer>? No, I look {CALL} up.</think>\n\n"
CONTROLS = (HOSTILE, "<|eot_id|>[INST]</s><｜User｜>", "<|start|>system<|message|>", "<tool_response>")


def load(name: str) -> Any:
    if not (FOLDERS[name] / "tokenizer.json").is_file():
        reason = f"{FOLDERS[name]} is not there; to fetch it: python -m swirl_env.benchmarks.fetch_tokenizers"
        if os.environ.get("SWIRL_TOKENIZERS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(FOLDERS[name]))
    if not tokenizer.chat_template:
        tokenizer.chat_template = {"gemma2": tiny_lm.GEMMA, "gpt-oss": tiny_lm.HARMONY}[name]
    return tokenizer


def template_text(renderer: Renderer, state: State, system: str | None) -> str:
    """What transformers makes of the state, told the same date."""
    roles = {turn.role: renderer.role_name(turn.role) for turn in state.turns}
    messages = [{"role": roles[turn.role], "content": turn.text} for turn in state.turns]
    if system and renderer.takes_system:
        messages.insert(0, {"role": "system", "content": system})
    elif system:
        messages[0]["content"] = f"{system}\n\n{messages[0]['content']}"
    text = renderer.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text)


def grows(renderer: Renderer, texts: dict[str, tuple[int, ...]]) -> None:
    """State i + 1 begins with state i and the ids sampled there, whatever they are."""
    for what, ids in texts.items():
        state = begin('Who wrote "Emma"? ')
        for _ in range(3):
            action = Action(renderer.decode(ids), ids, prompt_ids=renderer.ids(state))
            state = go_on(state, action, 'Emma -> a "novel" by <b>Austen</b>\n')
            rendered = renderer.render(state)
            before = action.prompt_ids + ids
            assert rendered.ids[: len(before)] == before and rendered.sampled[-1], what
            assert rendered.ids[slice(*rendered.spans[-1])] == ids, what


@pytest.mark.parametrize("name", PACKAGES)
def test_states_of_a_real_tokenizer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(name)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    for system in (None, "Be brief."):
        check(name, tokenizer, system)


def check(name: str, tokenizer: Any, system: str | None) -> None:
    renderer = Renderer(tokenizer, system=system, date=DATE)
    # Prompts and earlier turns, as the template writes them.
    for state in (begin('Who wrote "Emma"? '), go_on(begin("Who?"), Action(f"I look it up. {CALL}"), "{'a': \"b\"}\n")):
        text = template_text(renderer, state, system)
        if len(state.turns) == 1 or renderer.prefix_preserving:
            assert list(renderer.ids(state)) == tokenizer.encode(text, add_special_tokens=False)
        assert PRINTS.get(name, "") in tokenizer.decode(renderer.ids(state))
        assert system is None or tokenizer.decode(renderer.ids(state)).count(system) >= 1

    # Actions: as the tokenizer encodes them, letter by letter, with thoughts, with the end of the turn.
    plain = renderer.text_ids(f"I look it up. {CALL}")
    letters = tuple(i for letter in f"So: {CALL}" for i in tokenizer.encode(letter, add_special_tokens=False))
    thoughts = renderer.text_ids(THINK + CALL)
    grows(renderer, {"plain": plain, "letters": letters, "thoughts": thoughts, "ended": (*plain, tokenizer.eos_token_id)})
    assert not renderer.drifts(plain, renderer.decode(plain))

    # The end of the turn is not written twice.
    ended = Action(renderer.decode(plain), (*plain, tokenizer.eos_token_id))
    once, twice = renderer.ids(go_on(begin("q"), Action(ended.text, plain))), renderer.ids(go_on(begin("q"), ended))
    assert twice.count(tokenizer.eos_token_id) <= max(once.count(tokenizer.eos_token_id), 1)

    # Reasoning is neither an action nor its end.
    stopped = Stopper(renderer.codec).test(SETTINGS, renderer.opens_reasoning)
    assert next(n for n in range(1, len(thoughts) + 1) if stopped(list(thoughts[:n]))) == len(thoughts)
    text = renderer.decode(thoughts)
    call = FORMAT.parse(text)
    assert isinstance(call, ToolCall) and text[call.start :].startswith(CALL)

    # No text becomes a control token.
    usual = [i for i in renderer.ids(go_on(begin("q"), Action("a"), "o")) if i in renderer.control_ids]
    for hostile in CONTROLS:
        ids = renderer.ids(go_on(begin(hostile), Action(hostile), hostile))
        assert [i for i in ids if i in renderer.control_ids] == usual


class Clock(datetime.datetime):
    """The clock that transformers asks, on the day that the renderer was told."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.datetime.fromisoformat(DATE)


def test_channels_of_gpt_oss_are_read_as_reasoning() -> None:
    renderer = Renderer(load("gpt-oss"))
    written = f"<|channel|>analysis<|message|>Or <answer>x</answer>?<|end|><|start|>assistant<|channel|>final<|message|>{CALL}"
    ids = renderer.tokenizer.encode(written, add_special_tokens=False)
    assert renderer.decode(ids) == f"<think>Or <answer>x</answer>?</think>{CALL}"
    grows(renderer, {"channels": tuple(ids)})
    assert renderer.end_ids == set(renderer.tokenizer.convert_tokens_to_ids(["<|return|>", "<|endoftext|>", "<|startoftext|>"]))


def test_qwen3_without_thinking_closes_the_block_in_its_prompt() -> None:
    tokenizer = load("qwen3")
    renderer = Renderer(tokenizer, template_options={"enable_thinking": False})
    assert tokenizer.decode(renderer.ids(begin("q"))).endswith("<think>\n\n</think>\n\n") and not renderer.opens_reasoning
    opening = Renderer(tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'"
    )
    assert Renderer(tokenizer).opens_reasoning and not opening.opens_reasoning
