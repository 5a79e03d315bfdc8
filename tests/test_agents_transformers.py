# ruff: noqa: E402 (the tests are skipped if torch is absent, so imports follow that check)
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


import tiny_lm
from states import FORMAT, HOSTILE, begin, go_on
from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers import load as hf_load
from swirl_env.agents.transformers.renderer import Renderer
from swirl_env.agents.transformers.sampling import Request, Sampling, choose, generate
from swirl_env.episodes.transcript import next_state
from swirl_env.errors import ConfigError, DataNotFound
from swirl_env.store.codec import decode_trajectory, encode_trajectory
from swirl_env.types import Action, Malformed, Outcome, Step, ToolCall, Trajectory
from tiny_lm import agent

QUESTIONS = ("Who founded Acme Works?", "Oslo?", "How far is it from there to the place of which nobody speaks any more?", "Why")


def recomputed(model: Any, action: Action) -> list[float]:
    """Log-probabilities of an action's ids by one plain forward pass, without cache, padding or batch."""
    with torch.no_grad():
        logits = model(torch.tensor([action.prompt_ids + action.token_ids])).logits[0].double()
    logp = logits.log_softmax(-1)[len(action.prompt_ids) - 1 : -1]
    return logp.gather(-1, torch.tensor(action.token_ids)[:, None])[:, 0].tolist()


@pytest.fixture(scope="module")
def taught() -> Any:
    """A model that learned to write a call and to go on after it, in the chat template and after bare text."""
    tokenizer = tiny_lm.tokenizer()
    renderer = Renderer(tokenizer)
    lesson = [*tokenizer.encode(tiny_lm.LESSON), tokenizer.eos_token_id]
    return tiny_lm.taught([renderer.ids(begin(q)) for q in QUESTIONS], lesson, len(tokenizer))


# The contract on token ids


@pytest.mark.parametrize(("make", "template"), [(tiny_lm.llama, tiny_lm.CHATML), (tiny_lm.gemma2, tiny_lm.GEMMA)])
def test_states_grow_id_for_id(make: Any, template: str) -> None:
    policy = agent(make(len(tiny_lm.tokenizer(template))), template)
    states = [begin(q, seed) for seed, q in enumerate(QUESTIONS)]
    for _ in range(3):
        actions = policy.act(states)
        for state, action in zip(states, actions, strict=True):
            assert action.prompt_ids == policy.renderer.ids(state)
            assert policy.renderer.decode(action.token_ids) == action.text
            assert len(action.logprobs) == len(action.token_ids) > 0
            assert action.logprobs == pytest.approx(recomputed(policy.model, action), abs=1e-4)
            before = action.prompt_ids + action.token_ids
            assert policy.renderer.ids(go_on(state, action, HOSTILE))[: len(before)] == before
        states = [go_on(s, a, HOSTILE) for s, a in zip(states, actions, strict=True)]
    assert policy.stats["prefix_breaks"] == 0 and policy.stats["actions"] == 12
    # A random model writes what nobody would tokenise so: the stored ids win all the same, and it is counted.
    assert policy.stats["drift"] == sum(step.action.drift for s in states for step in s.steps) > 0


def test_spans_tell_where_the_sampled_ids_lie() -> None:
    policy = agent()
    state = begin("Oslo?")
    for _ in range(2):
        state = go_on(state, policy.act([state])[0])
    rendered = policy.renderer.render(state)
    assert [rendered.ids[a:b] for a, b in rendered.spans] == [step.action.token_ids for step in state.steps]
    assert rendered.sampled == (True, True)


def test_a_batch_is_n_singles() -> None:
    policy = agent(batch_size=3)
    states = [begin(q, seed) for seed, q in enumerate(QUESTIONS * 2)]
    for together, alone in zip(policy.act(states), [policy.act([s])[0] for s in states], strict=True):
        assert (together.text, together.token_ids) == (alone.text, alone.token_ids)
        assert together.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_sampling_hangs_on_the_seeds_alone() -> None:
    model = tiny_lm.llama(len(tiny_lm.tokenizer()))
    state = begin("Oslo?", 5)
    first = agent(model).act([state])[0]
    assert agent(model).act([begin("Why"), state])[1].token_ids == first.token_ids
    assert agent(model, seed=1).act([state])[0].token_ids != first.token_ids
    assert agent(model).act([begin("Oslo?", 6)])[0].token_ids != first.token_ids


