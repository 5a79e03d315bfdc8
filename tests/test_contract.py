"""The contract suite: on every registered plugin, and on plugins that each break one promise."""

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT

from fakes import BrokenTool, CallJudge, EchoAgent, EchoTool, SumTasks
from swirl_env import registry
from swirl_env.actions import XmlFormat
from swirl_env.contract import CONTRACTS, Finding, assert_contract, check, detect
from swirl_env.corpus import MemoryCorpus
from swirl_env.errors import ConfigError, DataNotFound, MissingExtra, UnknownName
from swirl_env.rollout import collect
from swirl_env.types import Action, Passage, PlanStep, Task, ToolResult, Verdict
from swirl_env.vector import ToolVectorEnv

SMALL = {
    ("task", "atlas"): {"documents": 400, "size": 60},
    ("task", "atlas_ledger"): {"documents": 400, "size": 60},
    ("task", "ledger"): {"size": 60},
    ("judge", "weighted"): {"judges": {"rules": 0.7, "outcome": 0.3}},
    ("judge", "cached"): {"judge": "rules"},
}
"""Options with which a built-in is small, or at its most telling."""

REGISTERED = [(kind, name) for kind in CONTRACTS for name in registry.names(kind)]


class Lenient(EchoAgent):
    """A model that likes every step."""

    def _one(self, state):
        return Action("It helps.\nGOOD")


def options_of(kind, name, tmp_path, request):
    """Returns options for plugins that cannot be built without."""
    if (kind, name) == ("judge", "llm"):
        return {"agent": Lenient()}
    if (kind, name) == ("agent", "replay"):
        venv = ToolVectorEnv(SumTasks(), 4, tools=[EchoTool()], judge=None)
        return {"trajectories": list(collect(EchoAgent(), venv, 20))}
    if (kind, name) == ("task", "jsonl"):
        (tmp_path / "own.jsonl").write_text('{"question": "1 + 1?", "answer": 2}\n{"question": "Where?", "answer": "Oslo"}\n')
        return {"path": str(tmp_path / "own.jsonl")}
    if (kind, name) == ("agent", "transformers"):
        tiny_lm = pytest.importorskip("tiny_lm", exc_type=ImportError)
        torch = tiny_lm.torch
        request.addfinalizer(functools.partial(torch.set_num_threads, torch.get_num_threads()))
        torch.set_num_threads(1)  # threads that wait for one another on a busy machine cost ten times what they save here
        tokenizer = tiny_lm.tokenizer()
        model = tiny_lm.llama(len(tokenizer), context=8192)
        return {"model": model, "tokenizer": tokenizer, "max_new_tokens": 4}
    return SMALL.get((kind, name), {})


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize(("kind", "name"), REGISTERED, ids=[f"{kind}-{name}" for kind, name in REGISTERED])
def test_every_registered_plugin_keeps_its_contract(kind, name, tmp_path, monkeypatch, request):
    if name == "human":
        pytest.skip("asks at a terminal")
    data = Path(os.environ.get("SWIRL_DATA_DIR") or ROOT.parent / "shared" / "data").resolve()
    if data.is_dir():
        monkeypatch.setenv("SWIRL_DATA_DIR", str(data))
    try:
        assert_contract(kind, name, **options_of(kind, name, tmp_path, request))
    except (DataNotFound, MissingExtra) as absent:
        pytest.skip(str(absent))


@pytest.mark.parametrize("plugin", [EchoTool(), CallJudge(), EchoAgent(), SumTasks(), XmlFormat(("search_query", "math_exp"))])
def test_good_plugins_pass_and_their_kind_is_found(plugin):
    findings = check(None, plugin)
    assert len(findings) > 5 and all(finding.ok for finding in findings)
    assert all(finding.message.endswith(".") for finding in findings)
    assert detect(plugin) == detect(type(plugin))


