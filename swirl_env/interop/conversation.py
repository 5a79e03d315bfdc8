"""Episodes that another framework's loop has played: its messages and tool results become steps with verdicts.

The loop of the other side keeps the conversation and calls the tools. `run_call` runs a call for it and returns the record of it;
`read_conversation` turns the model's messages and those records into the trajectory that our own loop would have stored.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from swirl_env.arguments import loads
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.formats.native import arguments_text
from swirl_env.episodes.sessions import stateful
from swirl_env.episodes.transcript import escape, observe
from swirl_env.episodes.transition import cut_short
from swirl_env.episodes.values import task_at
from swirl_env.errors import ConfigError
from swirl_env.protocols import OffersFunctions
from swirl_env.seeding import episode_seed
from swirl_env.types import Action, Answer, Malformed, Record, State, Task, ToolCall, ToolResult, Trajectory

RECORDED = "Recorded. Write nothing more."
"""What a model that calls the function ``answer`` gets back from a loop that would otherwise go on."""
OVER = "The step budget is used up."
"""What a call beyond the budget gets in place of a result."""


class Call(Record, frozen=True):
    """A structured tool call of a message: the function's name and its arguments as JSON text, as the model wrote them."""

    name: str
    arguments: str = "{}"


class Reply(Record, frozen=True):
    """One message of the model."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    """Reasoning that the server has cut out of the text."""
    elsewhere: bool = False
    """Whether it does nothing but call tools of the other framework's own: no step of ours."""


class RunCall(Record, frozen=True):
    """A call that was run for the other framework's loop, with its result."""

    tool: str
    query: str
    result: ToolResult


class Reading(Record, frozen=True):
    """A conversation as an episode of ours."""

    trajectory: Trajectory
    turn_rewards: tuple[float | None, ...]
    """One per message of the model: the reward of its step; the mean over the calls of a message with several; None if no step
    of it was scored, or if the episode was over before."""


def check_exportable(engine: Engine) -> Engine:
    """Returns an engine whose tools the loops of other frameworks can call.

    Raises:
        ConfigError: if its format offers no functions, or a tool keeps something from one call to the next.
    """
    if not isinstance(engine.format, OffersFunctions):
        raise ConfigError(
            f"Frameworks that call tools by name need format='native', which offers them as functions; "
            f"got format={engine.settings.format!r}."
        )
    if with_state := stateful(engine.tools):
        raise ConfigError(
            f"The tool {next(iter(with_state))!r} keeps something from one call of an episode to the next, and this framework "
            f"has no place for it. Leave the tool out, or export to openenv or trl: their environments live for an episode."
        )
    return engine


def questions_of(engine: Engine, limit: int | None = None) -> Iterator[tuple[Task, str]]:
    """Yields the questions of an environment, each with the text that its episode begins with.

    Args:
        engine: the environment.
        limit: how many, the first ones; None for all.
    """
    for i in range(len(engine.tasks) if limit is None else min(limit, len(engine.tasks))):
        task = task_at(engine.tasks, i)
        yield task, engine.begin(task).turns[0].text


def functions_of(engine: Engine) -> list[dict[str, Any]]:
    """Returns the tools, and the function that answers, as OpenAI's function schemas without the wrapper around them."""
    offered: list[dict[str, Any]] = json.loads(engine.settings.functions)
    return [one["function"] for one in offered]


def reply_of(engine: Engine, text: str, calls: Iterable[Call], reasoning: str, offered: Container[str]) -> Reply:
    """Returns a message without its calls of the other framework's own tools (a shell, say), which no judge of ours knows.

    Args:
        engine: the environment.
        text: text of the message.
        calls: its structured calls.
        reasoning: what the server has cut out of the text.
        offered: the names of all tools that the model was offered; a call of any other is malformed.
    """
    calls = tuple(calls)
    names = {one["name"] for one in functions_of(engine)}
    own = tuple(call for call in calls if call.name in names or call.name not in offered)
    return Reply(text, own, reasoning, bool(calls) and not own)


