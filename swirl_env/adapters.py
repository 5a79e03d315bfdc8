"""Plain functions as tools, judges, agents and graders, and lists of tasks as task sources."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from swirl_env.errors import ConfigError, PluginError
from swirl_env.function_tool import FunctionTool, called, refuse_unfinished
from swirl_env.types import Action, State, SubTrajectory, Task, Verdict

MAX_STEPS = 5
"""Step budget of a list of tasks unless told otherwise."""


class FunctionAgent:
    """An agent that asks a function for each action.

    Args:
        function: takes a `State` and returns an `Action`, or its text.
    """

    def __init__(self, function: Callable[[State], Action | str]) -> None:
        refuse_unfinished(function, "an agent")
        self.function = function

    def act(self, states: Sequence[State]) -> list[Action]:
        """Returns one action per state."""
        actions = [self.function(state) for state in states]
        return [Action(action) if isinstance(action, str) else action for action in actions]


class AsyncFunctionAgent:
    """An agent that asks an async function for each action, many at once.

    Args:
        function: takes a `State` and returns an `Action`, or its text.
    """

    def __init__(self, function: Callable[[State], Awaitable[Action | str]]) -> None:
        self.function = function

    async def act_one(self, state: State) -> Action:
        """Returns the action for one state."""
        action = await self.function(state)
        return Action(action) if isinstance(action, str) else action

    async def aclose(self) -> None:
        """Does nothing: what the function opens is its own."""


class FunctionJudge:
    """A judge that asks a function for each step.

    Args:
        function: takes a `SubTrajectory` and returns a `Verdict`, a reward, or None if it has no opinion.
    """

    def __init__(self, function: Callable[[SubTrajectory], Verdict | float | None]) -> None:
        refuse_unfinished(function, "a judge")
        self.function = function
        self.name = name_of(function)

    def judge(self, steps: Sequence[SubTrajectory]) -> list[Verdict]:
        """Returns one verdict per step."""
        return [self._verdict(self.function(step)) for step in steps]

    def _verdict(self, value: Verdict | float | None) -> Verdict:
        if isinstance(value, Verdict):
            return value
        return Verdict.unscored(judge=self.name) if value is None else Verdict("scored", value, None, "", self.name)


class FunctionGrader:
    """A grader that asks a function about each answer.

    Args:
        function: takes a `Task` and an answer; returns whether the answer is right, None if that cannot be decided.
    """

    def __init__(self, function: Callable[[Task, str], bool | None]) -> None:
        refuse_unfinished(function, "a grader")
        self.function = function

    def grade(self, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
        """Returns for each answer whether it is right."""
        return [self.function(task, answer) for task, answer in zip(tasks, answers, strict=True)]


class TaskList:
    """A list of tasks as a task source, without a corpus and without tools of its own.

    Args:
        tasks: the tasks; each needs an id of its own.
    """

    corpus = None
    split = "list"
    tools: tuple[str, ...] = ()
    max_steps = MAX_STEPS

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = list(tasks)
        self._at: dict[str, int] = {}
        for i, task in enumerate(self._tasks):
            if not isinstance(task, Task):
                raise PluginError(f"Expected a task, got {task!r:.60} as item {i} of the list; build swirl_env.types.Task.")
            if self._at.setdefault(task.id, i) != i:
                raise ConfigError(f"Every task needs an id of its own; items {self._at[task.id]} and {i} are both {task.id!r}.")

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index: int, /) -> Task:
        if not 0 <= index < len(self._tasks):
            raise IndexError(index)
        return self._tasks[index]

    def find(self, task_id: str, /) -> Task | None:
        """Returns the task with an id, None if there is none."""
        index = self._at.get(task_id)
        return None if index is None else self._tasks[index]


def _function_agent(function: Callable[[State], Any]) -> FunctionAgent | AsyncFunctionAgent:
    return AsyncFunctionAgent(function) if inspect.iscoroutinefunction(called(function)) else FunctionAgent(function)


_OF_FUNCTIONS: Mapping[str, tuple[str, Callable[[Callable[..., Any]], Any]]] = {
    "tool": ("run", FunctionTool),
    "judge": ("judge", FunctionJudge),
    "agent": ("act", _function_agent),
    "grader": ("grade", FunctionGrader),
}
"""Kind -> the method that tells a plugin from a function, and the plugin that a function becomes."""


def adapted(kind: str, plugin: Any) -> Any:
    """Returns a plain function or a list of tasks as a plugin of its kind; anything else as it is."""
    if kind in _OF_FUNCTIONS and callable(plugin) and not isinstance(plugin, type):
        method, adapter = _OF_FUNCTIONS[kind]
        return plugin if any(hasattr(plugin, name) for name in (method, "open", "act_one")) else adapter(plugin)
    if kind == "task" and isinstance(plugin, list | tuple):
        return TaskList(plugin)
    return plugin


def name_of(function: Callable[..., Any]) -> str:
    """Returns the name of a function, as verdicts carry it."""
    return str(getattr(function, "__name__", type(function).__name__))