def broken(kind, plugin):
    """The findings that are not ok, as {name: message}; each message is one readable line."""
    found = {f.name: f.message for f in check(kind, plugin) if not f.ok}
    assert all(message.startswith("expected ") and "\n" not in message and len(message) < 500 for message in found.values())
    return found


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
        found = super().run(queries)
        if isinstance(queries, list):
            queries.clear()
        return found


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
        (BrokenTool(), "one result a query", "RuntimeError: out of order at fakes.py"),
        (Short(), "one result a query", "7 results for 7 queries, got 6"),
        (Greedy(), "one result a query", "changed list"),
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
    found = broken("tool", tool)
    assert said in found[rule], found


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
        (Hasty(), "one verdict a step", "got 1"),
        (judging(lambda s: 1.0), "survives every step", "got float"),
        (judging(lambda s: Verdict.good(s.result.text)), "survives every step", "AttributeError"),
        (judging(lambda s: Verdict.good(s.call.query)), "survives every step", "I believe that it is Oslo"),
        (judging(lambda s: Verdict("scored", None)), "statuses are consistent", "finite reward"),
        (judging(lambda s: Verdict("scored", float("nan"))), "statuses are consistent", "finite reward"),
        (judging(lambda s: Verdict("failed", 0.0, None, "down")), "statuses are consistent", "never a zero"),
        (judging(lambda s: Verdict.failed("")), "statuses are consistent", "say why"),
        (judging(lambda s: Verdict("maybe", 1.0)), "statuses are consistent", "scored, unscored"),
        (judging(lambda s: Verdict("scored", 1.0, "good")), "statuses are consistent", "GOOD or BAD"),
        (judging(lambda s: Verdict("scored", 1.0, parts={"a": float("inf")})), "statuses are consistent", "finite numbers"),
        (judging(lambda s: Verdict.good("\ud800")), "verdicts can be stored", "JSON"),
        (Drifting(), "a batch equals singles", "its step alone"),
        (Marking(), "leaves its input alone", "copy meta"),
    ],
)
def test_broken_judges_are_found(judge, rule, said):
    found = broken("judge", judge)
    assert said in found[rule], found


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
    found = broken("agent", agent)
    assert said in found[rule], found


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
        (tasks(lambda i: sums(i, answer="ten", grading="number")), "gold answers are right", "grading='text'"),
        (tasks(lambda i: sums(i, plan=(PlanStep("math_exp", "1", needs=(0,)),))), "plans lead forward", "needs=(0,)"),
        (tasks(find=lambda self, task_id: self[0]), "ids are found", "'sum-2'"),
        (
            tasks(__getitem__=lambda self, i: sums(i % 20)),
            "indexing ends where it should",
            "IndexError for tasks[20] with len 20, got a task",
        ),
        (tasks(__getitem__=lambda self, i: {j: sums(j) for j in range(20)}[i]), "indexing ends where it should", "KeyError"),
        (tasks(passages=[*P, P[0]]), "passage ids are unique", "'p0' twice"),
        (tasks(corpus=Torn(P)), "corpus is readable", "corpus[1]"),
        (tasks(corpus=Endless(P)), "corpus is readable", "7 passages in the stream, got 5"),
        (tasks(corpus=P), "corpus is readable", "got list"),
        (tasks(lambda i: sums(i, evidence=("p9",)), P), "evidence is in the corpus", "['p9']"),
    ],
)
def test_broken_task_sources_are_found(source, rule, said):
    found = broken("task", source)
    assert said in found[rule], found


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
    found = broken("format", fmt)
    assert said in found[rule], found


MODULE = """
import random
from fakes import SumTasks
from swirl_env.types import Action, Task, Verdict

class Luck:
    def __init__(self): self.luck = random.random()
    def act(self, states): return [Action(f"<echo>{self.luck}</echo>") for _ in states]

class Mood:
    def __init__(self): self.mood = random.random()
    def judge(self, steps): return [Verdict.good(reward=self.mood) for _ in steps]

class Chance(SumTasks):
    def __init__(self): self.n, self.luck = 3, random.random()
    def __getitem__(self, i): return Task(super().__getitem__(i).id, f"{self.luck}?", "1")

class Raises:
    def __init__(self): raise RuntimeError("no licence")
    def run(self, queries): return []

class Needs:
    tag, description = "needs", "Needs a key."
    def __init__(self, key: str): self.key = key
    def run(self, queries): return []
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "contract_plugins.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "contract_plugins"
    sys.modules.pop("contract_plugins", None)


@pytest.mark.parametrize(
    ("attr", "rule"),
    [
        ("Luck", "built twice it acts the same"),
        ("Mood", "built twice it judges the same"),
        ("Chance", "built twice it is the same"),
        ("Raises", "can be built"),
    ],
)
def test_plugins_by_path_are_built_twice(module, attr, rule):
    (found,) = [finding for finding in check(None, f"{module}:{attr}") if not finding.ok]
    assert found.name == rule and ("option" in found.message or "no licence" in found.message or "seed" in found.message)


def test_what_is_not_there_is_an_error_not_a_finding(module):
    with pytest.raises(UnknownName, match="Did you mean 'calculator'"):
        check(None, "calculater")
    with pytest.raises(UnknownName, match="Did you mean 'judge'"):
        check("judges", "rules")
    with pytest.raises(UnknownName, match="no 'Nothing'"):
        check(None, f"{module}:Nothing")
    with pytest.raises(ConfigError, match=r"needs a value for key; give it as an option, key=\.\.\."):
        check("tool", f"{module}:Needs")
    with pytest.raises(ConfigError, match="none of these methods"):
        check(None, object())
    with pytest.raises(ConfigError, match="is an object"):
        check("tool", EchoTool(), top_k=3)


def test_assert_contract_lists_every_broken_promise():
    with pytest.raises(AssertionError, match=r"1 broken promise of .*\n  BROKEN tag is an xml name: expected a tag"):
        assert_contract("tool", named(tag="a b"))
    assert_contract("tool", EchoTool())
    assert str(Finding("a", True, "b")) == "ok     a: b"
