"""Steps of GEM's `ToolEnvWrapper` around an environment that asks a question; its `SyncVectorEnv` for several."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable
from typing import Any

_CALL = re.compile(r"<search>(.*?)</search>", re.DOTALL)
_core: Any = importlib.import_module("gem.core")
_tools: Any = importlib.import_module("gem.tools.base_tool")


class Question(_core.Env):  # type: ignore[misc]
    """Asks, and grades the answer."""

    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        """Begins an episode."""
        super().reset(seed=seed)
        return "What is number 1?", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Ends it with an answer."""
        return "", float("<answer>1</answer>" in action), True, False, {}


class LookUp(_tools.BaseTool):  # type: ignore[misc]
    """A tool that calls the function which all environments call."""

    tool_type = "search"

    def __init__(self, look_up: Callable[[str], str]) -> None:
        super().__init__()
        self.look_up, self.name = look_up, "search"

    def instruction_string(self) -> str:
        """Says how the tool is called."""
        return "Look up with <search>...</search>."

    def execute_action(self, action: str) -> tuple[bool, bool, str, str]:
        """Returns whether a call was found, whether it failed, what it gave, and the call."""
        match = _CALL.search(action)
        if match is None:
            return False, True, "", action
        return True, False, self.look_up(match[1].strip()), match[0]


def build(options: dict[str, Any], look_up: Callable[[str], str]) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurements: single steps, and steps of all slots at once (times per episode)."""
    wrapper: Any = importlib.import_module("gem.tools.tool_env_wrapper").ToolEnvWrapper
    vectors: Any = importlib.import_module("gem.vector.sync_vector_env").SyncVectorEnv
    turns, slots = options["turns"], options["slots"]

    def make() -> Any:
        return wrapper(Question(), [LookUp(look_up)], max_tool_uses=turns + 1)

    env, several = make(), vectors(["question"] * slots, [make] * slots)
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
