"""The page on bringing environments in: its code is written out and its commands run, a hundred episodes each."""

import contextlib
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from swirl_env.store import Store

pytestmark = pytest.mark.slow
TEXT = (ROOT / "docs/bring-environments.md").read_text()
BLOCKS = {match[1]: match[0] for match in re.finditer(r'(?<=```python\n)"""(\w+\.py)[^`]*', TEXT)}
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if line.startswith("swirl generate ")]
COMMANDS = {shlex.split(line)[2]: shlex.split(line)[1:] for line in LINES}
"""The task of a command -> its arguments."""


@pytest.fixture
def folder(swirl, tmp_path, monkeypatch):
    """A folder with the files of the page, which Python imports from; ``python`` is this one."""
    for name, code in BLOCKS.items():
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    yield tmp_path
    for name in BLOCKS:
        sys.modules.pop(name.removesuffix(".py"), None)


def generate(swirl, task):
    code, out, err = swirl(*COMMANDS[task])
    assert code == 0, err
    (path,) = [word.removeprefix("out=") for word in COMMANDS[task] if word.startswith("out=")]
    assert out.startswith(f"100 episodes, accuracy 1.000 in {path}")
    trajectories = list(Store(path))
    assert len({trajectory.task.id for trajectory in trajectories}) == 100
    assert not any(step.verdict.status != "scored" for trajectory in trajectories for step in trajectory.steps)
    return trajectories


def test_reasoning_gym_by_the_command_line(swirl, folder):
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    for trajectory in generate(swirl, "task=reasoning_gym"):
        assert [step.verdict.reward for step in trajectory.steps] == [0.0, 1.0]


def test_reasoning_gym_in_python(swirl, folder):
    pytest.importorskip("reasoning_gym", reason="needs the extra reasoning-gym")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "build_engine" in block]
    exec(code, {})
    assert [trajectory.outcome.correct for trajectory in Store("runs/api")] == [True] * 100


def test_the_public_server_of_time_by_the_command_line_and_in_python(swirl, folder):
    for package in ("mcp", "mcp_server_time"):
        pytest.importorskip(package, reason="needs the package mcp-server-time and the extra mcp")
    runpy.run_path("times.py")
    trajectories = generate(swirl, "task=jsonl")
    assert {step.call.tool for t in trajectories for step in t.steps[:-1]} == {"convert_time"}

    from solvers import times  # pyright: ignore[reportMissingImports]  # written by the fixture

    import swirl_env
    from swirl_env.env import build_engine
    from swirl_env.rollout import collect

    server = {"name": "mcp", "command": [sys.executable, "-m", "mcp_server_time"], "tools": ["convert_time"], "shared": True}
    engine = build_engine(swirl_env.make_tasks("jsonl", path="times.jsonl"), tools=[server], judge="outcome")
    again = {t.task.id: [s.verdict.reward for s in t.steps] for t in collect(times, engine, 100)}
    assert again == {t.task.id: [s.verdict.reward for s in t.steps] for t in trajectories}


def test_an_environment_of_gymnasium_by_the_command_line(swirl, folder):
    with contextlib.suppress(KeyError):
        import gymnasium as gym

        del gym.registry["Guess-v0"]
    for trajectory in generate(swirl, "task=gym"):
        assert [step.verdict.reward for step in trajectory.steps][-1] == 1.0 and trajectory.outcome.correct


def test_every_command_of_the_page_is_run_here_or_needs_a_server_of_its_own():
    assert set(COMMANDS) == {"task=reasoning_gym", "task=jsonl", "task=gym", "task=verifiers"}
