"""The contract suite: every registered plugin keeps it; plugins by path are built and built again."""

import functools
import os
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from chat_server import ChatServer
from fakes import CallJudge, EchoAgent, EchoTool, SumTasks
from swirl_env import registry
from swirl_env.contract import CONTRACTS, Finding, assert_contract, check, detect
from swirl_env.episodes.formats import XmlFormat
from swirl_env.episodes.rollout import collect
from swirl_env.errors import ConfigError, DataNotFound, MissingExtra, UnknownName
from swirl_env.types import Action
from swirl_env.vector import ToolVectorEnv

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = {
    ("task", "atlas"): {"documents": 400, "size": 60},
    ("task", "atlas_ledger"): {"documents": 400, "size": 60},
    ("task", "ledger"): {"size": 60},
    ("judge", "weighted"): {"judges": {"rules": 0.7, "outcome": 0.3}},
    ("judge", "cached"): {"judge": "rules"},
}
"""Options with which a built-in is small, or at its most telling."""

ELSEWHERE = {("judge", "likelihood"), ("judge", "information_gain"), ("judge", "reward_model"), ("tool", "mcp")}
ELSEWHERE |= {("tool", f"search_{engine}") for engine in ("http", "tantivy", "qdrant", "lucene")}
ELSEWHERE |= {("task", "gym"), ("task", "reasoning_gym"), ("task", "verifiers")}
"""Checked next to the models, servers, engines and environments that they need: tests/test_judges_likelihood.py,
test_tools_mcp.py, test_tools_search_engines.py and test_imports_*.py."""
REGISTERED = [(kind, name) for kind in CONTRACTS for name in registry.names(kind) if (kind, name) not in ELSEWHERE]


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
        return {"trajectories": list(collect(EchoAgent(), venv.engine, 20, venv.num_envs))}
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
    if (kind, name) == ("agent", "openai"):
        server = ChatServer().__enter__()
        request.addfinalizer(functools.partial(server.__exit__))
        return {"model": "tiny", "base_url": server.url}
    return SMALL.get((kind, name), {})


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


class Spaced(EchoTool):
    tag = "a b"


def test_assert_contract_lists_every_broken_rule():
    with pytest.raises(AssertionError, match=r"1 broken rule of .*\n  BROKEN tag is an xml name: expected a tag"):
        assert_contract("tool", Spaced())
    assert_contract("tool", EchoTool())
    assert str(Finding("a", True, "b")) == "ok     a: b"
