"""Steps of an aviary environment like its own for GSM8K, with a look-up in place of the calculator."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from typing import Any


def build(options: dict[str, Any], look_up: Callable[[str], str]) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurements: single steps, and a step in each of several environments at once (times per episode)."""
    core: Any = importlib.import_module("aviary.core")

    class Question(core.Environment[None]):  # type: ignore[misc]
        async def reset(self) -> tuple[list[Any], list[Any]]:
            self.state = None
            self.tools = [core.Tool.from_function(self.search)]
            return [core.Message(content="What is number 1?")], self.tools

        async def step(self, action: Any) -> tuple[list[Any], float, bool, bool]:
            return await self.exec_tool_calls(action), 0.0, False, False

        def search(self, query: str) -> str:
            """Looks something up.

            Args:
                query: what to look up.
            """
            return look_up(query)

        def export_frame(self) -> Any:
            return core.Frame(state={})

    turns, slots = options["turns"], options["slots"]
    loop, clock = asyncio.new_event_loop(), time.perf_counter_ns

    def call(i: int) -> Any:
        return core.ToolRequestMessage(tool_calls=[core.ToolCall.from_name("search", query=f"number {i}")])

    async def steps(n: int) -> list[int]:
        times = []
        for _ in range(n):
            env = Question()
            await env.reset()
            for i in range(turns):
                action = call(i)
                start = clock()
                await env.step(action)
                times.append(clock() - start)
        return times

    async def at_once(n: int) -> list[int]:
        times = []
        for _ in range(n):
            envs = [Question() for _ in range(slots)]
            await asyncio.gather(*[env.reset() for env in envs])
            for i in range(turns):
                actions = [call(i) for _ in envs]
                start = clock()
                await asyncio.gather(*[env.step(action) for env, action in zip(envs, actions, strict=True)])
                times.append((clock() - start) // slots)
        return times

    return {"step": lambda n: loop.run_until_complete(steps(n)), "vector": lambda n: loop.run_until_complete(at_once(n))}
