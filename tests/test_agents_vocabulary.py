"""Ids that the model has and the tokenizer has not: never sampled, whatever the model thinks of them."""

# ruff: noqa: E402 (the tests are skipped if torch is absent, so imports follow that check)
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_lm
from states import begin, go_on
from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.sampling import Sampling, choose
from swirl_env.types import Action


def padded(extra: int, favour: float = 30.0) -> Any:
    """A model with more rows than the tokenizer has ids, which likes the rest best."""
    size = len(tiny_lm.tokenizer())
    model = tiny_lm.llama(size + extra)
    hook = torch.zeros(size + extra)
    hook[size:] = favour
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits + hook)
    return model


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"temperature": 0.5}, {"top_p": 0.3}, {"temperature": 2.0, "top_p": 0.9}]
)
@pytest.mark.parametrize("extra", [1, 54, 700])
def test_ids_beyond_the_tokenizer_are_never_sampled(options: dict[str, float], extra: int) -> None:
    words = tiny_lm.tokenizer()
    agent = TransformersAgent(padded(extra), tokenizer=words, max_new_tokens=12, **options)
    state = begin("Oslo?")
    action = agent.act([state])[0]
    assert len(action.token_ids) > 0 and max(action.token_ids) < len(words)
    # The log-probs are the model's own, as training scores them: what was barred counts in.
    with torch.no_grad():
        logits = agent.model(torch.tensor([action.prompt_ids + action.token_ids])).logits[0].double()
    logp = logits.log_softmax(-1)[len(action.prompt_ids) - 1 : -1]
    assert action.logprobs == pytest.approx(logp.gather(-1, torch.tensor(action.token_ids)[:, None])[:, 0].tolist(), abs=1e-3)
    before = action.prompt_ids + action.token_ids
    after = agent.renderer.render(go_on(state, action))
    assert after.ids[: len(before)] == before and after.sampled == (True,)


def test_a_hole_in_the_vocabulary_is_barred_too() -> None:
    words = tiny_lm.tokenizer.__wrapped__()
    names = words.get_vocab()
    hole = words.convert_tokens_to_ids("e")
    words.get_vocab = lambda: {name: i for name, i in names.items() if i != hole}
    agent = TransformersAgent(tiny_lm.Parrot(words, [hole]), tokenizer=words, max_new_tokens=4)
    assert hole not in agent.act([begin("q")])[0].token_ids
    assert not agent.renderer.owns(Action("e", (hole,)))


def test_a_model_without_padding_is_sampled_as_it_is() -> None:
    agent = tiny_lm.agent()
    agent.act([begin("q")])
    assert agent._barred_ids() is None


def test_barred_tokens_share_out_what_they_had() -> None:
    n = 3000
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log().expand(n, 4)
    barred = torch.tensor([True, False, False, True])
    tokens, logprobs, behaviour = choose(logits, (torch.arange(n) + 0.5) / n, Sampling(1.0, 1.0, barred))
    assert (torch.bincount(tokens, minlength=4) / n).tolist() == pytest.approx([0, 0.625, 0.375, 0], abs=2e-3)
    assert sorted(set(logprobs.exp().tolist())) == pytest.approx([0.15, 0.25]) and behaviour is logprobs
    assert choose(logits[:1], torch.zeros(1), Sampling(0, 1.0, barred))[0].tolist() == [1]