def test_logprobs_are_the_models_own_at_any_temperature() -> None:
    for options in ({"temperature": 0.5}, {"top_p": 0.5}, {"temperature": 0}):
        policy = agent(**options)
        action = policy.act([begin("Oslo?")])[0]
        assert action.logprobs == pytest.approx(recomputed(policy.model, action), abs=1e-4)


@pytest.mark.parametrize("options", [{"temperature": 0.5}, {"temperature": 2.0, "top_p": 0.7}, {"temperature": 0}, {}])
def test_behaviour_logprobs_are_those_of_the_distribution_sampled_from(options: dict[str, float]) -> None:
    policy = agent(**options)
    action = policy.act([begin("Oslo?")])[0]
    with torch.no_grad():
        logits = policy.model(torch.tensor([action.prompt_ids + action.token_ids])).logits[0].double()
    temperature, expected = options.get("temperature", 1.0), []
    for row, token in zip(logits[len(action.prompt_ids) - 1 : -1], action.token_ids, strict=True):
        p = torch.zeros_like(row)
        if temperature:
            p = (row / temperature).softmax(-1)
            ranked = sorted(p.tolist(), reverse=True)
            most = next(k for k in range(1, len(ranked) + 1) if sum(ranked[:k]) >= options.get("top_p", 1.0) - 1e-12)
            p[p < ranked[most - 1]] = 0.0
        else:
            p[row.argmax()] = 1.0
        expected.append(math.log(p[token] / p.sum()))
    assert action.behaviour_logprobs == (() if not options else pytest.approx(expected, abs=1e-4))
    trajectory = Trajectory(begin("q").task, begin("q").settings, "q", (Step(action, Malformed("", 0, 0)),), "budget", Outcome())
    assert decode_trajectory(encode_trajectory(trajectory)) == trajectory


# Where an action ends


def test_an_action_ends_with_the_token_that_completes_a_tag(taught: Any) -> None:
    policy = agent(taught, temperature=0, max_new_tokens=60)
    for action in policy.act([begin(q) for q in QUESTIONS]):
        assert isinstance(FORMAT.parse(action.text), ToolCall)
        # This tokenizer has a token over the tag's end and the line break after it; it is kept whole.
        assert action.text == tiny_lm.LESSON.removesuffix("and more")
        assert "</search_query>" not in policy.renderer.decode(action.token_ids[:-1])


def test_later_states_hold_the_last_token_whole(taught: Any) -> None:
    policy = agent(taught, temperature=0, max_new_tokens=60)
    state = begin("Why")
    action = policy.act([state])[0]
    after = go_on(state, action)
    assert after.turns[1].text == action.text.rstrip("\n")
    assert policy.renderer.ids(after)[: len(action.prompt_ids + action.token_ids)] == action.prompt_ids + action.token_ids


def test_the_end_of_a_turn_is_kept_and_not_doubled(taught: Any) -> None:
    policy = agent(taught, temperature=0, max_new_tokens=60)
    end = policy.renderer.tokenizer.eos_token_id
    state = begin("Why", format="swirl_env.judges.asking:FreeText")
    action = policy.act([state])[0]
    assert action.text == tiny_lm.LESSON and action.token_ids[-1] == end and action.drift == 0
    ids = policy.renderer.ids(next_state(state, Step(action, Malformed("", 0, len(action.text)), None, "result")))
    before = action.prompt_ids + action.token_ids
    assert ids[: len(before)] == before
    # One end each for the question, the action and the reply.
    assert ids.count(end) == 3


def test_rows_stop_one_by_one(taught: Any) -> None:
    states = [begin("Why"), begin("Why", format="swirl_env.judges.asking:FreeText"), begin("Oslo?")]
    policy = agent(taught, temperature=0, max_new_tokens=60)
    texts = [action.text for action in policy.act(states)]
    assert texts[0] == texts[2] == tiny_lm.LESSON.removesuffix("and more") and texts[1] == tiny_lm.LESSON
    assert [policy.act([s])[0].text for s in states] == texts


