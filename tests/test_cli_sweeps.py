"""Sweeps: cells with plain names, commands over all cells, tables with means over seeds, the number for a sweeper."""

import os
import shlex
from pathlib import Path

import pytest

import forked
from commands import error_of
from fakes import EchoAgent
from swirl_env.config.sweep import cell_name
from swirl_env.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")

FILES = ["config.yaml", "environment.json", "trajectories", "verdicts", "selections"]
FAKES = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "agent=fakes:EchoAgent"]


class Interrupts(EchoAgent):
    """Is interrupted in the cell of seed 1, once."""

    def __init__(self, word: str = "a"):
        self.word = word

    def act(self, states):
        if self.word == "b" and not Path("interrupted").exists():
            Path("interrupted").touch()
            raise KeyboardInterrupt
        return super().act(states)


def tree(folder="."):
    return {str(path) for path in Path(folder).rglob("*")}


@pytest.mark.parametrize(
    "overrides",
    [
        "seed=0,task.n=3",
        "agent=a.b\\:C",
        "judge.judges=\\{rules\\:1\\}",
        "tool=[a,b]",
        "out=a b",
        "x='$(rm)';y",
        "k=" + "ä" * 300,
    ],
)
def test_names_of_cells_need_no_escaping(overrides):
    name = cell_name(overrides)
    assert shlex.quote(name) == name and len(name.encode()) < 200 and name == cell_name(overrides)


def test_names_of_different_cells_differ():
    swept = ["x=[a,b]", "x=(a,b)", "x={a,b}", "x=a b", "x=" + "a" * 300, "x=" + "a" * 301]
    assert len({cell_name(one) for one in swept}) == len(swept)


def test_a_sweep_ends_with_a_table_of_means_that_eval_prints_again(swirl):
    code, out, err = swirl("generate", *FAKES, "-m", "n=4", "max_steps=1,3", "seed=0,1", "out=sweep")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("max_steps=")]
    assert [row[:3] for row in rows] == [["max_steps=1", "2", "8"], ["max_steps=3", "2", "8"]]
    assert rows[0][3:6] == ["0.0", "±", "0.0"] and rows[1][3:6] == ["50.0", "±", "0.0"]
    table = out[out.index("4 runs in sweep") :]
    before = {path: Path(path).stat().st_mtime_ns for path in tree("sweep") if path.endswith((".jsonl", "config.yaml"))}
    code, again, _ = swirl("eval", "out=sweep")
    assert code == 0 and again == table
    assert before == {path: Path(path).stat().st_mtime_ns for path in before}
    command = again.splitlines()[-1].removeprefix("next: ").partition("   ")[0]
    assert swirl(*shlex.split(command)[1:])[0] == 0


def test_failed_cells_are_named_and_never_counted(swirl):
    argv = ["generate", *FAKES[:3], "agent=fakes:EchoAgent,fakes:Nobody", "n=2", "-m"]
    code, out, err = swirl(*argv, "out=sweep")
    assert code == 2 and "has no 'Nobody'" in err
    code, out, _ = swirl("eval", "out=sweep") if Path("sweep").exists() else (2, "", "")
    assert "Nobody" not in out or "without results: agent=fakes.Nobody" in out


def test_a_sweep_all_of_whose_cells_failed_is_no_result(swirl):
    code, _, err = swirl("generate", *FAKES[:3], "agent=test_cli_folders:Absent", "seed=0,1", "n=2", "out=sweep", "-m")
    assert code == 2 and "All 2 episodes failed" in err
    code, out, _ = swirl("eval", "out=sweep")
    assert (code == 0 and "- " in out and "100.0" not in out) or code == 2
    Path("other/seed=0").mkdir(parents=True)
    Path("other/multirun.yaml").touch()
    assert "other is a sweep of 1 runs that all failed before they began" in error_of(swirl("eval", "out=other"))
    assert tree("other") == {"other/seed=0", "other/multirun.yaml"}


