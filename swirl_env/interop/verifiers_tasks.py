"""Tasksets of verifiers (0.4) as tasks, graded by their own rewards: ``task=verifiers task.taskset=my-taskset``.

For tasksets of data and Python rewards over the model's final reply. One that needs a container, a runtime or a user who opens
the conversation is refused.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import verifiers.v1 as vf  # pyright: ignore[reportMissingImports] -- installed where this module is used
from verifiers.v1.utils.loaders import taskset_config_type  # pyright: ignore[reportMissingImports]

from swirl_env.errors import ConfigError, printable
from swirl_env.tasks.generated import check_whole
from swirl_env.types import Task

_worker = ThreadPoolExecutor(1, "swirl-env-verifiers")
"""Rewards are coroutines; they run in a thread of their own, as the caller's may have a running loop already."""


class VerifiersTasks:
    """The tasks of a taskset of verifiers.

    An answer is right if the rewards of its task add up to `solved_at`. They see a trace of two messages, the question and the
    answer; rewards that read tool calls out of the trace see none.

    Args:
        taskset: name of an installed taskset, as verifiers' own commands take it; or a `Taskset`.
        config: values of its config.
        split: a name for these tasks.
        limit: only the first tasks; an infinite taskset needs one.
        max_steps: the most actions per episode.
        solved_at: sum of the weighted rewards from which on an answer is right.

    Raises:
        ConfigError: for a taskset that cannot be played here.
    """

    corpus = None
    tools: tuple[str, ...] = ()

    def __init__(
        self,
        taskset: Any,
        config: Mapping[str, Any] | None = None,
        split: str = "train",
        limit: int | None = None,
        max_steps: int = 6,
        solved_at: float = 1.0,
    ) -> None:
        check_whole(max_steps=max_steps, **({} if limit is None else {"limit": limit}))
        self.split, self.max_steps, self.solved_at = split, max_steps, solved_at
        source = _load(taskset, dict(config or {})) if isinstance(taskset, str) else taskset
        if not isinstance(source, vf.Taskset):
            raise ConfigError(f"taskset is the name of a taskset of verifiers or a vf.Taskset; got {taskset!r:.60}.")
        if limit is None and not source.bounded:
            raise ConfigError(f"The taskset {type(source).__name__} is infinite; say how many tasks to take with limit=.")
        self.items: list[vf.Task] = list(itertools.islice(source, limit))
        """The tasks of verifiers, by position."""
        self.grader = TaskRewards(self)
        for task in self.items[:1]:
            _check(task)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> Task:
        data = self.items[index].data
        position = index % len(self.items)
        if not data.prompt_text:
            raise ConfigError(f"Task {position} of the taskset has no prompt: a user would open the conversation.")
        question = "\n\n".join(part for part in (data.system_prompt, data.prompt_text) if part)
        answer = getattr(data, "answer", None)
        gold = str(answer) if isinstance(answer, str | int | float) and not isinstance(answer, bool) else None
        meta = {name: value for name, value in (("id", data.id), ("name", data.name)) if value is not None}
        return Task(f"verifiers-{self.split}-{position:06d}", question, gold, meta={**meta, "split": self.split})

    def find(self, task_id: str) -> Task | None:
        """Returns the task of an id, or None."""
        position = self.position(task_id)
        return None if position is None else self[position]

    def position(self, task_id: str) -> int | None:
        """Returns the place of a task of this source; None for another one's."""
        number = task_id.removeprefix(f"verifiers-{self.split}-")
        fits = number != task_id and number.isascii() and number.isdecimal() and len(number) <= 18
        position = int(number) if fits else len(self.items)
        return position if position < len(self.items) and f"{position:06d}" == number else None


class TaskRewards:
    """Grades answers by the rewards of their tasks.

    Args:
        tasks: where the tasks come from.
    """

    def __init__(self, tasks: VerifiersTasks) -> None:
        self._tasks = tasks

    def grade(self, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
        """Returns whether each answer is right; None for a task of another source, or without any reward.

        Raises:
            Exception: if a reward does.
        """
        return _worker.submit(asyncio.run, self._grade(tasks, answers)).result()

    async def _grade(self, tasks: Sequence[Task], answers: Sequence[str]) -> list[bool | None]:
        return [await self._one(task, answer) for task, answer in zip(tasks, answers, strict=True)]

    async def _one(self, task: Task, answer: str) -> bool | None:
        position = self._tasks.position(task.id)
        if position is None:
            return None
        item = self._tasks.items[position]
        trace = trace_of(item, answer)
        await item.score(trace)
        rewards = list(trace.rewards.values())
        return None if not rewards or None in rewards else bool(trace.reward >= self._tasks.solved_at)


def trace_of(item: Any, answer: str) -> Any:
    """Returns a finished trace of two messages: the prompt of a task, and an answer."""
    prompt = vf.UserMessage(content=item.data.prompt_text)
    nodes = [
        vf.MessageNode(message=prompt),
        vf.MessageNode(parent=0, message=vf.AssistantMessage(content=answer), sampled=True),
    ]
    kind = vf.TraceTask(type=type(item).__name__, data=item.data, key=item.key, hash=item.hash)
    return vf.Trace(task=kind, agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes, is_completed=True, ok=True)


def _load(name: str, config: Mapping[str, Any]) -> Any:
    try:
        return vf.load_taskset(taskset_config_type(name)(id=name, **config))
    except Exception as error:
        what = f"{type(error).__name__}: {printable(' '.join(str(error).split())[:300])}"
        raise ConfigError(f"The taskset {name!r} could not be made: {what}") from error


def _check(task: Any) -> None:
    """Refuses tasks whose rewards cannot be computed from a reply alone."""
    kind = type(task).__name__
    if task.NEEDS_CONTAINER:
        raise ConfigError(f"Tasks of the class {kind} run in a container, which there is none of here.")
    for reward in task.hooks("reward"):
        runtime = inspect.signature(reward).parameters.get("runtime")
        if runtime is not None and runtime.default is inspect.Parameter.empty:
            raise ConfigError(f"The reward {reward.__name__!r} of the class {kind} needs a runtime, which there is none of here.")
    if not task.hooks("reward") and not task.plugged_judges():
        raise ConfigError(f"Tasks of the class {kind} have no reward, so no answer could be graded.")
