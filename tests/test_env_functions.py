"""Functions of every shape as plugins: what works as one would expect, and what is refused in a sentence at once."""

import asyncio
import datetime
import decimal
import enum
import functools
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import pytest

import swirl_env
from fakes import EchoTool, SumTasks
from swirl_env.env import ToolUseEnv, build_engine
from swirl_env.errors import ConfigError, PluginError
from swirl_env.rollout import collect
from swirl_env.types import Action, ToolResult


def reply(tool, arguments, form="hermes"):
    """Returns what an environment replies to a call."""
    env = ToolUseEnv(SumTasks(), tools=[tool], judge=None, format=form)
    env.reset(seed=0)
    call = {"name": tool.tag, "arguments": arguments}
    return env.step(f"<tool_call>{json.dumps(call)}</tool_call>")[0].rpartition(" -> ")[2]


def as_tool(function):
    return swirl_env.tool(tag="f", description="does something.")(function)


def add(a: int, b: int) -> str:
    """adds."""
    return str(a + b)


@functools.cache
def twice(n: int) -> str:
    """doubles."""
    return str(2 * n)


class Adder:
    """adds what it holds."""

    def __init__(self, n):
        self.n = n

    def __call__(self, n: int) -> str:
        return str(self.n + n)

    def method(self, n: int) -> str:
        """adds."""
        return str(self.n + n)

    @swirl_env.tool
    def decorated(self, n: int) -> str:
        """adds."""
        return str(self.n + n)


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        (as_tool(functools.partial(add, b=3)), {"a": 1}, "4"),
        (as_tool(functools.partial(add, b=3)), {"a": 1, "b": 5}, "6"),
        (as_tool(functools.partial(functools.partial(add), 3)), {"b": "1"}, "4"),
        (as_tool(twice), {"n": "4"}, "8"),
        (as_tool(Adder(2)), {"n": 1.0}, "3"),
        (as_tool(Adder(2).method), {"n": 1}, "3"),
        (Adder(5).decorated, {"n": 1}, "6"),
        (as_tool(lambda text: text + "!"), {"text": "a"}, "a!"),
        (as_tool(len), {"obj": "abc"}, "3"),
    ],
)
def test_whatever_can_be_called_can_be_a_tool_with_the_types_of_its_arguments(tool, arguments, text):
    assert reply(tool, arguments) == text


async def waits(text: str) -> str:
    """waits."""
    return text


def yields(text: str):
    """yields."""
    yield text


class Waits:
    async def __call__(self, *values):
        return 1.0


@pytest.mark.parametrize("function", [waits, yields, functools.partial(waits), Waits()])
@pytest.mark.parametrize("kind", ["tool", "judge", "grader"])
def test_functions_that_return_before_they_have_done_anything_are_refused(kind, function):
    options = {"tools": [EchoTool()], "judge": None}
    with pytest.raises(ConfigError, match=r"is async, and nothing would wait for it|yields"):
        if kind == "tool":
            as_tool(function)
        ToolUseEnv(SumTasks(), **{**options, kind: function})


def test_an_async_function_is_an_agent_asked_many_times_at_once():
    most = running = 0

    async def agent(state):
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return f"<answer>{state.task.answer}</answer>" if state.steps else Action("<echo>a</echo>")

    engine = build_engine(SumTasks(12), tools=[EchoTool()], judge=None)
    for one in (agent, functools.partial(agent)):
        trajectories = list(collect(one, engine, 12, 4))
        assert len(trajectories) == 12 and all(t.outcome.correct for t in trajectories)
    assert most > 1
    with pytest.raises(ConfigError, match="The function of an agent yields"):
        list(collect(yields, engine, 1))


def test_an_agent_whose_act_is_async_is_told_so():
    class Waiting:
        async def act(self, states):
            return [Action("x")] * len(states)

    with pytest.raises(PluginError, match=r"Waiting\.act is async, and nothing waits for it\. Write async act_one"):
        list(collect(Waiting(), build_engine(SumTasks(), tools=[], judge=None), 2))


@pytest.mark.parametrize("value", [None, (x for x in "ab"), iter([1]), map(str, [1])])
def test_a_function_that_returns_nothing_that_can_be_shown_is_unavailable(value):
    env = ToolUseEnv(SumTasks(), tools=[as_tool(lambda text: value)], judge=None)
    env.reset(seed=0)
    assert env.step("<f>a</f>")[4]["result"].error == "unavailable"


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5"), (np.float64(2.5), "2.5"), (decimal.Decimal("1.10"), "1.10"), (True, "True"), ([1], "[1]"), (ToolResult("t"), "t")],
)
def test_other_values_of_a_function_are_shown_as_text(value, text):
    assert reply(as_tool(lambda text: value), {"text": "a"}) == text


