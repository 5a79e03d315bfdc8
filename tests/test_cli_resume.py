"""Runs that stop half-way: killed at any moment, interrupted, continued with the same or another configuration."""

import os
import signal
import time
from pathlib import Path

import pytest

from commands import finish, started
from swirl_env.stages.generate import Tally
from swirl_env.store import Store

RUN = ["generate", "task=ledger", "agent.noise=0.3", "n=1500", "samples=2", "slots=32", "seed=5"]


def stored(folder):
    """Returns how many bytes of trajectories there are."""
    return sum(path.stat().st_size for path in Path(folder).glob("trajectories/*.jsonl"))


def wait_for(process, folder, size):
    """Waits until a run has stored so much; False where it ended before."""
    while stored(folder) < size:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    return True


def lines(folder):
    return sorted(line for path in Path(folder).glob("trajectories/*.jsonl") for line in path.read_bytes().splitlines())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, made by a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    code, out, err = finish(started(folder, *RUN, "out=run"))
    assert code == 0 and "1500 episodes" in out, err
    return folder / "run"


def test_a_killed_run_goes_on_and_ends_like_an_unbroken_one(whole, tmp_path):
    kills = 0
    for part in (0.0, 0.3, 0.6, 0.9):
        process = started(tmp_path, *RUN, "out=run", "resume=true")
        if wait_for(process, tmp_path / "run", part * stored(whole)):
            kills += 1
            process.send_signal(signal.SIGKILL)
        finish(process)
    assert kills >= 3
    code, out, err = finish(started(tmp_path, "generate", "out=run", "resume=true"))
    assert code == 0 and "1500 episodes" in out, err
    assert lines(tmp_path / "run") == lines(whole)
    store, other = Store(tmp_path / "run", "r"), Store(whole, "r")
    assert len(store) == len(store.keys()) == 1500 and store.keys() == other.keys()
    (table,) = store.judges()
    assert dict(store.verdicts(table)) == dict(other.verdicts(table))


def test_ctrl_c_leaves_a_run_that_goes_on(whole, tmp_path):
    process = started(tmp_path, *RUN, "out=run")
    assert wait_for(process, tmp_path / "run", 1)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "Traceback" not in err
    assert " of 1500 episodes are in run. To go on: swirl generate out=run resume=true" in err.splitlines()[-1]
    assert len(Store(tmp_path / "run", "r").keys()) < 1500
    code, _, err = finish(started(tmp_path, "generate", "out=run", "resume=true"))
    assert code == 0 and lines(tmp_path / "run") == lines(whole), err


def test_same_seed_same_bytes(whole, tmp_path):
    code, _, err = finish(started(tmp_path, *RUN, "out=again"))
    assert code == 0, err
    for room in ("trajectories", "verdicts"):
        (one,), (two,) = (list((folder / room).glob("*.jsonl")) for folder in (whole, tmp_path / "again"))
        assert one.name == two.name and one.read_bytes() == two.read_bytes()
    code, _, err = finish(started(tmp_path, *RUN, "seed=6", "out=other"))
    assert code == 0 and lines(tmp_path / "other") != lines(whole), err


def test_a_run_is_not_mixed_with_another(swirl):
    assert swirl("generate", "task=ledger", "agent.noise=0.1", "n=5", "out=run")[0] == 0
    code, _, err = swirl("generate", "task=ledger", "agent.noise=0.1", "n=5", "out=run")
    assert code == 2 and "run already holds a run. To go on with it add resume=true" in err
    code, _, err = swirl("generate", "task=ledger", "agent.noise=0.3", "n=5", "out=run", "resume=true")
    assert code == 2 and "agent.noise was 0.1, now 0.3" in err and err.count("\n") == 1
    code, _, err = swirl("generate", "out=run", "resume=true", "n=3")
    assert code == 2 and "n was 5, now 3" in err
    assert len(Store("run", "r")) == 5


def test_a_run_may_grow_and_run_in_other_slots(swirl):
    swirl("generate", "task=ledger", "n=5", "out=run")
    code, out, _ = swirl("generate", "task=ledger", "n=8", "slots=2", "out=run", "resume=true")
    assert code == 0 and "8 episodes" in out
    code, out, _ = swirl("generate", "n=9", "out=run", "resume=true")
    assert code == 0 and "9 episodes" in out and len(Store("run", "r").keys()) == 9
    code, out, _ = swirl("generate", "out=run", "resume=true")
    assert code == 0 and "9 episodes" in out


def test_an_evaluation_that_was_interrupted_goes_on_as_one(swirl, monkeypatch):
    add = Tally.add

    def interrupted(tally, trajectory):
        if tally.episodes == 2:
            raise KeyboardInterrupt
        add(tally, trajectory)

    with monkeypatch.context() as patch:
        patch.setattr(Tally, "add", interrupted)
        code, _, err = swirl("eval", "agent=scripted", "task=ledger", "n=5", "out=run")
    assert code == 130 and "3 of 5 episodes are in run. To go on: swirl eval out=run resume=true" in err
    code, out, err = swirl("eval", "out=run", "resume=true")
    assert code == 0 and "written to run/evaluation.json" in out and len(Store("run", "r")) == 5, err
    code, out, _ = swirl("eval", "out=run")
    assert code == 0 and len(Store("run", "r")) == 5
    code, _, err = swirl("eval", "out=nothing", "resume=true")
    assert code == 2 and "nothing" in err and not Path("nothing").exists()


def test_resuming_what_is_not_there_begins_it(swirl):
    code, out, _ = swirl("generate", "task=ledger", "n=2", "out=run", "resume=true")
    assert code == 0 and "2 episodes" in out


def test_episodes_without_a_config_are_not_ours_to_continue(swirl):
    swirl("generate", "task=ledger", "n=2", "out=run")
    os.remove("run/config.yaml")
    code, _, err = swirl("generate", "task=ledger", "n=2", "out=run", "resume=true")
    assert code == 2 and "no config.yaml" in err


def test_verdicts_that_a_kill_kept_from_the_table_are_added(swirl):
    swirl("generate", "task=ledger", "n=4", "out=run")
    (table,) = Path("run/verdicts").glob("*.jsonl")
    before = table.read_bytes()
    table.write_bytes(b"".join(before.splitlines(keepends=True)[:2]) + b'{"torn')
    code, _, _ = swirl("generate", "out=run", "resume=true")
    assert code == 0 and table.read_bytes() == before


def test_a_mistake_leaves_no_folder(swirl):
    code, _, err = swirl("generate", "task=ledger", "out=run", "n=1", "task.split=nope")
    assert code == 2 and not Path("run").exists(), err


def test_a_run_that_stored_nothing_may_be_begun_again(swirl):
    code, _, err = swirl("generate", "task=fakes:SumTasks", "tool=fakes:EchoTool", "agent=scripted", "n=2", "out=run")
    assert code == 2 and "gold plan" in err
    code, out, err = swirl("generate", "task=fakes:SumTasks", "tool=fakes:EchoTool", "agent=fakes:EchoAgent", "n=2", "out=run")
    assert code == 0 and "2 episodes" in out, err
