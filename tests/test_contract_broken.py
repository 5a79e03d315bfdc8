"""Plugins that each break one rule of their contract: the suite finds it and says what it is."""

import sys
from collections.abc import Sequence

import pytest

from fakes import BrokenTool, CallJudge, EchoAgent, EchoTool, SumTasks
from swirl_env.contract import check
from swirl_env.corpus import MemoryCorpus
from swirl_env.episodes.formats import XmlFormat
from swirl_env.types import Action, Passage, PlanStep, Task, ToolResult, Verdict

pytestmark = pytest.mark.usefixtures("own_cache")


def broken(kind, plugin):
    """The findings that are not ok, as {name: message}; each message is one readable line."""
    collected = {f.name: f.message for f in check(kind, plugin) if not f.ok}
    assert all(message.startswith("expected ") and "\n" not in message and len(message) < 500 for message in collected.values())
    return collected


class Tool(EchoTool):
    def one(self, query: str) -> object:
        return ToolResult(query)

    def run(self, queries: Sequence[str]) -> list:
        return [self.one(query) for query in queries]


class Short(Tool):
    def run(self, queries):
        return super().run(queries)[1:]


class Text(Tool):
    def one(self, query):
        return query


class Fussy(Tool):
    def one(self, query):
        return ToolResult(query.encode().decode())


class Leaves(Tool):
    def one(self, query):
        return sys.exit("no such thing") if "\x00" in query else ToolResult("fine")


class Slim(Tool):
    def one(self, query):
        if len(query) > 99_999:
            raise MemoryError("too much")
        return ToolResult("fine")


class Arrays(Tool):
    def one(self, query):
        return ToolResult(query, data={"scores": (1.0, 2.0)})


class Nan(Tool):
    def one(self, query):
        return ToolResult(query, data={"score": float("nan")})


class Counting(Tool):
    def one(self, query):
        self.batches.append(1)
        return ToolResult(str(len(self.batches)))


class Shuffled(Tool):
    def run(self, queries):
        return [ToolResult(query) for query in sorted(queries)]


class Greedy(Tool):
    def run(self, queries):
        collected = super().run(queries)
        if isinstance(queries, list):
            queries.clear()
        return collected


class Novel(Tool):
    def one(self, query):
        return ToolResult("no", "broken")  # type: ignore[arg-type]


class Silent(Tool):
    def one(self, query):
        return ToolResult("", "invalid")


def named(**attributes):
    return type("Named", (EchoTool,), attributes)()


@pytest.mark.parametrize(
    ("tool", "rule", "said"),
    [
        (named(tag="my tag"), "tag is an xml name", "'my tag'"),
        (named(tag="1st"), "tag is an xml name", "letters"),
        (named(tag="xmlish"), "tag is an xml name", "'xmlish'"),
        (named(tag="answer"), "tag is an xml name", "formats use"),
        (named(tag=None), "has tag description and run", "`tag`"),
        (named(description=""), "description is one line", "one line"),
        (named(description="two\nlines"), "description is one line", "one line"),
        (named(run=None), "has tag description and run", "method `run`"),
        (BrokenTool(), "one result per query", "RuntimeError: out of order at fakes.py"),
        (Short(), "one result per query", "7 results for 7 queries, got 6"),
        (Greedy(), "one result per query", "changed list"),
        (Text(), "results are well formed", "got str"),
        (Novel(), "results are well formed", "invalid, timeout"),
        (Silent(), "results are well formed", "no text"),
        (Fussy(), "survives hostile input", "UnicodeEncodeError"),
        (Leaves(), "survives hostile input", "SystemExit: no such thing"),
        (Slim(), "survives a megabyte", "MemoryError: too much"),
        (Arrays(), "results can be stored", "data {'scores': (1.0, 2.0)} reads back as something else"),
        (Nan(), "results can be stored", "nan"),
        (Counting(), "a batch equals singles", "depend on its query alone"),
        (Shuffled(), "a batch equals singles", "depend on its query alone"),
    ],
)
def test_broken_tools_are_found(tool, rule, said):
    collected = broken("tool", tool)
    assert said in collected[rule], collected


class Judge(CallJudge):
    def one(self, step):
        return Verdict.good()

    def judge(self, steps):
        return [self.one(step) for step in steps]


def judging(one):
    return type("Judging", (Judge,), {"one": lambda self, step: one(step)})()


class Drifting(CallJudge):
    def judge(self, steps):
        self.batches.append(1)
        return [Verdict.good(reward=float(len(self.batches))) for _ in steps]


