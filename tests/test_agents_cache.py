"""What is read once, of rows that begin alike and of an episode's states: sampling is as if all were read again."""

# ruff: noqa: E402 (the tests are skipped if torch is absent, so imports follow that check)
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_lm
from fakes import SumTasks
from states import begin, go_on
from swirl_env.agents.transformers import TransformersAgent
from swirl_env.agents.transformers.prefix_cache import PrefixCache
from swirl_env.agents.transformers.sampling import Request, generate
from swirl_env.episodes.rollout import collect
from swirl_env.errors import ConfigError
from swirl_env.types import Trajectory
from swirl_env.vector import ToolVectorEnv


def forwards(model: Any) -> list[tuple[int, int]]:
    """Returns a list that grows by the shape of the ids of each forward pass of a model."""
    sizes: list[tuple[int, int]] = []
    forward = model.forward
    model.forward = lambda *args, **kwargs: sizes.append(tuple(kwargs["input_ids"].shape)) or forward(*args, **kwargs)
    return sizes


# What rows begin alike with


@pytest.mark.parametrize("make", [tiny_lm.llama, tiny_lm.gemma2])
def test_rows_that_begin_alike_are_read_as_if_alone(make: Any) -> None:
    model = make(300)
    rng = np.random.default_rng(1)
    opening = rng.integers(0, 300, 40).tolist()
    rows = [opening + rng.integers(0, 300, n).tolist() for n in (1, 30, 7)] + [[*opening, 5], opening]
    requests = [Request(tuple(row), 8, lambda ids: False, seed) for seed, row in enumerate(rows)]
    together = generate(model, requests)
    for request, generation in zip(requests, together, strict=True):
        alone = generate(model, [request])[0]
        assert generation.ids == alone.ids
        assert generation.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_shared_reading_is_done_once_and_not_with_windows() -> None:
    def read(model: Any) -> list[tuple[int, int]]:
        sizes: list[tuple[int, int]] = []
        forward = model.forward
        model.forward = lambda *args, **kwargs: sizes.append(tuple(kwargs["input_ids"].shape)) or forward(*args, **kwargs)
        generate(model, [Request((*range(40), i), 2, lambda ids: False) for i in range(3)])
        return sizes

    assert read(tiny_lm.llama(300)) == [(1, 40), (3, 1), (3, 1)]
    assert read(tiny_lm.gemma2(300)) == [(3, 41), (3, 1)]


@pytest.mark.parametrize("make", [tiny_lm.llama, tiny_lm.gemma2])
def test_samples_of_one_prompt_are_sampled_as_if_alone_from_one_reading(make: Any) -> None:
    model = make(300)
    one, two = tuple(range(7, 31)), tuple(range(90, 100))
    requests = [Request(row, 6, lambda ids: False, seed) for seed, row in enumerate([one, two, one, one, two])]
    alone = [generate(model, [request])[0] for request in requests]
    sizes: list[tuple[int, int]] = []
    forward = model.forward
    model.forward = lambda *args, **kwargs: sizes.append(tuple(kwargs["input_ids"].shape)) or forward(*args, **kwargs)
    together = generate(model, requests)
    assert sizes == [(2, 24)] + [(5, 1)] * 5
    assert [g.ids for g in together] == [g.ids for g in alone]
    assert len({tuple(together[i].ids) for i in (0, 2, 3)}) == 3  # seeds tell the samples apart
    for mine, other in zip(together, alone, strict=True):
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-5)


# From one step to the next


def policy(make: Any = tiny_lm.llama, **options: Any) -> TransformersAgent:
    return tiny_lm.agent(make(len(tiny_lm.tokenizer())), max_new_tokens=6, **options)


def episodes(agent: Any, slots: int = 5, samples: int = 2, **options: Any) -> list[Trajectory]:
    """More episodes than slots, so that fresh ones begin next to others; a random model uses up all steps."""
    venv = ToolVectorEnv(SumTasks(), slots, tools=["calculator"], judge=None, max_steps=4, **options)
    return list(collect(agent, venv.engine, 12, venv.num_envs, seed=1, samples=samples))


