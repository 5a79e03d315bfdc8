"""Models with windows and running states: a batch is its rows alone, or the model is refused when it is loaded."""

# ruff: noqa: E402 (the tests are skipped if torch is absent, so imports follow that check)
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny_lm
from states import begin, go_on
from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.sampling import Request, generate
from swirl_env.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def never(ids: list[int]) -> bool:
    return False


def plain_logprobs(model: Any, request: Request, ids: list[int]) -> list[float]:
    """What one pass over all ids says, without cache, padding or mask."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*request.ids, *ids]])).logits[0, len(request.ids) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("family", sorted(tiny_lm.FAMILIES))
def test_a_batch_of_any_cache_is_its_rows_alone(family: str) -> None:
    model = tiny_lm.family(family)
    rng = np.random.default_rng(0)
    # Lengths apart, a row twice (samples of one prompt), and limits apart: rows are padded, spread and leave one by one.
    rows = [tuple(rng.integers(0, 300, n).tolist()) for n in (40, 7, 23, 31)]
    requests = [Request(row, n, never, seed) for seed, (row, n) in enumerate(zip([*rows, rows[1]], (8, 3, 8, 1, 5), strict=True))]
    for request, generation in zip(requests, generate(model, requests), strict=True):
        alone = generate(model, [request])[0]
        assert generation.ids == alone.ids
        assert generation.logprobs == pytest.approx(alone.logprobs, abs=1e-3)
        assert generation.logprobs == pytest.approx(plain_logprobs(model, request, generation.ids), abs=1e-3)


@pytest.mark.parametrize("family", ["qwen3_5", "mamba2"])
def test_episodes_of_a_recurrent_model_go_on_from_the_ids_sampled(family: str) -> None:
    agent = tiny_lm.agent(tiny_lm.family(family, len(tiny_lm.tokenizer())), max_new_tokens=6, batch_size=4)
    states = [begin(question, seed) for seed, question in enumerate(("Oslo?", "How far is it from here to there?", "Why"))]
    with agent.prefix_caching():
        for _ in range(2):
            actions = agent.act(states)
            for state, action in zip(states, actions, strict=True):
                request = Request(action.prompt_ids, 6, never)
                assert action.logprobs == pytest.approx(plain_logprobs(agent.model, request, list(action.token_ids)), abs=1e-3)
                before = action.prompt_ids + action.token_ids
                assert agent.renderer.ids(go_on(state, action))[: len(before)] == before
            states = [go_on(state, action) for state, action in zip(states, actions, strict=True)]


def mamba() -> Any:
    """Its cache takes padding in."""
    config = transformers.MambaConfig(vocab_size=310, hidden_size=32, num_hidden_layers=2, state_size=16)
    return tiny_lm.ready(transformers.MambaForCausalLM(config))


def rwkv() -> Any:
    """Its state is under a name of its own."""
    config = transformers.RwkvConfig(vocab_size=310, hidden_size=32, num_hidden_layers=2, context_length=64)
    return tiny_lm.ready(transformers.RwkvForCausalLM(config))


def forgetful() -> Any:
    """A model that always hands on the cache of its first rows, as if rows could not be selected."""
    model = tiny_lm.family("lfm2", 310)
    model._forward = model.forward

    def without_selection(**inputs: Any) -> Any:
        out = model._forward(**inputs)
        for name in ("cache", "past_key_values"):
            if getattr(out, name, None) is not None:
                getattr(out, name).reorder_cache = lambda rows: None
        return out

    model.forward = without_selection
    return model


@pytest.mark.parametrize("make", [mamba, forgetful])
def test_a_cache_that_cannot_drop_rows_is_refused_at_load_naming_batch_size(make: Callable[[], Any]) -> None:
    model, words = make(), tiny_lm.tokenizer()
    with pytest.raises(ConfigError, match=r"cannot generate several rows at once as it does each alone: set batch_size=1\."):
        TransformersAgent(model, tokenizer=words)
    single = TransformersAgent(model, tokenizer=words, batch_size=1, max_new_tokens=5)
    for action in single.act([begin("Oslo?"), begin("Why not?")]):
        expected = plain_logprobs(model, Request(action.prompt_ids, 5, never), list(action.token_ids))
        assert action.logprobs == pytest.approx(expected, abs=1e-3)


def test_a_state_that_cannot_be_carried_on_is_refused_at_any_batch_size() -> None:
    model = rwkv()
    for batch_size in (1, 4):
        with pytest.raises(ConfigError, match="RwkvForCausalLM keeps its state in a way"):
            TransformersAgent(model, tokenizer=tiny_lm.tokenizer(), batch_size=batch_size)


def test_ordinary_attention_is_not_tried() -> None:
    model = tiny_lm.llama(len(tiny_lm.tokenizer()))
    model.forward = lambda **inputs: pytest.fail("a forward pass at construction")
    tiny_lm.agent(model)
