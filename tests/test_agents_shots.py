"""Worked conversations before an episode: where chat templates and servers see them, and which lists of messages are none."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from test_agents_native import NATIVE
from test_agents_real_tokenizers import load

import tiny_lm
from states import begin, go_on
from swirl_env.agents.openai import OpenAIAgent
from swirl_env.agents.openai.messages import messages_of
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.episodes.formats import NativeFormat
from swirl_env.episodes.shots import for_server, read_shots
from swirl_env.episodes.transcript import initial_state
from swirl_env.errors import ConfigError, DataNotFound
from swirl_env.types import Action, Task
from tiny_lm import agent

TALK = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
CALL = {"name": "math_exp", "arguments": {"query": "2 + é"}}
CALLS = [
    {"role": "user", "content": "2 + é?"},
    {"role": "assistant", "content": "I add.", "tool_calls": [CALL]},
    {"role": "tool", "content": "4"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "answer", "arguments": {"answer": "4"}}]},
]
BOTH = json.dumps([*CALLS, *TALK])


@pytest.mark.parametrize("template", [tiny_lm.CHATML, tiny_lm.GEMMA, tiny_lm.TRIMMING])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_shots_read_as_the_template_writes_a_longer_conversation(template: str, system: str | None) -> None:
    renderer = Renderer(tiny_lm.tokenizer(template), system=system, shots=TALK)
    state = go_on(begin("Who?"), Action("I think so"), "Oslo")
    turns = [{"role": "assistant" if turn.role == "assistant" else "user", "content": turn.text} for turn in state.turns]
    whole = [dict(message) for message in [*TALK, *turns]]
    if system and renderer.takes_system:
        whole.insert(0, {"role": "system", "content": system})
    elif system:  # it opens the conversation, once
        whole[0]["content"] = f"{system}\n\n{whole[0]['content']}"
    expected = renderer.tokenizer.apply_chat_template(whole, tokenize=False, add_generation_prompt=True)
    assert renderer.tokenizer.decode(renderer.ids(state)) == expected
    assert renderer.prefix_preserving


def test_each_state_begins_with_the_one_before_it_behind_shots_too() -> None:
    policy = agent(shots=json.dumps(TALK))
    state = begin("Why")
    for _ in range(3):
        action = policy.act([state])[0]
        assert action.prompt_ids == policy.renderer.ids(state)
        state = go_on(state, action)
    assert policy.stats["prefix_breaks"] == 0


def test_shots_are_part_of_what_an_agent_is() -> None:
    assert agent().fingerprint != agent(shots=json.dumps(TALK)).fingerprint != agent(shots=BOTH).fingerprint
    first, second = (OpenAIAgent("m", "http://localhost:1/v1", shots=shots) for shots in (None, json.dumps(TALK)))
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3", "llama3.2"])
def test_calls_in_shots_are_written_as_the_template_writes_calls(name: str) -> None:
    tokenizer = load(name)
    renderer = Renderer(tokenizer, shots=read_shots(BOTH), date="2026-01-02").of(NATIVE)
    state = initial_state(Task("t", "3 + 3?"), "3 + 3?", NATIVE)
    text = tokenizer.decode(renderer.ids(state))
    before, question, after = text.partition("3 + 3?")
    assert question and "assistant" in after
    parsed = NativeFormat(NATIVE.tools, {}).parse(before[before.index("2 + é?") :])
    assert (parsed.tool, parsed.query) == ("math_exp", "2 + é")
    assert before.index("2 + é?") < before.index('"answer": "4"') < before.index("2 + 2?")
    assert ("I add." in before) is (name != "llama3.2")  # whose template leaves out what stands before a call


def test_a_server_gets_shots_between_system_message_and_episode() -> None:
    state = initial_state(Task("t", "3 + 3?"), "3 + 3?", NATIVE)
    messages = messages_of(state, "Be brief.", "tool", for_server(read_shots(BOTH), "user"))
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    call = messages[2]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"query": "2 + é"}
    assert messages[3]["tool_call_id"] == call["id"]
    assert messages[-1]["content"] == "3 + 3?"


WRITTEN = [TALK[0], {"role": "assistant", "content": "<math_exp>2 + 2</math_exp>"}, {"role": "tool", "content": "four"}, TALK[1]]


@pytest.mark.parametrize(
    ("template", "role"), [(tiny_lm.CHATML, "user"), (tiny_lm.GEMMA, "user"), (tiny_lm.TOOL_ROLE, "ipython")]
)
def test_results_of_calls_in_the_text_have_the_role_that_results_of_episodes_have(template: str, role: str) -> None:
    renderer = Renderer(tiny_lm.tokenizer(template), shots=read_shots(json.dumps(WRITTEN)))
    text = renderer.tokenizer.decode(renderer.ids(go_on(begin("q"), Action("a"), "five")))
    assert f"{role}\nfour" in text and f"{role}\nfive" in text
    assert for_server(read_shots(json.dumps(WRITTEN)), "user")[2] == {"role": "user", "content": "four"}


def test_shots_come_from_a_file(tmp_path) -> None:
    path = tmp_path / "shots.json"
    path.write_text(BOTH, encoding="utf-8")
    assert read_shots(str(path)) == read_shots(BOTH)
    with pytest.raises(DataNotFound, match="no file"):
        read_shots(str(tmp_path / "other.json"))


@pytest.mark.parametrize(
    "shots",
    [
        "Q: 2 + 2? A: 4",
        "{}",
        "[]",
        "[1]",
        "[" * 100_000,
        json.dumps(TALK[:1]),
        json.dumps(TALK[1:]),
        json.dumps([{"role": "system", "content": "x"}, *TALK]),
        json.dumps([*TALK, {"role": "tool", "content": "4"}]),
        json.dumps([TALK[0], {"role": "tool", "content": "4"}, TALK[1]]),
        json.dumps([*CALLS, CALLS[2], TALK[1]]),
        json.dumps(CALLS[:2]),
        json.dumps([*CALLS[:2], *TALK]),
        json.dumps([{**TALK[0], "tool_calls": [CALL]}, TALK[1]]),
        json.dumps([TALK[0], {**TALK[1], "tool_calls": [{"name": "math_exp", "arguments": "2"}]}]),
        json.dumps([TALK[0], {"role": "assistant", "content": None}]),
        json.dumps([TALK[0], {"role": "assistant", "text": "4"}]),
    ],
)
def test_what_is_no_conversation_is_refused_with_the_form_that_is_expected(shots: str) -> None:
    with pytest.raises(ConfigError, match=r"shots .*JSON list of messages"):
        read_shots(shots)


def test_bare_text_has_no_place_for_shots() -> None:
    with pytest.raises(ConfigError, match="write examples into the prompt"):
        Renderer(tiny_lm.tokenizer(), "plain", shots=TALK)


def test_results_of_shots_need_a_template_that_has_them() -> None:
    with pytest.raises(ConfigError, match="cannot render a conversation"):
        Renderer(tiny_lm.tokenizer(tiny_lm.GEMMA), shots=read_shots(json.dumps(CALLS)))
