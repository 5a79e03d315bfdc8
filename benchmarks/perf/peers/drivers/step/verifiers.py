"""Calls of a tool of verifiers' tool server in the process; in use there is an HTTP request around each."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from typing import Any


def build(options: dict[str, Any], look_up: Callable[[str], str]) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurements: single calls, and several at once (times per call)."""
    verifiers: Any = importlib.import_module("verifiers.v1")
    decorators: Any = importlib.import_module("verifiers.v1.utils.decorators")
    server: Any = importlib.import_module("mcp.server.mcpserver").MCPServer("tools")
    configs: Any = verifiers.ToolsetConfig

    class Tools(verifiers.Toolset[configs, verifiers.State]):  # type: ignore[misc]
        @decorators.tool  # type: ignore[untyped-decorator]
        def search(self, query: str) -> str:
            """Looks something up."""
            return look_up(query)

    Tools(configs()).register(server)
    turns, slots = options["turns"], options["slots"]
    loop, clock = asyncio.new_event_loop(), time.perf_counter_ns
    arguments = [{"query": f"number {i}"} for i in range(turns)]

    async def steps(n: int) -> list[int]:
        times = []
        for _ in range(n):
            for argument in arguments:
                start = clock()
                await server.call_tool("search", argument)
                times.append(clock() - start)
        return times

    async def at_once(n: int) -> list[int]:
        times = []
        for _ in range(n):
            for argument in arguments:
                start = clock()
                await asyncio.gather(*[server.call_tool("search", argument) for _ in range(slots)])
                times.append((clock() - start) // slots)
        return times

    return {"step": lambda n: loop.run_until_complete(steps(n)), "vector": lambda n: loop.run_until_complete(at_once(n))}
