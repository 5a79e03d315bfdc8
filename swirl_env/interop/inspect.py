"""Tasks, tools and judges of swirl-env as a task of Inspect (package ``inspect_ai``, 0.3).

`make_task` returns dataset, tools, solver and scorer together; each of them can be used alone, the tools and the scorer with any
solver of Inspect's that calls tools. The scorer reads the conversation as an episode of ours and judges it step by step:

- its value: 1 for a right answer, 0 for a wrong or missing one; NaN, with the reason, if the question has no gold answer;
- ``metadata["turn_rewards"]``: one entry per message of the model, None if its step has no reward;
- ``metadata["steps"]``: status, label, reward and critique of each step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio
import msgspec
from inspect_ai import Task  # pyright: ignore[reportMissingImports] -- installed where this module is used
from inspect_ai.dataset import MemoryDataset, Sample  # pyright: ignore[reportMissingImports]
from inspect_ai.model import ChatMessageAssistant, ChatMessageTool, ChatMessageUser, ContentReasoning  # pyright: ignore[reportMissingImports]
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr  # pyright: ignore[reportMissingImports]
from inspect_ai.solver import Generate, Solver, TaskState, solver  # pyright: ignore[reportMissingImports]
from inspect_ai.tool import Tool, ToolDef, ToolParams  # pyright: ignore[reportMissingImports]
from inspect_ai.util import store  # pyright: ignore[reportMissingImports]

from swirl_env.env import find_task
from swirl_env.episodes.engine import Engine
from swirl_env.interop.conversation import (
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
    run_action,
    run_call,
    texts_of,
)
from swirl_env.interop.summary import steps_of

T = TypeVar("T")
RUNS = "swirl_env:runs"
"""Under which the calls of a sample are in its store, as JSON of `RunCall`."""
_worker = ThreadPoolExecutor(1, "swirl-env")
"""Tools and judges run in one thread of their own, so that they never hold up the other samples."""


def make_task(engine: Engine, limit: int | None = None) -> Task:
    """Returns the whole evaluation.

    Args:
        engine: the environment, with ``format="native"``.
        limit: how many questions, the first ones; None for all.
    """
    check_exportable(engine)
    return Task(
        dataset=make_dataset(engine, limit),
        solver=[offer_tools(engine), play(engine)],
        scorer=judged(engine),
    )


def make_dataset(engine: Engine, limit: int | None = None) -> MemoryDataset:
    """Returns the questions as samples: id, prompt and gold answer."""
    samples = [Sample(id=task.id, input=prompt, target=task.answer or "") for task, prompt in questions_of(engine, limit)]
    return MemoryDataset(samples, name=engine.tasks.split)


def make_tools(engine: Engine) -> list[Tool]:
    """Returns the tools under their own names, and the function that answers."""
    check_exportable(engine)
    idle = idle_state(engine)

    def make(name: str) -> Callable[..., Awaitable[str]]:
        async def execute(**arguments: Any) -> str:
            text, run = await _in_worker(run_call, engine, idle, name, arguments)
            _record(run)
            return text

        return execute

    return [
        ToolDef(
            make(one["name"]),
            name=one["name"],
            description=one["description"],
            parameters=ToolParams.model_validate(_described(one["parameters"])),
            max_output=0,
        ).as_tool()
        for one in functions_of(engine)
    ]


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema in which every argument has a description, as Inspect demands: its name if it has none."""
    named = {name: {"description": name.replace("_", " "), **part} for name, part in schema.get("properties", {}).items()}
    return {"type": "object", **schema, "properties": named}


@solver
def offer_tools(engine: Engine) -> Solver:
    """Offers the tools to the model."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.tools.extend(make_tools(engine))
        return state

    return solve


@solver
def play(engine: Engine) -> Solver:
    """Plays an episode as our own loop does: one message after the other, with a correction for one that cannot be read."""
    idle = idle_state(engine)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        while not (state.completed or is_over(engine, _replies(engine, state))):
            state = await generate(state, tool_calls="single")
            replies = _replies(engine, state)
            # A message without a structured call gets no tool's reply: it may hold a call as text, or need a correction.
            if isinstance(state.messages[-1], ChatMessageAssistant) and not is_over(engine, replies):
                for action in texts_of(replies[-1], engine):
                    text, run = await _in_worker(run_action, engine, idle, action)
                    _record(run)
                    state.messages.append(ChatMessageUser(content=text))
        return state

    return solve


@scorer(metrics=[mean(), stderr()])
def judged(engine: Engine) -> Scorer:
    """Scores the final answer, with the verdict on every step in the metadata."""

    async def score(state: TaskState, target: Target) -> Score:
        reading = await _read(engine, state)
        trajectory = reading.trajectory
        metadata = {"turn_rewards": list(reading.turn_rewards), "ended": trajectory.ended, "steps": steps_of(trajectory)}
        answer, correct = trajectory.outcome.answer, trajectory.outcome.correct
        if correct is None:
            why = "The question has no gold answer." if trajectory.task.answer is None else "The grader gave no grade."
            return Score.unscored(reason="scoring_failed", answer=answer, explanation=why, metadata=metadata)
        critiques = [step.verdict.critique for step in trajectory.steps if step.verdict.critique]
        return Score(value=float(correct), answer=answer, explanation="\n".join(critiques), metadata=metadata)

    return score


def _record(run: RunCall | None) -> None:
    """Keeps a call and its result in the sample's store, for the scorer."""
    if run is not None:
        store().set(RUNS, [*store().get(RUNS, []), msgspec.json.encode(run).decode()])


async def _in_worker(function: Callable[..., T], *arguments: Any) -> T:
    value: T = await anyio.to_thread.run_sync(lambda: _worker.submit(function, *arguments).result())
    return value


async def _read(engine: Engine, state: TaskState) -> Reading:
    runs = [msgspec.json.decode(text, type=RunCall) for text in state.store.get(RUNS, [])]
    task = find_task(engine.tasks, str(state.sample_id))
    return await _in_worker(read_conversation, engine, task, _replies(engine, state), runs)


def _replies(engine: Engine, state: TaskState) -> list[Reply]:
    # Agents of Inspect's have tools that the state does not list: what one of them has answered is no unknown tool.
    answered = {one.function for one in state.messages if isinstance(one, ChatMessageTool) and not one.error and one.function}
    offered = {ToolDef(tool).name for tool in state.tools} | answered
    return [_reply(engine, message, offered) for message in state.messages if isinstance(message, ChatMessageAssistant)]


def _reply(engine: Engine, message: ChatMessageAssistant, offered: set[str]) -> Reply:
    # The arguments of a call that Inspect could not parse are refused here too.
    calls = (
        Call(call.function, "?" if call.parse_error else msgspec.json.encode(call.arguments).decode())
        for call in message.tool_calls or ()
    )
    parts = [] if isinstance(message.content, str) else message.content
    reasoning = "\n".join(part.reasoning for part in parts if isinstance(part, ContentReasoning))
    return reply_of(engine, message.text, calls, reasoning, offered)
