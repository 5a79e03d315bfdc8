"""Equal names mean equal behaviour: code, options, and the content of files and weights name a plugin's table of verdicts."""

import functools
import importlib
import sys
from pathlib import Path

import pytest

from swirl_env.episodes.transcript import initial_state
from swirl_env.fingerprint import fingerprint
from swirl_env.judges.cached import CachedJudge
from swirl_env.judges.llm import LlmJudge
from swirl_env.judges.noisy import NoisyJudge
from swirl_env.registry import make_format, make_judge
from swirl_env.source_code import source_hash
from swirl_env.types import Action, Settings, SubTrajectory, Task

JUDGE = '''
"""A judge."""
from swirl_env.types import Verdict
{imports}

class Mine:
    """Likes everything."""

    def __init__(self, reward: float = 1.0, path: str = "", asked=None):
        self.reward, self.path = reward, path

    def judge(self, steps):
        return [{verdict} for _ in steps]
'''


def write(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for module in [m for m in sys.modules if m.partition(".")[0] in ("mine", "mine_package", "mine_helper")]:
        del sys.modules[module]
    importlib.invalidate_caches()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module with a judge in an empty folder, and returns its fingerprint as it is then imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a stale .pyc of the same second and size would be imported

    def name(imports="", verdict="Verdict.good(reward=self.reward)", text=JUDGE, **options):
        write("mine.py", text.format(imports=imports, verdict=verdict))
        return fingerprint({"name": "mine:Mine", **options})

    yield name
    write("mine.py", "")


def test_an_edited_judge_is_another_judge(module):
    first = module()
    assert module(verdict="Verdict.bad()") != first
    assert module(verdict="Verdict.good(reward=self.reward + 0)") != first
    assert module() == first
    assert module(reward=2.0) != first


def test_comments_docstrings_and_layout_are_not_behaviour(module):
    first = module()
    text = JUDGE.replace("Likes everything.", "Likes all.").replace("class Mine", "# why\n\n\nclass Mine")
    assert module(text=text) == first


@pytest.mark.parametrize("how", ["import mine_helper", "from mine_helper import BONUS"])
def test_an_edited_helper_next_to_the_judge_counts(module, how):
    verdict = "Verdict.good(reward=mine_helper.BONUS)" if how.startswith("import") else "Verdict.good(reward=BONUS)"
    write("mine_helper.py", "BONUS = 1.0\n")
    first = module(how, verdict)
    write("mine_helper.py", "BONUS = 2.0\n")
    assert module(how, verdict) != first
    write("mine_helper.py", "BONUS = 1.0  # one\n")
    assert module(how, verdict) == first


def test_helpers_base_classes_and_lazy_imports_of_a_package_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    base = "class Base:\n    def judge(self, steps):\n        return rule.rate(steps)\n"
    files = {
        "mine_package/__init__.py": "",
        "mine_package/judge.py": "from .base import Base\nclass Mine(Base):\n    pass\n",
        "mine_package/base.py": f"from mine_package import rule\n{base}",
        "mine_package/rule.py": "def rate(steps):\n    from mine_package.late import value\n    return [value] * len(steps)\n",
        "mine_package/late.py": "value = 1\n",
        "mine_package/other.py": "nobody = 'imports this'\n",
    }
    for name, text in files.items():
        write(name, text)
    first = fingerprint("mine_package.judge:Mine")
    for name, text in files.items():
        if name.endswith("__init__.py"):
            continue
        write(name, text + "\nEXTRA = 1\n")
        changed = fingerprint("mine_package.judge:Mine") != first
        assert changed == (not name.endswith("other.py")), name
        write(name, text)
    assert fingerprint("mine_package.judge:Mine") == first


def test_code_without_a_file_counts_by_what_it_does():
    def build(body):
        names = {"__name__": "nowhere"}
        exec(f"class Mine:\n    def judge(self, steps):\n        return {body}\ndef rate(steps):\n    return {body}\n", names)
        return names

    one, two, same = build("[1 for s in steps]"), build("[2 for s in steps]"), build("[1 for s in steps]")
    for name in ("Mine", "rate"):
        assert source_hash(one[name]) == source_hash(same[name]) != source_hash(two[name])
    assert source_hash(lambda s: s + 1) != source_hash(build("3")["rate"])
    assert source_hash(functools.partial(one["rate"])) == source_hash(one["rate"])


@pytest.mark.parametrize("name", ["rules", "outcome", "weighted"])
def test_built_in_judges_have_one_name_each(name):
    assert fingerprint(name) == fingerprint(make_judge(name)) == fingerprint({"name": name})
    assert fingerprint(name).startswith(f"{name}-")


# Files and weights


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_other_weights_under_the_same_path_are_another_judge(module, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    weights = tmp_path / "weights" / "model.bin"
    weights.parent.mkdir()
    weights.write_bytes(b"one")
    path = str(weights if kind == "file" else weights.parent)
    first = module(path=path)
    weights.write_bytes(b"two")
    assert module(path=path) != first
    weights.write_bytes(b"one")
    assert module(path=path) == first
    if kind == "folder":
        (weights.parent / "config.json").write_text("{}")
        assert module(path=path) != first


def test_a_relative_path_counts_by_its_content(module, tmp_path, monkeypatch):
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    Path("weights").mkdir()
    Path("weights/w").write_bytes(b"one")
    first = module(path="weights")
    Path("weights/w").write_bytes(b"two")
    assert module(path="weights") != first
    assert module(path="no such file") == module(path="no such file")


def test_other_weights_in_the_same_model_are_another_agent():
    torch = pytest.importorskip("torch")
    tiny_lm = pytest.importorskip("tiny_lm")
    model = tiny_lm.llama(len(tiny_lm.tokenizer()))
    agent = tiny_lm.agent(model)
    first = LlmJudge(agent).fingerprint
    assert LlmJudge(tiny_lm.agent(model)).fingerprint == first
    with torch.no_grad():
        next(iter(model.parameters())).view(-1)[0] += 1
    assert LlmJudge(tiny_lm.agent(model)).fingerprint != first


class Counting:
    """Rates by the content of a file, and counts what it is asked."""

    asked = 0

    def __init__(self, path):
        self.path = path
        self.content = Path(path).read_text()

    def judge(self, steps):
        from swirl_env.types import Verdict

        Counting.asked += len(steps)
        return [Verdict.good(reward=float(self.content)) for _ in steps]


@pytest.mark.parametrize("wrap", [lambda spec: spec, lambda spec: NoisyJudge(spec, flip=0.0)], ids=["bare", "wrapped"])
def test_the_cache_asks_again_after_other_weights_took_the_path(tmp_path, monkeypatch, wrap):
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    state = initial_state(Task("t", "q", "gold"), "q", Settings(tools=("search_query",), max_steps=4))
    action = Action("<answer>x</answer>")
    step = SubTrajectory(state, action, make_format("xml", ("search_query",)).parse(action.text))
    path, rewards = tmp_path / "weights.bin", []
    Counting.asked = 0
    for content in ("1", "1", "2", "1"):
        path.write_text(content)
        judge = CachedJudge(wrap(Counting(str(path))), str(tmp_path / "verdicts"))
        rewards.append(judge.judge([step])[0].reward)
    assert rewards == [1.0, 1.0, 2.0, 1.0] and Counting.asked == 2


def test_the_prompt_of_a_judge_counts(monkeypatch):
    from swirl_env.judges import llm

    class Model:
        def act(self, states):
            return []

    first = LlmJudge(Model()).fingerprint
    monkeypatch.setattr(llm, "_PROMPT", llm._PROMPT + " Be strict.")
    assert LlmJudge(Model()).fingerprint != first