def test_a_state_beyond_the_context_is_an_error_of_length() -> None:
    policy = agent(max_context=40)
    long, short = begin("word " * 50), begin("Why")
    refused, action = policy.act([long, short])
    assert (refused.text, refused.error, refused.token_ids) == ("", "length", ())
    assert action.error is None and len(action.prompt_ids + action.token_ids) <= 40
    assert policy.stats["too_long"] == 1
    assert agent(tiny_lm.llama(len(tiny_lm.tokenizer()), context=64)).max_context == 64


# Sampling


def test_choosing_inverts_the_cumulative_distribution() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 1000)) * 3
    draws = rng.random(64).astype(np.float32)
    tokens, logprobs, behaviour = choose(torch.tensor(logits, dtype=torch.float32), torch.tensor(draws))
    assert behaviour is logprobs
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = [int(np.searchsorted(np.cumsum(row), draw, side="right")) for row, draw in zip(p, draws, strict=True)]
    assert tokens.tolist() == expected
    assert logprobs.tolist() == pytest.approx([math.log(row[t]) for row, t in zip(p, expected, strict=True)], abs=1e-5)


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.2]),
        (0.5, 1.0, [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
        (1.0, 0.6, [5 / 8, 3 / 8, 0]),
        (0, 1, [1, 0, 0]),
    ],
)
def test_temperature_and_nucleus(temperature: float, top_p: float, expected: Sequence[float]) -> None:
    n = 2000
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(n, 3)
    tokens, logprobs, behaviour = choose(logits, (torch.arange(n) + 0.5) / n, Sampling(temperature, top_p))
    assert behaviour.exp().tolist() == pytest.approx([expected[t] for t in tokens.tolist()], abs=1e-6)
    shares = torch.bincount(tokens, minlength=3) / n
    assert shares.tolist() == pytest.approx(expected, abs=2e-3)
    assert logprobs.exp().unique().tolist() == pytest.approx(
        [p for p, e in zip([0.2, 0.3, 0.5], expected[::-1], strict=True) if e]
    )


def test_extreme_draws_give_possible_tokens() -> None:
    logits = torch.full((2, 700), -math.inf)
    logits[:, [3, 400]] = 0.0
    tokens, *_ = choose(logits, torch.tensor([0.0, 1.0 - 2**-24]))
    assert tokens.tolist() == [3, 400]


def test_rows_without_room_get_nothing() -> None:
    model = tiny_lm.llama(50)
    empty, full = generate(model, [Request([1], 0, lambda ids: False), Request([1, 2], 3, lambda ids: False)])
    assert (empty.ids, empty.logprobs) == ([], []) and len(full.ids) == 3
    assert generate(model, []) == []


# Loading


def test_senseless_options_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"batch_size": 0},
        {"template": "chaat"},
    ]
    for options in bad:
        with pytest.raises(ConfigError):
            agent(**options)
    with pytest.raises(ConfigError, match="tokenizer"):
        TransformersAgent(object())
    with pytest.raises(ConfigError, match="bfloat16"):
        hf_load.load_model("x", dtype="bf16")
    bare = tiny_lm.tokenizer.__wrapped__()
    bare.chat_template = None
    with pytest.raises(ConfigError, match="plain"):
        Renderer(bare)


def test_absent_models_are_named(tmp_path: Path) -> None:
    for model in ("package:no_such_package", "package:json", str(tmp_path / "no.gguf")):
        with pytest.raises(DataNotFound):
            hf_load.resolve(model)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name
def test_folders_and_adapters_load(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    tokenizer, model = tiny_lm.tokenizer(), tiny_lm.llama(len(tiny_lm.tokenizer()))
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    tuned = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    state = begin("Oslo?")
    plain = TransformersAgent(str(tmp_path / "base"), device="cpu", max_new_tokens=12)
    lora = TransformersAgent(str(tmp_path / "base"), device="cpu", max_new_tokens=12, adapter=str(tmp_path / "adapter"))
    action = lora.act([state])[0]
    assert action.logprobs == pytest.approx(recomputed(tuned.eval(), action), abs=1e-4)
    with tuned.disable_adapter():
        assert plain.act([state])[0].logprobs == pytest.approx(recomputed(tuned, plain.act([state])[0]), abs=1e-4)
    assert lora.fingerprint != plain.fingerprint