class Marking(CallJudge):
    def judge(self, steps):
        for step in steps:
            if step.result is not None:
                step.result.data["seen"] = True
        return super().judge(steps)


class Hasty(CallJudge):
    def judge(self, steps):
        return super().judge(steps)[:1]


@pytest.mark.parametrize(
    ("judge", "rule", "said"),
    [
        (object(), "has judge", "method `judge`"),
        (Hasty(), "one verdict per step", "got 1"),
        (judging(lambda s: 1.0), "survives every step", "got float"),
        (judging(lambda s: Verdict.good(s.result.text)), "survives every step", "AttributeError"),
        (judging(lambda s: Verdict.good(s.call.query)), "survives every step", "I believe that it is Oslo"),
        (judging(lambda s: Verdict("scored", None)), "survives every step", "A scored verdict, and no other"),
        (judging(lambda s: Verdict("scored", float("nan"))), "statuses are consistent", "finite reward"),
        (judging(lambda s: Verdict("failed", 0.0, None, "down")), "survives every step", "A scored verdict, and no other"),
        (judging(lambda s: Verdict.failed("")), "statuses are consistent", "say why"),
        (judging(lambda s: Verdict("maybe")), "statuses are consistent", "scored, unscored"),
        (judging(lambda s: Verdict("scored", 1.0, "good")), "statuses are consistent", "GOOD or BAD"),
        (judging(lambda s: Verdict("scored", 1.0, parts={"a": float("inf")})), "statuses are consistent", "finite numbers"),
        (judging(lambda s: Verdict.good("\ud800")), "verdicts can be stored", "JSON"),
        (Drifting(), "a batch equals singles", "its step alone"),
        (Marking(), "leaves its input alone", "copy meta"),
    ],
)
def test_broken_judges_are_found(judge, rule, said):
    collected = broken("judge", judge)
    assert said in collected[rule], collected


class Coin(EchoAgent):
    calls = 0

    def act(self, states):
        self.calls += 1
        return [Action(f"<echo>{self.calls}</echo>") for _ in states]


class Neighbour(EchoAgent):
    def act(self, states):
        return [Action(f"<echo>{i}</echo>") for i, _ in enumerate(states)]


def acting(one):
    return type("Acting", (), {"act": lambda self, states: [one(state) for state in states]})()


class Eager(EchoAgent):
    def act(self, states):
        return [*super().act(states), Action("more")]


@pytest.mark.parametrize(
    ("agent", "rule", "said"),
    [
        (object(), "has act", "method `act`"),
        (Eager(), "actions are well formed", "got 2"),
        (acting(lambda s: "text"), "actions are well formed", "got str"),
        (acting(lambda s: Action(s.steps[-1].action.text)), "actions are well formed", "IndexError"),
        (acting(lambda s: Action("hm", error="unavailable")), "actions are well formed", "no text"),
        (acting(lambda s: Action("", error="tired")), "actions are well formed", "got tired"),
        (acting(lambda s: Action("a", token_ids=(1, 2), logprobs=(-1.0,))), "actions are well formed", "2 token ids"),
        (acting(lambda s: Action("a", token_ids=(1,), logprobs=(0.5,))), "actions are well formed", "at most 0"),
        (acting(lambda s: Action("\udfff")), "actions can be stored", "JSON"),
        (Coin(), "equal states give equal actions", "state.seed"),
        (Neighbour(), "equal states give equal actions", "state.seed"),
    ],
)
def test_broken_agents_are_found(agent, rule, said):
    collected = broken("agent", agent)
    assert said in collected[rule], collected


def tasks(task=None, passages=None, **attributes):
    """A task source whose tasks are made by ``task(i)``."""
    made = {} if task is None else {"__getitem__": lambda self, i: task(i) if 0 <= i < self.n else SumTasks.__getitem__(self, i)}
    corpus = None if passages is None else MemoryCorpus(passages)
    return type("Source", (SumTasks,), {"corpus": corpus, **made, **attributes})()


def sums(i, **fields):
    return Task(**{"id": f"sum-{i}", "question": f"{i} + 1?", "answer": str(i + 1), **fields})


class Torn(MemoryCorpus):
    def __getitem__(self, i):
        return super().__getitem__(0)


class Endless(MemoryCorpus):
    def __len__(self):
        return 7


P = [Passage(f"p{i}", "", f"fact {i}") for i in range(5)]


