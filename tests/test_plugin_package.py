"""A stranger's package brings a tool, a judge, an agent and a task by entry points; all of them work by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swirl_env.store import Store

PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "swirl-capitals"
version = "1.0"

[project.entry-points."swirl_env.tools"]
capitals = "swirl_capitals:Capitals"
capitals_broken = "swirl_capitals:Broken"

[project.entry-points."swirl_env.judges"]
brief = "swirl_capitals:Brief"

[project.entry-points."swirl_env.agents"]
shouter = "swirl_capitals:Shouter"

[project.entry-points."swirl_env.tasks"]
shouting = "swirl_capitals:Shouting"

[tool.setuptools]
py-modules = ["swirl_capitals"]
"""

MODULE = '''\
"""Words in capitals: a plugin package for swirl-env."""

from swirl_env.types import Action, Task, ToolResult, Verdict

WORDS = ("oslo", "ghent", "turin", "porto", "leeds", "bergen")


class Capitals:
    """Writes text in capitals.

    Args:
        mark: what to add at the end.
    """

    tag = "capitals"
    description = "writes your text in capitals."

    def __init__(self, mark: str = "") -> None:
        self.mark = mark

    def run(self, queries):
        return [ToolResult(query.upper() + self.mark) for query in queries]


class Broken(Capitals):
    """Chokes on what is not ASCII, and on empty text."""

    tag = "capitals!"

    def run(self, queries):
        return [ToolResult(query.encode("ascii").decode().upper()) for query in queries if query]


class Brief:
    """Likes short actions.

    Args:
        most: longest action that is GOOD, in characters.
    """

    def __init__(self, most: int = 40) -> None:
        self.most = most

    def judge(self, steps):
        return [self.one(step.action.text) for step in steps]

    def one(self, text):
        return Verdict.good("short", "brief", 0.75) if len(text) <= self.most else Verdict.bad("long", "brief")


class Shouter:
    """Calls the tool, then answers with what it gave.

    Args:
        polite: whether to say please.
    """

    def __init__(self, polite: bool = False) -> None:
        self.please = "please, would you kindly do this for me: " if polite else ""

    def act(self, states):
        return [self.one(state) for state in states]

    def one(self, state):
        if state.steps and state.steps[-1].result is not None:
            return Action(f"<answer>{state.steps[-1].result.text.strip('!') or '?'}</answer>")
        return Action(f"{self.please}<capitals>{state.task.question.split()[-1].strip('?')}</capitals>")


class Shouting:
    """Asks for words in capitals.

    Args:
        size: how many words.
    """

    corpus = None
    split = "test"
    tools = ("capitals",)
    max_steps = 3

    def __init__(self, size: int = 6) -> None:
        self.words = WORDS[:size]

    def __len__(self):
        return len(self.words)

    def __getitem__(self, index):
        word = self.words[index]
        return Task(f"shout-{word}", f"How do you shout {word}?", word.upper())
'''

LOOP = """
import json, sys
import gymnasium as gym
import swirl_env

env = gym.make("swirl_env/ToolUse-v0", tasks="shouting", tools=[{"name": "capitals", "mark": "!"}], judge="brief")
agent = swirl_env.make_agent("shouter", polite=True)
prompt, _ = env.reset(seed=0, options={"task_id": "shout-turin"})
rewards, shown, over = [], [], False
while not over:
    (action,) = agent.act([env.unwrapped.state])
    observation, reward, terminated, truncated, info = env.step(action.text)
    rewards.append(reward)
    shown.append(observation)
    over = terminated or truncated
print(json.dumps([prompt, rewards, shown, info["outcome"].correct]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the package is installed as pip installs it, without touching this environment."""
    source, target = tmp_path_factory.mktemp("swirl-capitals"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "swirl_capitals.py").write_text(MODULE)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def run(site, tmp_path):
    """Runs Python with the package on its path; returns exit code, output and errors."""

    def runs(*args: str, where: Path = tmp_path) -> tuple[int, str, str]:
        env = {**os.environ, "PYTHONPATH": str(site), "SWIRL_CACHE_DIR": str(tmp_path / "cache"), "COLUMNS": "200"}
        done = subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, cwd=where, env=env)
        return done.returncode, done.stdout, done.stderr

    return runs


def test_all_four_work_by_name_in_gym_make(run):
    code, out, err = run("-W", "error", "-c", LOOP)
    assert code == 0, err
    prompt, rewards, shown, correct = json.loads(out)
    assert "<capitals>...</capitals>: writes your text in capitals." in prompt and "How do you shout turin?" in prompt
    assert rewards == [0.0, 0.75], "a polite call is too long for the judge, the answer is not"
    assert shown == ["turin -> TURIN!", ""] and correct is True


def test_all_four_work_by_name_on_the_command_line(run, tmp_path):
    options = ["task=shouting", "tool=capitals", "judge=brief", "agent=shouter", "n=6", "samples=1", "out=run"]
    code, _, err = run("-m", "swirl_env.cli", "generate", *options, "judge.most=30", "tool.capitals.mark=!", "task.size=6")
    assert code == 0, err
    stored = list(Store(tmp_path / "run", mode="r"))
    assert sorted(t.task.id.removeprefix("shout-") for t in stored) == ["bergen", "ghent", "leeds", "oslo", "porto", "turin"]
    for t in stored:
        word = t.task.id.removeprefix("shout-")
        assert [step.action.text for step in t.steps] == [f"<capitals>{word}</capitals>", f"<answer>{word.upper()}</answer>"]
        assert t.steps[0].result.text == word.upper() + "!" and t.outcome.correct is True
        assert [step.verdict.reward for step in t.steps] == [0.75, 0.75]
        assert {step.verdict.judge for step in t.steps} == {"brief"}


def test_the_command_line_names_the_stranger_among_the_choices(run):
    code, out, err = run("-m", "swirl_env.cli", "generate", "--help")
    assert code == 0, err
    assert all(name in out for name in ("shouting", "capitals", "brief", "shouter"))


def test_swirl_check_passes_on_each(run):
    names = ("capitals", "brief", "shouter", "shouting", "swirl_capitals:Capitals")
    code, out, err = run("-m", "swirl_env.cli", "check", *names)
    assert code == 0, out + err
    assert "BROKEN" not in out and all(name in out for name in names)


def test_swirl_check_reports_a_broken_one(run):
    code, out, err = run("-m", "swirl_env.cli", "check", "capitals_broken")
    assert code == 1 and "Traceback" not in out + err
    lines = [line for line in out.splitlines() if "BROKEN" in line]
    assert len(lines) == 2 and "expected a tag of letters, digits and '_', got 'capitals!'" in lines[0]
    assert "UnicodeEncodeError" in lines[1] and "swirl_capitals.py:" in lines[1] and "return ToolResult(text" in lines[1]
    code, out, err = run("-m", "swirl_env.cli", "check", "swirl_capitals:Nothing")
    assert code == 2 and "has no 'Nothing'" in err and "Traceback" not in err