# Types of arguments.


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float = 2.0


class Box(TypedDict):
    size: int


def typed(
    u: int | str | None = None,
    n: list[list[float]] | None = None,
    e: Literal["a", 3] = "a",
    c: Color = Color.RED,
    p: Point | None = None,
    t: tuple[int, str] = (1, "x"),
    d: datetime.date | None = None,
    b: Box | None = None,
    m: dict[str, int] | None = None,
    x: Annotated[decimal.Decimal, "note"] = decimal.Decimal(1),
    a: Any = None,
) -> str:
    """shows."""
    return "; ".join(map(repr, [v for v in (u, n, e, c, p, t, d, b, m, x, a) if v is not None])).replace("<", "(")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"u": 5}, "5; "),
        ({"u": "5"}, "'5'; "),
        ({"n": [[1, "2"], []]}, "[[1.0, 2.0], []]"),
        ({"n": "[[1, 2]]"}, "[[1.0, 2.0]]"),
        ({"e": "3"}, "3; "),
        ({"p": {"x": "1"}}, "Point(x=1, y=2.0)"),
        ({"p": '{"x": 1, "y": 3}'}, "Point(x=1, y=3.0)"),
        ({"t": [7, "y"]}, "(7, 'y')"),
        ({"d": "2026-01-02"}, "datetime.date(2026, 1, 2)"),
        ({"b": {"size": 1}}, "{'size': 1}"),
        ({"m": {"k": "2"}}, "{'k': 2}"),
        ({"x": "1.10"}, "Decimal('1.10')"),
        ({"a": [1, {"k": None}]}, "[1, {'k': None}]"),
    ],
)
def test_arguments_of_many_types_arrive_as_such(arguments, shown):
    assert shown in reply(as_tool(typed), arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"u": [1]}, 'The argument "u" must be a whole number or a text or null; it was a list.'),
        ({"u": True}, 'The argument "u" must be a whole number or a text or null; it was true or false.'),
        ({"n": "[[1, 2]"}, 'The argument "n" must be a list or null; it was a text.'),
        ({"n": [["a"]]}, "must be a number; it was a text."),
        ({"e": "4"}, 'The argument "e" must be one of 3, "a".'),
        ({"c": "RED"}, 'The argument "c" must be one of "red".'),
        ({"p": {"y": 1}}, 'The argument "x" of "p" is missing.'),
        ({"p": {"x": 1, "z": 1}}, 'There is no argument "z" of "p"'),
        ({"t": [1]}, "must have at least 2 items; it had 1."),
        ({"t": ["q", "x"]}, 'The argument "t"[0] must be a whole number; it was a text.'),
        ({"t": [1, "x", 3]}, 'The argument "t"[2] is not allowed.'),
        ({"d": "tomorrow"}, "error (invalid): Invalid RFC3339 encoded date"),
        ({"b": {}}, 'The argument "size" of "b" is missing.'),
        ({"m": {"k": "z"}}, 'The argument "k" of "m" must be a whole number; it was a text.'),
    ],
)
def test_arguments_of_many_types_that_do_not_fit_are_named(arguments, says):
    assert says in reply(as_tool(typed), arguments)


@pytest.mark.parametrize(
    "call",
    [
        '```json\n{"name": "f", "arguments": {"a": 1, "b": 2}}\n```',
        '[{"name": "f", "arguments": {"a": 1, "b": 2}}]',
        '{"type": "function", "function": {"name": "f", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}}',
    ],
)
def test_other_wrappings_of_one_call_are_read(call):
    env = ToolUseEnv(SumTasks(), tools=[as_tool(add)], judge=None, format="hermes")
    env.reset(seed=0)
    assert env.step(f"<tool_call>\n{call}\n</tool_call>")[0].endswith(" -> 3")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ('[{"name": "f"}, {"name": "f"}]', "held 2 tool calls; it may hold one"),
        ('{"name": "f", "arguments": {"a": 1, "a": 2, "b": 3}}', "not valid JSON"),
        ('{"name": "f", "arguments": {}}\n{"name": "f", "arguments": {}}', "not valid JSON"),
        ('{"function": {"arguments": {}}}', 'had no "name"'),
    ],
)
def test_a_call_of_which_a_part_would_be_lost_is_corrected(call, says):
    env = ToolUseEnv(SumTasks(), tools=[as_tool(add)], judge=None, format="hermes")
    env.reset(seed=0)
    assert says in env.step(f"<tool_call>{call}</tool_call>")[0]
