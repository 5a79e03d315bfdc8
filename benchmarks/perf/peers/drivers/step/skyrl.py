"""Steps of SkyRL-gym's search environment, its request to a server replaced by a call in the process."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any


def build(options: dict[str, Any], look_up: Callable[[str], str]) -> dict[str, Callable[[int], list[int]]]:
    """Returns the measurements: single steps, and a step in each of several environments (times per episode)."""
    gym: Any = importlib.import_module("skyrl_gym")
    search: Any = importlib.import_module("skyrl_gym.tools.search")
    config: Any = importlib.import_module("omegaconf").DictConfig({"log_requests": False, "search_url": "http://x/", "topk": 1})
    config["timeout"] = 1

    def call(*, query: str, **unused: Any) -> tuple[dict[str, Any], None]:
        return {"result": [[{"document": {"contents": look_up(query)}}]]}, None

    search.call_search_api = call
    turns, slots = options["turns"], options["slots"]
    extras = {"reward_spec": {"ground_truth": {"target": "1"}}, "max_turns": turns + 1}
    actions = [f"I look it up. <search>number {i}</search>" for i in range(turns)]
    clock = time.perf_counter_ns

    def make() -> Any:
        env = gym.make("search", env_config=config, extras=extras)
        env.init([{"role": "user", "content": "What is number 1?"}])
        return env

    def step(n: int) -> list[int]:
        times = []
        for _ in range(n):
            env = make()
            for action in actions:
                start = clock()
                env.step(action)
                times.append(clock() - start)
        return times

    def vector(n: int) -> list[int]:
        times = []
        for _ in range(n):
            envs = [make() for _ in range(slots)]
            for action in actions:
                start = clock()
                for env in envs:
                    env.step(action)
                times.append((clock() - start) // slots)
        return times

    return {"step": step, "vector": vector}