def same(ours: Sequence[Trajectory], theirs: Sequence[Trajectory]) -> None:
    assert [t.key for t in ours] == [t.key for t in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for a, b in zip(one.steps, other.steps, strict=True):
            assert a.action.token_ids == b.action.token_ids
            assert a.action.prompt_ids == b.action.prompt_ids
            assert a.action.logprobs == pytest.approx(b.action.logprobs, abs=1e-4)


@pytest.mark.parametrize(
    ("agent", "env"),
    [
        ({}, {}),
        ({"batch_size": 2}, {}),
        ({"prefix_cache": 700}, {}),
        ({"template": tiny_lm.GEMMA}, {}),
        ({"template": tiny_lm.THINK_STRIPPING}, {"history": "calls"}),
        ({"make": tiny_lm.gemma2}, {"prompt": "question"}),  # full prompts take eager attention half a minute
    ],
    ids=["whole", "in batches", "little room", "another template", "calls only", "windows"],
)
def test_episodes_are_those_of_an_agent_that_reads_every_state_whole(agent: dict[str, Any], env: dict[str, Any]) -> None:
    same(episodes(policy(**agent), **env), episodes(policy(**{**agent, "prefix_cache": 0}), **env))


def test_only_what_is_new_is_read() -> None:
    agent, state, known = policy(), begin("How far is it? " * 9), 0
    sizes = forwards(agent.model)
    with agent.prefix_caching():
        for _ in range(3):
            (action,) = agent.act([state])
            read, sizes[:] = sizes[0][1], []
            # What was not read yet: the last id sampled, and what the template and the environment wrote since.
            assert read == len(action.prompt_ids) - known
            known = len(action.prompt_ids) + len(action.token_ids) - 1
            state = go_on(state, action, "not so far")
    agent.act([state])
    assert sizes[0] == (1, len(agent.renderer.ids(state))), "nothing is kept if no steps follow one another"


def test_a_new_episode_reads_what_no_other_begins_with() -> None:
    agent, opening = policy(), "Use the tools, and answer in the end. " * 3
    sizes = forwards(agent.model)
    with agent.prefix_caching():
        agent.act([begin(opening + "Where?")])
        sizes.clear()
        agent.act([begin(opening + "When?")])
    assert sizes[0][1] < 40 < len(agent.renderer.ids(begin(opening)))


def test_rows_with_alike_many_new_ids_are_read_together_and_drawn_as_if_alone() -> None:
    model = tiny_lm.llama(300)
    rng = np.random.default_rng(2)
    opening = rng.integers(0, 300, 50).tolist()

    def requests(news: Sequence[int], repeats: int = 1) -> list[Request]:
        rows = [(*opening, *rng.integers(0, 300, n).tolist()) for n in news]
        return [Request(row, 5 + seed % 3, lambda ids: False, seed) for seed, row in enumerate(rows * repeats)]

    prefixes = PrefixCache(10_000)
    prefixes.start_call(model)
    generate(model, requests([3]), prefixes=prefixes)
    prefixes.start_call(model)
    later = requests([200, 10, 90, 400, 120, 20], repeats=2)
    alone = [generate(model, [request])[0] for request in later]
    sizes = forwards(model)
    together = generate(model, later, prefixes=prefixes)
    assert sizes[:3] == [(4, 120), (2, 400), (12, 1)]
    for mine, other in zip(together, alone, strict=True):
        assert mine.ids == other.ids and mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    goes_on = [Request((*request.ids, *drawn.ids), 4, lambda ids: False) for request, drawn in zip(later, together, strict=True)]
    prefixes.start_call(model)
    sizes.clear()
    generate(model, goes_on, prefixes=prefixes)
    assert sizes[0] == (12, 1), "what groups have read is kept for the next call"


@pytest.mark.parametrize("change", ["optimizer", "load"])
def test_states_are_read_again_after_the_weights_have_changed(change: str) -> None:
    agent, state = policy(), begin("How far is it from here?")
    other = tiny_lm.llama(len(tiny_lm.tokenizer()), seed=5)
    with agent.prefix_caching():
        (action,) = agent.act([state])
        state = go_on(state, action)
        if change == "load":
            agent.model.load_state_dict(other.state_dict())
        else:
            agent.model.requires_grad_(True)
            agent.model(torch.tensor([[1, 2, 3]])).logits.square().sum().backward()
            torch.optim.AdamW(agent.model.parameters(), lr=0.05).step()
        (later,) = agent.act([state])
    (alone,) = agent.act([state])
    assert later.token_ids == alone.token_ids and later.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_no_more_is_kept_than_there_is_room_for_and_nothing_afterwards(batch_size: int) -> None:
    agent = policy(prefix_cache=150, batch_size=batch_size)
    sizes: list[int] = []
    keep = agent._prefixes.keep

    def counted(*args: Any) -> None:
        keep(*args)
        sizes.append(sum(len(row.ids) for row in (*agent._prefixes._last, *agent._prefixes._next)))
        assert sizes[-1] == agent._prefixes.size

    agent._prefixes.keep = counted  # type: ignore[method-assign]
    venv = ToolVectorEnv(SumTasks(), 3, tools=["calculator"], judge=None, max_steps=3, prompt="question")
    running = collect(agent, venv.engine, 6, venv.num_envs)
    next(running)
    assert max(sizes) <= 150 and any(sizes)
    running.close()
    assert not agent._prefixes._next and not agent._prefixes._last, "a run that is abandoned frees it too"
    with pytest.raises(ConfigError, match="prefix_cache is a number of tokens"):
        policy(prefix_cache=-1)


def test_rows_that_were_continued_make_room_for_those_that_continue_them() -> None:
    agent = policy(prefix_cache=300)
    states = [begin(f"How far is it to {town}? " * 3, seed) for seed, town in enumerate(("Oslo", "Rome"))]
    with agent.prefix_caching():
        for _ in range(3):
            actions = agent.act(states)
            states = [go_on(state, action, "no") for state, action in zip(states, actions, strict=True)]
            assert len(agent._prefixes._next) == 2, "the rows of the last call do not keep those of this one out"
            assert agent._prefixes.size <= 300 < 2 * sum(map(len, map(agent.renderer.ids, states)))


def test_the_kept_row_that_shares_most_is_found() -> None:
    rng = np.random.default_rng(0)
    model = tiny_lm.llama(300)
    kept = PrefixCache(10_000)
    rows = [tuple(rng.integers(0, 2, rng.integers(1, 12)).tolist()) for _ in range(40)]
    generate(model, [Request(row, 1, lambda ids: True) for row in rows], prefixes=kept)
    kept.start_call(model)  # its first call was not announced, so these weights are news
    assert kept.lookup(rows, 1) is None
    generate(model, [Request(row, 1, lambda ids: True) for row in rows], prefixes=kept)
    kept.start_call(model)
    for _ in range(200):
        row = tuple(rng.integers(0, 2, rng.integers(1, 14)).tolist())
        best = max(n for other in rows for n in range(len(row)) if row[:n] == other[:n])
        cached = kept.lookup([row], 1)
        assert (cached[1] if cached else [0]) == [best]