@pytest.mark.parametrize(
    ("source", "rule", "said"),
    [
        (tasks(tools="search"), "has length items and attributes", "tuple of tool names"),
        (tasks(max_steps=0), "has length items and attributes", "at least 1"),
        (tasks(split=None), "has length items and attributes", "`split`"),
        (object(), "has length items and attributes", "__len__"),
        (SumTasks(0), "items are tasks", "at least one task"),
        (tasks(tools=("no_such",)), "tools exist", "No tool named 'no_such'"),
        (tasks(lambda i: f"{i} + 1"), "items are tasks", "got str"),
        (tasks(lambda i: sums(i, question=" ")), "items are tasks", "a question"),
        (tasks(lambda i: sums(i, meta={"hops": (1, 2)})), "items are tasks", "meta {'hops': (1, 2)}"),
        (tasks(lambda i: sums(i, id="same")), "ids are unique", "at 0 and 1"),
        (tasks(lambda i: sums(i, plan=(PlanStep("math_exp", "1", needs=(0,)),))), "plans lead forward", "needs=(0,)"),
        (tasks(find=lambda self, task_id: self[0]), "ids are found", "'sum-2'"),
        (
            tasks(__getitem__=lambda self, i: sums(i % 20)),
            "indexing ends after the last task",
            "IndexError for tasks[20] with len 20, got a task",
        ),
        (tasks(__getitem__=lambda self, i: {j: sums(j) for j in range(20)}[i]), "indexing ends after the last task", "KeyError"),
        (tasks(passages=[*P, P[0]]), "passage ids are unique", "'p0' twice"),
        (tasks(corpus=Torn(P)), "corpus is readable", "corpus[1]"),
        (tasks(corpus=Endless(P)), "corpus is readable", "7 passages in the stream, got 5"),
        (tasks(corpus=P), "corpus is readable", "got list"),
        (tasks(lambda i: sums(i, evidence=("p9",)), P), "evidence is in the corpus", "['p9']"),
    ],
)
def test_broken_task_sources_are_found(source, rule, said):
    collected = broken("task", source)
    assert said in collected[rule], collected


class Format(XmlFormat):
    def __init__(self, tools=("search_query", "math_exp")):
        super().__init__(tools)


def formatting(**methods):
    stop = methods.pop("stop", None)
    fmt = type("Formatting", (Format,), methods)()
    fmt.stop = fmt.stop if stop is None else stop
    return fmt


@pytest.mark.parametrize(
    ("fmt", "rule", "said"),
    [
        (formatting(stop=()), "has its methods", "`stop`"),
        (formatting(parse=None), "has its methods", "`parse`"),
        (formatting(call=lambda self, tool, q: f"<{tool}>{q.upper()}</{tool}>"), "what it writes it reads", "FOUNDER"),
        (formatting(answer=lambda self, t: f"<answer>{t}</answer> done"), "spans hold the element", "done"),
        (
            formatting(parse=lambda self, t: XmlFormat.parse(self, t[t.rfind("<") :] if t.endswith("more") else t)),
            "text after a complete element changes nothing",
            "and more",
        ),
        (formatting(stop=("<end>",)), "stop strings end every element", "run on"),
        (formatting(stop=(">",)), "stop strings end every element", "too early"),
        (formatting(parse=lambda self, t: XmlFormat.parse(self, t.encode().decode())), "parse is total", "UnicodeEncodeError"),
        (
            formatting(__init__=lambda self: XmlFormat.__init__(self, ("search_query", "math_exp", "no_such_tool"))),
            "unknown tools are malformed",
            "no_such_tool",
        ),
        (formatting(correction=lambda self, m: ""), "malformed actions are corrected", "in words"),
        (formatting(instructions=lambda self, tools: "use search_query"), "instructions name every tool", "search_query"),
    ],
)
def test_broken_formats_are_found(fmt, rule, said):
    collected = broken("format", fmt)
    assert said in collected[rule], collected


class OneByOne:
    """An agent that is asked state by state, as those behind a server are."""

    async def act_one(self, state):
        return Action(f"<answer>{len(state.steps)}</answer>")

    async def aclose(self):
        pass


class Unclosed:
    act_one = OneByOne.act_one


class Drifting(OneByOne):
    calls = 0

    async def act_one(self, state):
        self.calls += 1
        return Action(f"<answer>{self.calls}</answer>")


def test_an_agent_that_is_asked_state_by_state_keeps_the_same_contract():
    assert broken(None, "test_contract_broken:OneByOne") == {} == broken(None, OneByOne())
    assert "aclose" in next(iter(broken(None, Unclosed()).values()))
    assert "equal states give equal actions" in broken("agent", Drifting())
