"""One bad item never spoils a batch, and a failure on every item stops the run."""

import logging

import pytest

import swirl_env
from fakes import CallJudge, EchoTool, SumTasks
from swirl_env.contract import check
from swirl_env.env import ToolUseEnv, build_engine
from swirl_env.episodes.engine import Engine
from swirl_env.episodes.guarded import run_grader, run_judge, run_tool
from swirl_env.episodes.rollout import collect
from swirl_env.errors import PluginError
from swirl_env.types import Action, ToolResult, Verdict
from swirl_env.vector import ToolVectorEnv


class Halves(EchoTool):
    """int(q) // 2, for a whole batch at once."""

    tag = "halve"

    def run(self, queries):
        self.batches.append(len(queries))
        return [ToolResult(str(int(query) // 2)) for query in queries]


class Inverse(Halves):
    tag = "halve"

    def run(self, queries):
        self.batches.append(len(queries))
        return [ToolResult(str(100 // int(query))) for query in queries]


class Short(Halves):
    """Loses the results of a batch that holds a query without digits."""

    def run(self, queries):
        self.batches.append(len(queries))
        return [ToolResult("5") for query in queries if query.isdigit()]


class Typed(Halves):
    """Returns no `ToolResult` for one of them."""

    def run(self, queries):
        self.batches.append(len(queries))
        return [ToolResult("5") if query.isdigit() else query for query in queries]


@pytest.mark.parametrize(
    ("tool", "queries", "bad"),
    [(Halves, ["10", "abc", "8"], 1), (Inverse, ["0", "5", "4"], 0), (Short, ["1", "2", "x"], 2), (Typed, ["x", "2", "3"], 0)],
)
def test_one_bad_query_never_spoils_the_others(tool, queries, bad):
    batch = run_tool(tool(), queries)
    assert batch == [result for query in queries for result in run_tool(tool(), [query])]
    assert [result.error for result in batch] == ["unavailable" if i == bad else None for i in range(len(queries))]


def test_a_batch_without_a_bad_item_is_one_call():
    tool = Halves()
    run_tool(tool, ["1", "2", "3"])
    assert tool.batches == [3]
    run_tool(tool, ["1", "x", "3"])
    assert tool.batches == [3, 3, 1, 1, 1]


def test_a_bad_query_of_one_environment_leaves_the_others_alone():
    venv = ToolVectorEnv(SumTasks(), 3, tools=[Halves()], judge=CallJudge())
    venv.reset(seed=0)
    observations, rewards, *_, infos = venv.step([f"<halve>{query}</halve>" for query in ("10", "abc", "8")])
    assert observations[0] == "10 -> 5" and observations[2] == "8 -> 4" and "unavailable" in observations[1]
    assert rewards.tolist() == [0.5] * 3 and [v.status for v in infos["verdict"]] == ["scored"] * 3


class Picky:
    """Fails on some steps, in one of several ways."""

    def __init__(self, way):
        self.way = way

    def judge(self, steps):
        bad = [i for i, step in enumerate(steps) if "abc" in step.action.text]
        if bad and self.way == "raises":
            raise RuntimeError("cannot read abc")
        if bad and self.way == "short":
            return [Verdict.good() for i in range(len(steps)) if i not in bad]
        return [0.5 if i in bad else Verdict.good() for i in range(len(steps))]


@pytest.mark.parametrize("way", ["raises", "short", "type"])
def test_one_step_that_cannot_be_judged_never_spoils_the_others(way):
    engine = Engine(SumTasks(), [EchoTool()], Picky(way))
    states = [engine.begin(SumTasks()[i]) for i in range(3)]
    moved = engine.step(states, [Action(f"<echo>{query}</echo>") for query in ("10", "abc", "8")])
    assert [t.step.verdict.status for t in moved] == ["scored", "failed", "scored"]
    assert moved[1].step.verdict.critique


def test_one_answer_that_cannot_be_graded_never_spoils_the_others():
    class Grades:
        def grade(self, tasks, answers):
            return [int(answer) > 1 for answer in answers]

    tasks = [SumTasks()[i] for i in range(3)]
    assert run_grader(Grades(), tasks, ["1", "two", "3"]) == [False, None, True]


def test_one_state_on_which_an_agent_fails_never_spoils_the_others():
    class Fussy:
        def act(self, states):
            return [Action(f"<answer>{10 // (int(s.task.id[4:]) - 1)}</answer>") for s in states]

    trajectories = {t.task.id: t for t in collect(Fussy(), build_engine(SumTasks(4), tools=[], judge=None), 4, 4)}
    assert [trajectories[f"sum-{i}"].ended for i in range(4)] == ["answered", "error", "answered", "answered"]
    assert trajectories["sum-3"].outcome.answer == "5"


@pytest.mark.parametrize("value", [None, 5, "actions", {"a": 1}, (x for x in ())])
def test_what_is_no_list_of_actions_is_named_in_one_sentence(value):
    class Odd:
        def act(self, states):
            return value

    with pytest.raises(PluginError, match=r"^Odd\.act returned .*; expected a list with one Action per state\.$"):
        list(collect(Odd(), build_engine(SumTasks(), tools=[], judge=None), 2, 2))


class Down:
    """Always raises, from the given call on."""

    def __init__(self, after=0):
        self.after, self.calls = after, 0

    def act(self, states):
        self.calls += 1
        if self.calls > self.after:
            raise ConnectionError("no route to host")
        return [Action("<answer>1</answer>")] * len(states)


@pytest.mark.parametrize(("after", "slots", "at_most"), [(0, 4, 12), (0, 1, 9), (2, 4, 20)])
def test_the_same_failure_everywhere_stops_the_run_with_that_error(after, slots, at_most):
    agent, seen = Down(after), []
    with pytest.raises(PluginError, match=r"Down failed on every one of .* ConnectionError: no route to host"):
        for trajectory in collect(agent, build_engine(SumTasks(1_000), tools=[], judge=None), 1_000, slots):
            seen.append(trajectory)
    assert len(seen) <= at_most


class DownOne:
    """Asked one state at a time; always raises, from the given call on."""

    def __init__(self, after=0, error=ConnectionError):
        self.after, self.calls, self.error = after, 0, error

    async def act_one(self, state):
        self.calls += 1
        if self.calls > self.after:
            raise self.error("no route to host")
        return Action("<answer>1</answer>")

    async def aclose(self):
        pass


@pytest.mark.parametrize(("after", "slots", "at_most"), [(0, 4, 24), (0, 1, 10), (3, 4, 24), (0, 64, 70 + 192)])
def test_the_same_failure_everywhere_stops_the_run_of_an_agent_that_is_asked_one_by_one(after, slots, at_most):
    agent = DownOne(after)
    with pytest.raises(PluginError, match=r"DownOne failed on every one of .* ConnectionError: no route to host"):
        list(collect(agent, build_engine(SumTasks(1_000), tools=[], judge=None), 1_000, slots))
    assert agent.calls <= at_most
    with pytest.raises(PluginError, match=r"DownOne failed on every state, 2 in all"):
        list(collect(DownOne(), build_engine(SumTasks(2), tools=[], judge=None), 2, 2))


class Breaks:
    """Raises on everything, or returns something invalid, from a given call on; a tool, a judge and a grader."""

    tag = "echo"
    description = "echoes."
    pure = True

    def __init__(self, after=0, wrong=None):
        self.after, self.calls, self.wrong = after, 0, wrong

    def run(self, queries):
        return self.give([ToolResult(query) for query in queries])

    def judge(self, steps):
        return self.give([Verdict.good() for _ in steps])

    def grade(self, tasks, answers):
        return self.give([True for _ in answers])

    def give(self, results):
        self.calls += 1
        if self.calls <= self.after:
            return results
        if self.wrong is not None:
            return [self.wrong] * len(results)
        raise RuntimeError("out of order")


@swirl_env.tool(tag="echo")
def broken_function(text: str) -> str:
    """echoes."""
    raise RuntimeError("out of order")


BROKEN = {
    "the tool 'echo'": lambda broken: {"tools": [broken], "judge": None},
    "the judge Breaks": lambda broken: {"tools": [EchoTool()], "judge": broken},
    "the grader Breaks": lambda broken: {"tools": [EchoTool()], "judge": None, "grader": broken},
}


class Evens:
    """Calls echo, then answers."""

    def act(self, states):
        return [Action("<answer>1</answer>" if state.steps else "<echo>x</echo>") for state in states]


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize(("after", "wrong"), [(0, None), (2, None), (0, 7), (1, "text")])
@pytest.mark.parametrize("slots", [1, 4, 64])
def test_the_same_failure_of_a_plugin_on_every_call_stops_the_run_with_that_error(what, after, wrong, slots):
    engine = build_engine(SumTasks(1_000), **BROKEN[what](Breaks(after, wrong)))
    error = "RuntimeError: out of order" if wrong is None else "TypeError: expected"
    with pytest.raises(PluginError, match=rf"(?i){what} failed on every one of the last \d+ calls with the same error: {error}"):
        list(collect(Evens(), engine, 1_000, slots))


def test_a_function_that_always_raises_stops_the_run_too():
    engine = build_engine(SumTasks(1_000), tools=[broken_function], judge=None)
    with pytest.raises(PluginError, match=r"'echo' failed on every one of the last \d+ calls .*: RuntimeError: out of order"):
        list(collect(Evens(), engine, 1_000, 4))


def test_a_run_goes_on_if_a_plugin_works_now_and_then_or_says_itself_that_it_is_away():
    class Every(Breaks):
        def give(self, results):
            self.calls += 1
            if self.calls % 5:
                raise RuntimeError("out of order")
            return results

    class Away(Breaks):
        def give(self, results):
            return [ToolResult("away", "unavailable") if isinstance(r, ToolResult) else Verdict.failed("away") for r in results]

    for plugin in (Every(), Away()):
        engine = build_engine(SumTasks(40), tools=[plugin], judge=plugin)
        assert len(list(collect(Evens(), engine, 40, 1))) == 40
    env = ToolUseEnv(SumTasks(), tools=[Breaks()], judge=Breaks(), max_steps=30)
    env.reset(seed=0)
    for _ in range(29):  # a loop of one's own sees it in info
        *_, info = env.step("<echo>x</echo>")
        assert info["result"].error == "unavailable" and info["verdict"].status == "failed"


def test_a_short_run_in_which_every_state_fails_ends_with_the_error():
    with pytest.raises(PluginError, match="no route to host"):
        list(collect(Down(), build_engine(SumTasks(2), tools=[], judge=None), 2, 2))


def test_failures_of_different_kinds_are_no_permanent_one():
    class Flaky(Down):
        def act(self, states):
            self.calls += 1
            if self.calls == 1:
                return [Action("<answer>1</answer>")] * len(states)
            if self.calls % 2:
                raise KeyError("now")
            raise ValueError("then")

    trajectories = list(collect(Flaky(), build_engine(SumTasks(40), tools=[], judge=None), 40, 1))
    assert [t.ended for t in trajectories] == ["answered"] + ["error"] * 39


def test_each_distinct_error_is_logged_once_with_its_input_escaped(caplog):
    tool = Halves()
    with caplog.at_level(logging.WARNING):
        run_tool(tool, ["\x1b[2Jabc", "1", "\u202eabc"])
        run_tool(tool, ["xyz"])
        run_tool(Inverse(), ["0"])
    assert len(caplog.records) == 2
    first, second = (record.getMessage() for record in caplog.records)
    assert "tool halve failed on \\x1b[2Jabc" in first and "Traceback" in first and "ValueError" in first
    assert "ZeroDivisionError" in second and "\x1b" not in caplog.text and "\u202e" not in caplog.text


def test_a_judge_that_changes_its_input_changes_no_episode():
    class Marks:
        def judge(self, steps):
            for step in steps:
                step.state.task.meta["seen"] = True
                step.state.task.meta["list"].append(1)
                if step.result is not None:
                    step.result.data.clear()
                for earlier in step.state.steps:
                    earlier.result.data["text"] = "changed"
            verdicts = [Verdict.good() for _ in steps]
            steps.clear()
            return verdicts

    class Detailed(EchoTool):
        def run(self, queries):
            return [ToolResult(query, data={"text": query, "list": [query]}) for query in queries]

    class Meta(SumTasks):
        def __getitem__(self, i):
            task = super().__getitem__(i)
            return type(task)(task.id, task.question, task.answer, meta={"list": []})

    env = ToolUseEnv(Meta(), tools=[Detailed()], judge=Marks())
    env.reset(seed=0)
    env.step("<echo>a</echo>")
    *_, info = env.step("<echo>b</echo>")
    data = [step.result.data for step in env.state.steps]
    assert data == [{"text": "a", "list": ["a"]}, {"text": "b", "list": ["b"]}]
    assert env.state.task.meta == {"list": []} and info["verdict"].status == "scored"


def test_built_in_judges_that_say_so_leave_their_input_alone():
    for name in ("rules", "outcome", "weighted"):
        judge = swirl_env.make_judge(name)
        assert judge.pure
        assert not [f for f in check("judge", judge) if "alone" in f.name and not f.ok]
    assert run_judge(judge, []) == []
