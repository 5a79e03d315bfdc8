"""Hydra's own ways: flags in any order, config folders of the user's own, applications that compose the packaged tree."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import forked
from commands import error_of
from swirl_env.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")

HARD = "defaults: [generate, {override agent: random}, {override task: atlas_ledger}, _self_]\nn: 3\n"


@pytest.fixture
def mine(tmp_path):
    """A folder with config files of the user's own: a whole command and a choice of an agent."""
    (tmp_path / "mine/agent").mkdir(parents=True)
    (tmp_path / "mine/hard.yaml").write_text(HARD)
    (tmp_path / "mine/agent/noisy.yaml").write_text("defaults: [scripted, _self_]\nnoise: 0.9\n")


OWN = ["--config-dir", "mine", "--config-name", "hard"]


@pytest.mark.parametrize(
    "argv",
    [
        [*OWN, "out=run", "seed=3"],
        ["out=run", *OWN, "seed=3"],
        ["out=run", "seed=3", *OWN],
        ["--config-name", "hard", "out=run", "--config-dir=mine", "seed=3"],
        ["out=run", "-cd", "mine", "seed=3", "-cn", "hard"],
    ],
)
def test_flags_come_in_any_order(swirl, mine, argv):
    code, _, err = swirl("generate", *argv)
    assert code == 0, err
    assert {t.agent for t in Store("run", "r")} == {"random"} and len(Store("run", "r")) == 3
    assert {len(t.settings.tools) for t in Store("run", "r")} == {2}


@pytest.mark.parametrize("argv", [["tool.search.top_k=2", *OWN], [*OWN, "tool.search.top_k=2"]])
def test_options_of_tools_belong_to_the_task_of_the_config_file(swirl, mine, argv):
    code, _, err = swirl("generate", *argv, "out=run")
    assert code == 0 and "top_k: 2" in Store("run", "r").config(), err
    assert {len(t.settings.tools) for t in Store("run", "r")} == {2}


@pytest.mark.parametrize("argv", [["-m", *OWN, "seed=0,1"], [*OWN, "-m", "seed=0,1"], ["seed=0,1", "--multirun", *OWN]])
def test_sweeps_take_config_folders(swirl, mine, argv):
    code, out, err = swirl("generate", *argv, "out=sweep", "tool.search.top_k=2")
    assert code == 0 and "2 runs in sweep" in out, err
    assert {len(Store(f"sweep/seed={i}", "r")) for i in (0, 1)} == {3}


def test_a_preset_anywhere_on_the_search_path_is_a_sweep(swirl, tmp_path):
    folder = tmp_path / "elsewhere/presets"
    folder.mkdir(parents=True)
    (folder / "two.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {n: '1,2'}}}\n")
    code, out, err = swirl("generate", f"hydra.searchpath=[file://{folder.parent}]", "+presets=two", "task=ledger", "out=s")
    assert code == 0 and "n=1" in out, err
    assert {path.name for path in Path("s").iterdir() if path.is_dir()} == {"n=1", "n=2"}


@pytest.mark.parametrize("argv", [["--help", *OWN], [*OWN, "tool.search.top_k=2", "-h"], ["-m", "seed=0,1", "--help", *OWN]])
def test_help_reads_config_folders(swirl, mine, argv):
    code, out, err = swirl("generate", *argv)
    assert code == 0 and "= random" in out and "= atlas_ledger" in out, err


def test_a_choice_of_ones_own_is_found(swirl, mine):
    code, _, err = swirl("generate", "agent=noisy", "--config-dir", "mine", "n=2", "task=ledger", "out=run")
    assert code == 0 and "noise: 0.9" in Store("run", "r").config(), err


def test_an_unknown_flag_is_one_line(swirl):
    assert "unrecognized arguments: --nope" in error_of(swirl("generate", "--nope", "n=2")).lower()
    assert "--config-dir" in error_of(swirl("generate", "--config-dir"))
    assert "--resolve flag can only be used" in error_of(swirl("generate", "n=2", "--resolve"))
    assert not Path("runs").exists()


APP = """
import hydra

@hydra.main(config_path={path!r}, config_name={name!r}, version_base="1.3")
def main(config):
    print("composed", config.agent.name, config.task.name, config.n)

main()
"""
OWN_APP = "defaults: [generate, {override agent: random}, _self_]\nhydra: {searchpath: ['pkg://swirl_env.conf']}\nn: 7\n"


@pytest.mark.parametrize(
    ("path", "name", "argv", "composed"),
    [
        ("pkg://swirl_env.conf", "generate", ["agent=random", "task=ledger"], "random ledger 100"),
        ("conf", "my_app", ["task=ledger"], "random ledger 7"),
        ("conf", "my_app", ["agent=fakes:EchoAgent"], "fakes:EchoAgent atlas 7"),
    ],
)
def test_an_application_of_ones_own_finds_the_groups(tmp_path, path, name, argv, composed):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/my_app.yaml").write_text(OWN_APP)
    (tmp_path / "app.py").write_text(APP.format(path=path, name=name))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = forked.run(["app.py", *argv], cwd=tmp_path, env=env, timeout=60)
    assert done.returncode == 0 and f"composed {composed}" in done.stdout, done.stderr[-1500:]


def test_the_compose_api_finds_the_groups(tmp_path):
    code = "from hydra import compose, initialize_config_module\n"
    code += "with initialize_config_module('swirl_env.conf', version_base='1.3'):\n"
    code += "    print(compose('generate', ['agent=random', 'tool=[search]']).tool.search.top_k)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip().isdigit(), done.stderr[-1500:]
