"""Stages over a local Ray: what they write is what they write without it, also if workers are killed on the way."""

import json
import os
import warnings

import pytest

from swirl_env.benchmarks.perf import __main__ as perf
from swirl_env.cli import main

pytestmark = pytest.mark.slow
RAY = ("cluster=ray", "cluster.cpus=0.01")
NOISY = "agent.noise=0.2"


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    """One Ray for all tests here: it takes seconds to start."""
    ray = pytest.importorskip("ray")
    os.environ["SWIRL_TEST_PID"] = str(os.getpid())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", object_store_memory=100 << 20)
        yield
        ray.shutdown()


@pytest.fixture
def swirl(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder of its own; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words, code=0):
        assert main(list(words)) == code
        return capsys.readouterr()

    return run


def lines(path):
    """The records of a run folder's files, sorted: workers finish in any order."""
    return {str(file.relative_to(path)): sorted(file.read_bytes().splitlines()) for file in path.rglob("*.jsonl")}


def test_episodes_are_the_same_though_a_worker_is_killed(swirl, tmp_path):
    agent = ("agent=mortal:Mortal", "agent.task=train-000150")
    (tmp_path / "flag").touch()  # the one without Ray lives
    swirl("generate", *agent, "agent.flag=flag", "n=300", "slots=16", "out=alone")
    (tmp_path / "flag").unlink()
    swirl("generate", *agent, "agent.flag=flag", "n=200", "slots=16", "out=two", *RAY)
    assert (tmp_path / "flag").exists(), "no worker was killed"
    # A run that was begun on a cluster may go on here, and the other way round.
    swirl("generate", "out=two", "resume=true", "n=300", *agent, "agent.flag=flag")
    assert lines(tmp_path / "alone") == lines(tmp_path / "two")
    assert len(lines(tmp_path / "two")["trajectories/00000.jsonl"]) == 300
    assert (tmp_path / "alone/config.yaml").read_bytes() == (tmp_path / "two/config.yaml").read_bytes()


def test_judging_and_judging_again_give_the_same_table(swirl, tmp_path):
    for out, cluster in (("alone", ()), ("two", RAY)):
        swirl("generate", NOISY, "n=40", f"out={out}")
        judge = ("judge", f"out={out}", "batch=16", "judge=mortal:Forgetful", "judge.file=away")
        (tmp_path / "away").touch()
        assert "hold failed verdicts" in swirl(*judge, *cluster).out
        (tmp_path / "away").unlink()
        assert "failed" not in swirl(*judge, *cluster).out
    assert lines(tmp_path / "alone") == lines(tmp_path / "two")


def test_audits_and_evaluations_give_the_same_figures(swirl, tmp_path):
    signals = "signals=[{name:noisy,flip:0.2},{name:monte_carlo,samples:2},outcome]"
    for out, cluster in (("alone", ()), ("two", RAY)):
        swirl("eval", NOISY, "n=12", f"out={out}", "agent=scripted", *cluster)
        swirl("audit", f"out={out}", signals, "samples=2", "batch=8", "resamples=20", *cluster)
    assert lines(tmp_path / "alone").keys() == lines(tmp_path / "two").keys()
    assert lines(tmp_path / "alone") == lines(tmp_path / "two")
    for file in ("evaluation.json", "audit/table.json"):
        one, other = (json.loads((tmp_path / out / file).read_bytes()) for out in ("alone", "two"))
        one.pop("run", None), other.pop("run", None)
        assert one == other


def test_an_agent_that_workers_cannot_build_is_refused_before_anything_is_written(swirl, tmp_path):
    said = swirl("generate", "agent=mortal:only_here", "n=5", "out=x", *RAY, code=2)
    assert said.err == "swirl: A worker cannot do this work: There is no GPU here. Set agent.device=cpu.\n"
    assert not (tmp_path / "x").exists()


def test_the_benchmark_runs_and_checks_what_it_measures(swirl, capsys):
    assert perf.main(["ray", "--quick"]) == 0
    shown = capsys.readouterr().out
    assert "every key once" in shown and "speed-up" in shown


def test_an_episode_that_kills_each_worker_ends_the_run_and_keeps_the_others(swirl, tmp_path):
    words = ("agent=mortal:Mortal", "agent.task=train-000003", "n=4", "slots=1", "cluster.workers=1", "out=x")
    said = swirl("generate", *words, *RAY, code=2)
    assert "5 workers were lost one after the other" in said.err
    assert len(lines(tmp_path / "x")["trajectories/00000.jsonl"]) == 3
