"""The README's code runs as it stands, and its tables name what is registered."""

import re
from pathlib import Path

import pytest

import forked
import swirl_env
from swirl_env import registry
from swirl_env.store.filters import FILTERS

TEXT = (Path(__file__).resolve().parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(code, tmp_path):
    (tmp_path / "code.py").write_text(code)
    done = forked.run(["code.py"], cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_loop(tmp_path):
    out = run(BLOCKS[0], tmp_path)
    assert "GOOD" in out and "correct: " in out and "Question:" in out
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 18


def test_the_plugin(tmp_path):
    use = """
import gymnasium as gym, swirl_env
env = gym.make("swirl_env/Atlas-v0", tools=["search", Thesaurus()])
env.reset(seed=0)
print(env.step("<synonym>big</synonym>")[0])
"""
    assert "big -> large" in run(BLOCKS[1] + use, tmp_path)


def test_the_training_loop(tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    out = run(BLOCKS[2], tmp_path)
    before, after = map(float, re.findall(r"\d\.\d+", out))
    assert after > before + 0.3


def test_the_tables_are_whole():
    for name, tasks in swirl_env.ENV_IDS.items():
        assert f"| `{name}` | `{tasks}` |" in TEXT
    for kind, row in {"tool": "tools", "judge": "judges", "agent": "agents", "format": "formats", "algo": "algorithms"}.items():
        (line,) = re.findall(rf"^\| {row} \| (.*) \|$", TEXT, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", line)) == set(registry.names(kind)), row
    (line,) = re.findall(r"^\| filters \| (.*) \|$", TEXT, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) == set(FILTERS)
