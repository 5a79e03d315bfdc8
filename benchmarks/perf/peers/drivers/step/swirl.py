"""Steps of this package's environment, each recorded in full and judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from swirl_env.env import ToolUseEnv
from swirl_env.types import Task, ToolResult
from swirl_env.vector import ToolVectorEnv


class LookUp:
    """A tool that calls the function which all environments call."""

    tag = "search"
    description = "looks something up."

    def __init__(self, look_up: Callable[[str], str]) -> None:
        self.look_up = look_up

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns one result per query."""
        return [ToolResult(self.look_up(query)) for query in queries]


def build(options: dict[str, Any], look_up: Callable[[str], str]) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurements: single steps, and steps of all slots at once (times per episode)."""
    turns, slots, judge = options["turns"], options["slots"], options["judge"]
    tasks = [Task(f"q{i}", f"What is number {i}?", str(i)) for i in range(512)]
    settings: dict[str, Any] = {"tools": [LookUp(look_up)], "judge": judge, "max_steps": turns + 1}
    env = ToolUseEnv(tasks, **settings)
    several = ToolVectorEnv(tasks, slots, autoreset_mode="Disabled", **settings)
    actions = [f"I look it up. <search>number {i}</search>" for i in range(turns)]
    clock = time.perf_counter_ns

    def step(n: int) -> list[int]:
        times = []
        for _ in range(n):
            env.reset()
            for action in actions:
                start = clock()
                env.step(action)
                times.append(clock() - start)
        return times

    def vector(n: int) -> list[int]:
        times = []
        for _ in range(n):
            several.reset()
            for action in actions:
                start = clock()
                several.step([action] * slots)
                times.append((clock() - start) // slots)
        return times

    return {"step": step, "vector": vector}
