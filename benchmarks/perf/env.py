"""What the environment costs over its tool: recorded episodes of a noisy expert on Atlas, played again."""

from __future__ import annotations

import copy
import itertools
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import msgspec
import numpy as np

from swirl_env.benchmarks.perf.timing import Report, Row, row, settle
from swirl_env.env import ToolUseEnv, build_engine
from swirl_env.episodes.rollout import collect
from swirl_env.registry import make_agent, make_tasks, make_tool
from swirl_env.types import SEARCH, Task, ToolCall, ToolResult, Trajectory
from swirl_env.vector import ToolVectorEnv

SLOTS = 64
ENV_BAR_US = 15.0
VECTOR_BAR_US = 8.0


class RecordedSearch:
    """Builds the recorded result of each query again, as a real tool does: passages that a judge reads are warm in memory."""

    tag = SEARCH
    description = "finds passages by keywords."

    def __init__(self, results: dict[str, ToolResult]) -> None:
        self.results = {query: msgspec.json.encode(result) for query, result in results.items()}
        self.decoder = msgspec.json.Decoder(ToolResult)

    def run(self, queries: Sequence[str]) -> list[ToolResult]:
        """Returns one result per query."""
        return [self.decoder.decode(self.results[query]) for query in queries]


class Recorded:
    """A fixed list of tasks, with what a policy wrote on each of them and what its searches found."""

    corpus = None
    split = "train"
    tools: tuple[str, ...] = ()

    def __init__(self, trajectories: Sequence[Trajectory]) -> None:
        self.tasks = [t.task for t in trajectories]
        self.actions = {t.task.id: [step.action.text for step in t.steps] for t in trajectories}
        self.max_steps = trajectories[0].settings.max_steps
        self.tool = RecordedSearch(
            {s.call.query: s.result for t in trajectories for s in t.steps if isinstance(s.call, ToolCall) and s.result}
        )
        self._at = {task.id: i for i, task in enumerate(self.tasks)}

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int, /) -> Task:
        return copy.copy(self.tasks[index])

    def find(self, task_id: str) -> Task | None:
        """Returns the task of an id, a fresh object each time as from a source of generated tasks: judges know nothing of it."""
        index = self._at.get(task_id)
        return None if index is None else self[index]


class BareEnv(gym.Env[str, str]):
    """The least that an environment of this kind does, as one would write it for a single experiment."""

    observation_space = gym.spaces.Text(1)
    action_space = gym.spaces.Text(1)
    _form = re.compile(r"<(search_query|answer)>(.*?)</\1>", re.DOTALL)

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begins the episode of ``options["task_id"]``."""
        task = self.recorded.find((options or {})["task_id"])
        assert task is not None
        self.task, self.text, self.taken = task, task.question, 0
        return self.text, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Reads the action, calls the tool, adds to the text; a reward at the end alone."""
        self.taken += 1
        last = self.taken >= self.recorded.max_steps
        match = self._form.search(action)
        if match is None:
            return "Write a query or an answer.", 0.0, False, last, {"call": None}
        kind, content = match[1], match[2].strip()
        if kind == "answer":
            return "", float(content.lower() == (self.task.answer or "").lower()), True, False, {"call": None}
        (result,) = self.recorded.tool.run([content])
        observation = f"{content} -> {result.text}"
        self.text += action + observation
        return observation, 0.0, False, last, {"call": ToolCall(kind, content, *match.span())}


def episodes(n: int, noise: float = 0.2) -> list[Trajectory]:
    """Returns n judged episodes of the noisy expert on Atlas, with a real search over its passages."""
    tasks = make_tasks("atlas", size=n)
    with tempfile.TemporaryDirectory() as cache:
        search = make_tool("search", corpus=tasks.corpus, cache_dir=cache)
        engine = build_engine(tasks, tools=[search], judge="rules")
        return list(collect(make_agent("scripted", noise=noise), engine, n, SLOTS))


def env_step(size: int = 3_000) -> Report:
    """Times single steps of one environment, each episode played once."""
    played = episodes(size)
    recorded = Recorded(played)
    options: dict[str, Any] = {"tasks": recorded, "tools": [recorded.tool], "judge": "rules"}
    steps, tool, judged = _single(ToolUseEnv(**options), recorded)
    wrapped, _, _ = _single(gym.make("swirl_env/ToolUse-v0", **options), recorded)
    bare, _, _ = _single(BareEnv(recorded), recorded)
    null, _, _ = _single(ToolUseEnv(**{**options, "judge": None}), recorded)
    over = row("step over the tool", np.subtract(steps, tool), baseline="bare environment", ratio=_ratio(bare, steps))
    chars = [sum(len(s.observation) + len(s.action.text) for s in t.steps) + len(t.prompt) for t in played]
    return Report(
        "env_step",
        f"{size:,} Atlas episodes, {len(steps):,} steps, {np.mean(judged):.2f} GOOD, "
        f"final states of {np.median(chars):,.0f} characters (median)",
        (
            row("tool alone", tool),
            row("bare environment: no judge, no record, nothing escaped", bare),
            row("env.step, no judge", null, baseline="bare environment", ratio=_ratio(bare, null)),
            row("env.step, rules judge, full record", steps, baseline="bare environment", ratio=_ratio(bare, steps)),
            row("the same through gym.make's wrappers", wrapped),
            _barred(over, ENV_BAR_US),
        ),
    )


