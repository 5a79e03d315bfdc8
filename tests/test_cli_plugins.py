"""A stranger's package on the command line: its plugins work by name like the built-in ones, whatever they look like."""

import textwrap

import pytest

from swirl_env import registry

MODULE = '''
from swirl_env.types import Action, Task, ToolResult, Verdict

class Shout:
    """Shouts.

    Args:
        marks: how many marks stand behind it.
    """

    tag = "shout"
    description = "Shouts."

    def __init__(self, marks: int = 1) -> None:
        self.marks = marks

    def run(self, queries):
        return [ToolResult(q.upper() + "!" * self.marks) for q in queries]

class Kind:
    def __init__(self, reward: float = 0.5, **more) -> None:
        self.reward = reward

    def judge(self, steps):
        return [Verdict.good("", "kind", reward=self.reward) for _ in steps]

class Yell:
    def __init__(self, word: str) -> None:
        self.word = word

    def act(self, states):
        return [Action(f"<shout>{self.word}</shout>" if not s.steps else "<answer>yes</answer>") for s in states]

class Doubts:
    corpus = None
    split = "test"
    max_steps = 3

    def __init__(self, size: int = 4) -> None:
        self.size, self.tools = size, ("shout",)

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        return Task(f"doubt-{i}", "Really?", "yes")
'''
ENTRY_POINTS = """
[swirl_env.tools]
shout = loud_plugins:Shout
[swirl_env.judges]
kind = loud_plugins:Kind
[swirl_env.agents]
yell = loud_plugins:Yell
broken = loud_plugins_that_are_missing:Agent
[swirl_env.tasks]
doubts = loud_plugins:Doubts
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder as an installer leaves it: a module and its metadata."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "loud_plugins.py").write_text(textwrap.dedent(MODULE))
    info = folder / "loud_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture(autouse=True)
def installed(site, monkeypatch):
    """The package can be imported, and its entry points are looked up again."""
    monkeypatch.syspath_prepend(str(site))
    registry.entries.cache_clear()
    yield
    monkeypatch.undo()
    registry.entries.cache_clear()


def test_plugins_of_a_stranger_work_by_name(swirl, tmp_path):
    argv = ["task=doubts", "judge=kind", "judge.reward=0.25", "agent=yell", "agent.word=hey", "tool=shout", "tool.shout.marks=3"]
    code, out, err = swirl("generate", *argv, "n=4", "out=run")
    assert code == 0 and "4 episodes, accuracy 1.000" in out, err
    (file,) = (tmp_path / "run/trajectories").glob("*.jsonl")
    assert file.read_text().count("HEY!!!") >= 4 and '"reward":0.25' in file.read_text()


def test_options_that_a_plugin_takes_without_naming_them(swirl):
    code, _, err = swirl(
        "generate", "task=doubts", "judge=kind", "+judge.anything=1", "agent=yell", "agent.word=x", "out=run", "n=1"
    )
    assert code == 0, err
    code, _, err = swirl(
        "generate", "task=doubts", "judge=kind", "judge.anything=1", "agent=yell", "agent.word=x", "out=new", "n=1"
    )
    assert code == 0, err


def test_their_options_are_explained_and_their_mistakes_are_ours_to_say(swirl):
    code, out, _ = swirl("generate", "task=doubts", "agent=yell", "tool=[shout]", "--help")
    assert code == 0 and "how many marks stand behind it." in out and "agent.word" in out and "(required)" in out
    code, _, err = swirl("generate", "task=doubts", "agent=yell")
    assert code == 2 and "needs a value for 'word': give agent.word=..." in err
    code, _, err = swirl("generate", "task=doubts", "agent=broken")
    assert code == 2 and "no module named 'loud_plugins_that_are_missing'" in err and err.count("\n") == 1
    code, _, err = swirl("generate", "task=doubts", "agent=yell", "agent.word=x", "tool.shout.marks=2")
    assert code == 2 and "select them too, tool=[search,...]" in err


def test_check_takes_them_by_name(swirl):
    code, out, err = swirl("check", "shout", "marks=2")
    assert code == 0 and "promises kept" in out, out + err
