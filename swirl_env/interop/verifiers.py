"""Tasks, tools and judges of swirl-env as a taskset of verifiers (0.4, its v1 interface), and so of prime-rl.

A package subclasses the three classes below (``swirl new-export verifiers my_env`` writes one). Tools run in one MCP server that
all rollouts share; it keeps the results of a rollout's calls in the rollout's state. When verifiers scores a trace, its messages
and these results are read as an episode of ours and judged step by step:

- ``trace.info["turn_rewards"]``: one entry per message of the model, None if its step has no reward;
- ``trace.info["swirl"]``: status, label, reward and critique of each step, and how the episode ended;
- the reward ``outcome``: 1 for a right answer, 0 for a wrong or missing one; the metric ``step_reward``: the mean over the steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, ClassVar

import msgspec
import verifiers.v1 as vf  # pyright: ignore[reportMissingImports] -- installed where this module is used
from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as ToolInfo

from swirl_env.env import find_task
from swirl_env.episodes.engine import Engine
from swirl_env.errors import SwirlError
from swirl_env.interop.conversation import (
    OVER,
    Call,
    Reading,
    Reply,
    RunCall,
    check_exportable,
    functions_of,
    idle_state,
    is_over,
    questions_of,
    read_conversation,
    reply_of,
    run_call,
)
from swirl_env.interop.summary import steps_of

_worker = ThreadPoolExecutor(1, "swirl-env")
"""Tools and judges run in one thread of their own, so that they never hold up the event loop of the rollouts."""


class SwirlState(vf.State):
    """What a rollout shares with the tool server."""

    runs: list[str] = []
    """The calls that were run, as JSON of `RunCall`."""


class SwirlData(vf.TaskData):
    """One question; the gold answer and the plan stay with the task source."""

    task_id: str


class SwirlTask(vf.Task[SwirlData, SwirlState]):
    """Rewards of one question."""

    @staticmethod
    def make_engine() -> Engine:
        """Returns the environment; called once per process."""
        raise NotImplementedError("Set make_engine, a function that returns an engine.")

    @vf.stop
    async def over(self, trace: vf.Trace) -> bool:
        """Whether the model has answered or used up its steps."""
        engine = engine_of(type(self).make_engine)
        return is_over(engine, _replies(engine, trace))

    @vf.reward(weight=1.0, priority=1)
    async def outcome(self, trace: vf.Trace) -> float:
        """Returns 1 for a right answer, 0 for a wrong or missing one, and records the verdicts of the steps.

        Raises:
            SwirlError: if the question has no gold answer, so that no outcome can be scored.
        """
        reading = await asyncio.get_running_loop().run_in_executor(_worker, self._read, trace)
        trace.info["turn_rewards"] = list(reading.turn_rewards)
        trace.info["swirl"] = {"ended": reading.trajectory.ended, "steps": steps_of(reading.trajectory)}
        rewards = [step.verdict.reward for step in reading.trajectory.steps if step.verdict.reward is not None]
        if rewards:
            trace.record_metric("step_reward", sum(rewards) / len(rewards))
        correct = reading.trajectory.outcome.correct
        if correct is None:
            raise SwirlError(
                f"Task {self.data.task_id!r} has no gold answer, so its outcome cannot be scored; this error keeps the rollout "
                f"out of training. Override `outcome` with a reward of your own, over trace.info['turn_rewards'] for one."
            )
        return float(correct)

    def _read(self, trace: vf.Trace) -> Reading:
        engine = engine_of(type(self).make_engine)
        runs = [msgspec.json.decode(text, type=RunCall) for text in trace.state.runs]
        return read_conversation(engine, find_task(engine.tasks, self.data.task_id), _replies(engine, trace), runs)


class SwirlToolset(vf.Toolset[vf.SharedToolsetConfig, SwirlState]):
    """The tools of an environment as one MCP server for all rollouts, under their own names."""

    TOOL_PREFIX = None

    @staticmethod
    def make_engine() -> Engine:
        """Returns the environment; called once, when the server starts."""
        raise NotImplementedError("Set make_engine, a function that returns an engine.")

    async def setup(self) -> None:
        """Builds the environment, so that the first call of a rollout does not wait for an index."""
        self.engine = check_exportable(engine_of(type(self).make_engine))
        self.idle = idle_state(self.engine)

    def register(self, mcp: MCPServer) -> None:
        """Registers the tools with their own schemas, which no Python signature states."""
        server: Any = mcp
        server.list_tools = self._list
        server.call_tool = self._with_state(self._call)

    async def _list(self) -> list[ToolInfo]:
        return [
            ToolInfo(name=one["name"], description=one["description"], input_schema=dict(one["parameters"]))
            for one in functions_of(self.engine)
        ]

    async def _call(self, name: str, arguments: dict[str, Any], context: Any = None) -> CallToolResult:
        if len(self.state.runs) >= self.engine.settings.max_steps:
            return _content(OVER)
        loop = asyncio.get_running_loop()
        text, run = await loop.run_in_executor(_worker, run_call, self.engine, self.idle, name, arguments)
        if run is not None:
            self.state.runs = [*self.state.runs, msgspec.json.encode(run).decode()]
        return _content(text)


class SwirlTasksetConfig(vf.TasksetConfig):
    """Options of the taskset."""

    size: int | None = None
    """How many questions, the first ones; None for all."""


class SwirlTaskset(vf.Taskset[SwirlTask, SwirlTasksetConfig]):
    """The questions of an environment."""

    task_class: ClassVar[type[SwirlTask]]
    toolset_class: ClassVar[type[SwirlToolset]]

    def load(self) -> Iterator[SwirlTask]:
        """Yields one task per question."""
        engine = check_exportable(engine_of(self.task_class.make_engine))
        for task, prompt in questions_of(engine, self.config.size):
            data = SwirlData(id=task.id, task_id=task.id, prompt=prompt)
            yield self.task_class(data, self.config.task)

    @classmethod
    def task_type(cls) -> type[vf.Task]:
        """Returns the class of the tasks."""
        return cls.task_class

    @classmethod
    def toolsets(cls, config: SwirlTasksetConfig) -> list[vf.Toolset]:
        """Returns the one tool server."""
        return [cls.toolset_class(vf.SharedToolsetConfig())]


@cache
def engine_of(make_engine: Callable[[], Engine]) -> Engine:
    """Returns the environment of a function, built once per process."""
    return make_engine()


def _replies(engine: Engine, trace: vf.Trace) -> list[Reply]:
    offered = {tool.name for tool in trace.tools}
    return [
        reply_of(
            engine,
            message.content or "",
            (Call(call.name, call.arguments) for call in message.tool_calls or ()),
            message.reasoning_content or "",
            offered,
        )
        for message in trace.assistant_messages
    ]


def _content(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])