def vector_step(size: int = 6_400) -> Report:
    """Times steps of 64 episodes in lockstep, per action, next to 64 single environments in Gymnasium's own vector."""
    recorded = Recorded(episodes(size))
    options: dict[str, Any] = {"tools": [recorded.tool], "judge": "rules"}
    steps, tool = _lockstep(ToolVectorEnv(recorded, SLOTS, autoreset_mode="Disabled", **options), recorded, 3 * size)
    kwargs: dict[str, Any] = {"num_envs": SLOTS, "vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": "Disabled"}}
    single, _ = _lockstep(gym.make_vec("swirl_env/ToolUse-v0", tasks=recorded, **kwargs, **options), recorded, size)
    resets, _ = _with_resets(ToolVectorEnv(recorded, SLOTS, **options), recorded, 3 * size)
    over = row("ToolVectorEnv over the tool", np.subtract(steps, tool), baseline="SyncVectorEnv", ratio=_ratio(single, steps))
    return Report(
        "vector_step",
        f"{SLOTS} Atlas episodes at a time, {size:,} in all; times per action",
        (
            row("tool alone", tool),
            row("SyncVectorEnv.step", single),
            row("ToolVectorEnv.step", steps, baseline="SyncVectorEnv", ratio=_ratio(single, steps)),
            row("the same with autoreset in the next step", resets),
            _barred(over, VECTOR_BAR_US),
        ),
    )


def _barred(match: Row, bar: float) -> Row:
    return msgspec.structs.replace(match, bar=f"p50 < {bar:g} us", met=match.p50 < bar)


def _ratio(baseline: Sequence[float], times: Sequence[float]) -> float:
    return float(np.median(baseline) / np.median(times))


def _single(env: gym.Env[Any, Any], recorded: Recorded) -> tuple[list[int], list[int], list[float]]:
    """Plays every episode; returns nanoseconds per step, nanoseconds of its tool call alone, and rewards."""
    clock = time.perf_counter_ns
    steps, tools, rewards = [], [], []
    settle()
    for task in recorded.tasks:
        env.reset(options={"task_id": task.id})
        for action in recorded.actions[task.id]:
            start = clock()
            _, reward, terminated, truncated, info = env.step(action)
            steps.append(clock() - start)
            rewards.append(float(reward))
            query = [info["call"].query] if isinstance(info["call"], ToolCall) else []
            start = clock()
            recorded.tool.run(query)
            tools.append(clock() - start)
        assert terminated or truncated, "a recorded episode ends where it ended"
    return steps, tools, rewards


def _lockstep(venv: gym.vector.VectorEnv[Any, Any, Any], recorded: Recorded, actions: int) -> tuple[list[float], list[float]]:
    """Plays on, with a fresh episode (off the clock) for each that ends; returns nanoseconds an action, and of the tool alone."""
    clock = time.perf_counter_ns
    steps: list[float] = []
    tools: list[float] = []
    waiting = itertools.cycle(recorded.tasks)
    playing = [""] * SLOTS
    over = np.ones(SLOTS, dtype=np.bool_)
    scripts: list[Iterator[str]] = [iter(())] * SLOTS
    venv.reset(seed=0)
    settle()
    while len(steps) * SLOTS < actions:
        for i in np.flatnonzero(over).tolist():
            playing[i] = next(waiting).id
            scripts[i] = iter(recorded.actions[playing[i]])
        _restart(venv, playing, over)
        chosen = tuple(next(script) for script in scripts)
        start = clock()
        _, _, terminated, truncated, infos = venv.step(chosen)
        steps.append((clock() - start) / SLOTS)
        over = terminated | truncated
        queries = [call.query for call in infos["call"] if isinstance(call, ToolCall)]
        start = clock()
        recorded.tool.run(queries)
        tools.append((clock() - start) / SLOTS)
    return steps, tools


def _restart(venv: gym.vector.VectorEnv[Any, Any, Any], playing: Sequence[str], over: np.ndarray[Any, Any]) -> None:
    """Begins the named episodes where the last one is over."""
    if not over.any():
        return
    venv.reset(options={"task_id": list(playing), "reset_mask": over} if _is_ours(venv) else {"reset_mask": over.copy()})
    if not _is_ours(venv):
        for i in np.flatnonzero(over).tolist():
            venv.unwrapped.envs[i].reset(options={"task_id": playing[i]})  # type: ignore[attr-defined]


def _is_ours(venv: gym.vector.VectorEnv[Any, Any, Any]) -> bool:
    return isinstance(venv.unwrapped, ToolVectorEnv)


def _with_resets(venv: ToolVectorEnv, recorded: Recorded, actions: int) -> tuple[list[float], int]:
    """Plays on with autoreset; returns nanoseconds an action taken, resets included."""
    clock = time.perf_counter_ns
    steps, taken = [], 0
    venv.reset(seed=0)
    over = np.zeros(venv.num_envs, dtype=np.bool_)
    settle()
    while taken < actions:
        chosen = [recorded.actions[s.task.id][len(s.steps)] if not o else "" for s, o in zip(venv.states, over, strict=True)]
        live = int((~over).sum())
        start = clock()
        _, _, terminated, truncated, _ = venv.step(chosen)
        if live:
            steps.append((clock() - start) / live)
        taken += live
        over = terminated | truncated
    return steps, taken