def texts_of(reply: Reply, engine: Engine) -> list[str]:
    """Returns the actions that a message stands for, as texts: one per structured call, or its text alone; none if `elsewhere`.

    A structured call decides, as it is what the other loop runs: text before it that would be read first becomes reasoning.
    """
    if reply.elsewhere:
        return []
    reasoning = reply.reasoning.strip().replace("</think", "&lt;/think")
    before = f"<think>\n{reasoning}\n</think>\n\n{reply.text}" if reasoning else reply.text
    if not reply.calls:
        return [before]
    first, *others = map(_written, reply.calls)
    gap = "\n" if before.strip() and not before[-1].isspace() else ""
    whole = f"{before}{gap}{first}"
    alone, offset = engine.format.parse(first), len(whole) - len(first)
    if engine.format.parse(whole) != msgspec.structs.replace(alone, start=alone.start + offset, end=alone.end + offset):
        whole = f"<think>\n{escape(before)}\n</think>\n\n{first}"
    return [whole, *others]


def _written(call: Call) -> str:
    """Returns a structured call in tags; arguments that are no JSON object stay as they are, so that they are corrected."""
    value = loads(call.arguments) if call.arguments.strip() else {}
    written = arguments_text(value) if isinstance(value, dict) else escape(call.arguments)
    return f'<tool_call>\n{{"name": {arguments_text(call.name)}, "arguments": {written}}}\n</tool_call>'


def idle_state(engine: Engine) -> State:
    """Returns a state for `run_call` on a server that knows no episodes."""
    return engine.begin(Task("tool-server", "none"))


def run_call(engine: Engine, state: State, name: str, arguments: Mapping[str, Any]) -> tuple[str, RunCall | None]:
    """Runs a call of a model.

    Args:
        engine: the environment.
        state: a state of the episode, or of any other: stateless tools do not see it.
        name: name of the function.
        arguments: its arguments, unchecked.

    Returns:
        What the model is shown, as our own loop words it; and the record of the call, None if no tool was run: then the text is
        a correction, or the receipt of an answer.
    """
    (action,) = texts_of(Reply(calls=(Call(name, json.dumps(arguments, ensure_ascii=False, default=str)),)), engine)
    return run_action(engine, state, action)


def run_action(engine: Engine, state: State, action: str) -> tuple[str, RunCall | None]:
    """Runs the call that an action holds as text, if it holds one (see `run_call`)."""
    (tried,) = engine.run_calls([state], [Action(action)])
    if isinstance(tried.call, Answer):
        return RECORDED, None
    if isinstance(tried.call, Malformed) or tried.result is None:
        correction = engine.format.correction(tried.call) if isinstance(tried.call, Malformed) else ""
        return observe(tried.call, None, correction), None
    shown = observe(tried.call, tried.result).removeprefix(escape(f"{tried.call.query} -> "))
    return shown, RunCall(tried.call.tool, tried.call.query, tried.result)


def is_over(engine: Engine, replies: Sequence[Reply]) -> bool:
    """Returns whether the model has answered or used up its steps; nothing is judged, and no tool is run."""
    steps = [engine.format.parse(text) for reply in replies for text in texts_of(reply, engine)]
    return len(steps) >= engine.settings.max_steps or any(isinstance(step, Answer) for step in steps)


def read_conversation(
    engine: Engine, task: Task, replies: Sequence[Reply], runs: Sequence[RunCall], *, agent: str = ""
) -> Reading:
    """Returns the episode that a conversation was, judged step by step.

    Args:
        engine: the environment, with its judge.
        task: the question.
        replies: the model's messages, in their order.
        runs: the calls that were run for them, in their order; calls of the same tool and query are told apart by it.
        agent: name of the model, for the record.
    """
    state = engine.begin(task, episode_seed(0, task.id, 0))
    left = list(runs)
    trajectory: Trajectory | None = None
    rewards: list[float | None] = []
    for reply in replies:
        scored: list[float] = []
        for text in texts_of(reply, engine) if trajectory is None else ():
            call = engine.format.parse(text)
            (transition,) = engine.step_with([state], [Action(text)], [_take(left, call) if isinstance(call, ToolCall) else None])
            state = transition.state
            if transition.step is not None and transition.step.verdict.reward is not None:
                scored.append(transition.step.verdict.reward)
            if transition.ended is not None:
                trajectory = engine.trajectory(transition, agent=agent)
                break
        rewards.append(sum(scored) / len(scored) if scored else None)
    return Reading(trajectory or cut_short(state, agent=agent), tuple(rewards))


def _take(runs: list[RunCall], call: ToolCall) -> ToolResult | None:
    """Returns the result of the first record of a call, and takes it out."""
    arguments = loads(call.query)
    for i, run in enumerate(runs):
        # Frameworks that parse arguments may order them in another way.
        same = run.query == call.query or (isinstance(arguments, dict) and loads(run.query) == arguments)
        if run.tool == call.tool and same:
            return runs.pop(i).result
    return None
