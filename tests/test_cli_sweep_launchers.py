"""Sweeps with hydra's launchers and the optuna sweeper, killed and gone on with by the same command."""

import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from commands import finish, started  # noqa: E402
from swirl_env.store import Store  # noqa: E402
from weak import put_warm_starts  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks at processes in /proc"),
    pytest.mark.skipif(
        importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None, reason="needs the extra swirl-env[sweeps]"
    ),
]

FEW = ["train", "-m", "setting=easy", "judge=fakes:Evens", "eval.episodes=2", "eval.before=false", "slots=8"]
FEW += ["algo=return_to_go", "algo.episodes_per_update=4", "save_every=1", "out=sweep"]
GRID = ["updates=1,6", "seed=0,1"]
"""Two short runs and two long ones: when the first has ended, others have not, whatever runs at the same time."""
PAIR = ["generate", "-m", "task=ledger", "agent.noise=0.3", "seed=5", "n=4,4000", "out=sweep"]
"""A short run and a long one, for the launchers that start interpreters: those need no torch."""
SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
SEARCH += ["hydra.sweeper.direction=maximize", "trainer.lr=interval(0.0001,0.01)", "seed=0", "updates=1"]


@pytest.fixture(scope="module", autouse=True)
def environ(tmp_path_factory):
    """The environment of the commands: a cache in which the warm start of the setting is there already, a weak one."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str(root))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        put_warm_starts(root, "easy")
        yield


def processes_in(folder):
    """Returns the processes whose working directory is a folder: a command and whatever it started."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = os.readlink(process / "cwd") == str(folder)
            if inside and "(zombie)" not in (process / "status").read_text():
                pids.append(int(process.name))
        except OSError:
            continue
    return pids


def ended(folder):
    return sorted(path.parent for path in folder.glob("sweep/*/policy"))


def complete(folder):
    runs = sorted(path.parent for path in folder.glob("sweep/*/trajectories"))
    return [run for run in runs if len(Store(run, "r")) == int(run.name.partition("n=")[2])]


def killed(folder, words, done):
    """Starts a sweep and kills it when the first of its runs is done; nothing that it has started may be left."""
    sweep = started(folder, *words)
    while not done(folder):
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.05)
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    for _ in range(200):
        if not processes_in(folder):
            break
        time.sleep(0.05)
    assert not processes_in(folder)


@pytest.mark.parametrize(("words", "cells"), [pytest.param(GRID, 4, id="basic"), pytest.param(SEARCH, 3, id="optuna")])
def test_a_sweep_of_training_killed_in_the_middle_is_finished_by_the_same_command(tmp_path, words, cells):
    killed(tmp_path, [*FEW, *words], ended)
    before = {run: (run / "policy/model.safetensors").stat().st_mtime_ns for run in ended(tmp_path)}
    assert 1 <= len(before) < cells
    code, out, err = finish(started(tmp_path, *FEW, *words), seconds=540)
    assert code == 0 and f"{cells} runs in sweep" in out, out + err
    assert len(ended(tmp_path)) == cells and not processes_in(tmp_path)
    for run in ended(tmp_path):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["update"] for row in rows] == list(range(1, 7 if "updates=6" in run.name else 2)), run
    assert before == {run: (run / "policy/model.safetensors").stat().st_mtime_ns for run in before}
    if words is SEARCH:
        best = (tmp_path / "sweep/optimization_results.yaml").read_text()
        evaluations = [json.loads((run / "evaluation.json").read_text())["after"] for run in ended(tmp_path)]
        assert f"best_value: {max(one['sampled']['accuracy']['value'] for one in evaluations)}" in best


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], id="joblib"),
        pytest.param(["hydra/launcher=submitit_local"], id="submitit"),
    ],
)
def test_a_sweep_in_new_interpreters_killed_in_the_middle_is_finished_by_the_same_command(tmp_path, launcher):
    killed(tmp_path, [*PAIR, *launcher], complete)
    (before,) = complete(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in before.glob("trajectories/*")}
    code, out, err = finish(started(tmp_path, *PAIR, *launcher), seconds=540)
    assert code == 0 and "2 runs in sweep" in out, out + err
    assert len(complete(tmp_path)) == 2 and not processes_in(tmp_path)
    for run in complete(tmp_path):
        store = Store(run, "r")
        assert len(store) == len(store.keys())
    assert written == {path: path.stat().st_mtime_ns for path in before.glob("trajectories/*")}