def test_a_mistake_in_a_sweep_leaves_no_folder(swirl):
    before = tree()
    for argv in (["seed=0,1", "agnt=x"], ["seed=0,x"], ["agent=fakes:EchoAgent,nobody"], ["out=a,b"]):
        code, _, err = swirl("generate", *FAKES, *argv, "-m", *(["out=s"] if "out=a,b" not in argv else []))
        assert (code == 2 and err.startswith("swirl: ")) or "swirl: " in err.splitlines()[-1], argv
    assert not Path("a").exists() and tree() - before <= {"s", "s/multirun.yaml", *tree("s")}


def test_judge_filter_and_eval_work_over_the_cells_of_a_sweep(swirl):
    swirl("generate", *FAKES, "-m", "n=4", "seed=0,1", "out=sweep")
    code, out, err = swirl("judge", "out=sweep", "judge=outcome")
    assert code == 0 and out.count("4 episodes judged") == 2, err
    code, out, err = swirl("filter", "out=sweep", "verdicts=outcome")
    assert code == 0 and all(Store(f"sweep/seed={i}", "r").judges() for i in (0, 1)), err
    assert len(list(Path("sweep").rglob("selections/*.json"))) == 8
    code, out, err = swirl("eval", "out=sweep", "verdicts=outcome")
    assert code == 0 and "verdicts of outcome" in out and "(all)" in out, err


def test_sweeps_of_commands_that_read_a_run_leave_nothing_else(swirl):
    swirl("generate", *FAKES, "n=4", "out=run")
    code, out, err = swirl("judge", "-m", "out=run", "judge=outcome,rules")
    assert code == 0 and out.count("4 episodes judged") == 2, err
    code, out, err = swirl("filter", "-m", "out=run", "verdicts=outcome,rules", "filter=[process]")
    assert code == 0 and len(list(Path("run/selections").iterdir())) == 2, err
    code, out, err = swirl("eval", "out=run", "verdicts=outcome,rules", "-m")
    assert code == 0 and len(list(Path("run").glob("evaluation.*-*.json"))) == 2, err
    swirl("generate", *FAKES, "n=4", "out=two")
    assert swirl("judge", "-m", "out=run,two", "judge=outcome")[0] == 0
    assert {path.name for path in Path().iterdir()} <= {"run", "two", "cache"}
    assert {p.name for p in Path("two").iterdir()} == {*FILES, ".lock"}


def test_an_interrupted_sweep_is_gone_on_with_as_a_whole(swirl):
    argv = ["-m", *FAKES[:3], "agent=test_cli_sweeps:Interrupts", "agent.word=a,b", "seed=0,1", "n=2", "out=sweep"]
    code, _, err = swirl("generate", *argv)
    assert code == 130
    again = err.splitlines()[-1].partition("To go on: swirl ")[2]
    assert "-m" in shlex.split(again) and "agent.word=a,b" in again
    code, out, err = swirl(*shlex.split(again))
    assert code == 0 and "4 runs in sweep" in out, out + err
    assert {len(Store(path.parent, "r")) for path in Path("sweep").rglob("config.yaml")} == {2}


SWEEPER = """
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

class Telling(BasicSweeper):
    def sweep(self, arguments):
        batches = super().sweep(arguments)
        print("told", [job.return_value for batch in batches for job in batch])
"""


@pytest.mark.parametrize(("objective", "told"), [("null", [0.0, 0.5]), ("steps", [1.0, 2.5]), ("process", [1.0, 1.0])])
def test_a_sweeper_is_told_the_number_that_objective_names(tmp_path, objective, told):
    argv = ["generate", *FAKES, "-m", "max_steps=1,3", "n=4", f"objective={objective}", "out=sweep"]
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins/telling.py").write_text(SWEEPER)
    env = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{tmp_path}"}
    words = ["-m", "swirl_env.cli", *argv, "hydra.sweeper._target_=hydra_plugins.telling.Telling"]
    done = forked.run(words, cwd=tmp_path, env=env, timeout=120)
    assert f"told {told}" in done.stdout, done.stdout + done.stderr


def test_an_unknown_objective_is_refused_before_anything_runs(swirl):
    assert "No objective named 'acuracy'. Did you mean 'accuracy'?" in error_of(swirl("generate", "objective=acuracy", "out=x"))
    assert not Path("x").exists()
