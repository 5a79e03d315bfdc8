"""What is seen of a run while it goes on: the note of the progress bar, and TensorBoard's files."""

import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import pytest

import swirl_env
from commands import error_of, finish, started
from swirl_env.config import orphans
from swirl_env.env import build_engine
from swirl_env.episodes.rollout import collect
from swirl_env.stages.live import Live
from swirl_env.stages.progress import progress
from swirl_env.types import Action, Outcome, Settings, Step, Task, Trajectory, Verdict

FEW = ["algo=return_to_go", "algo.episodes_per_update=4", "setting=easy", "judge=fakes:Evens", "slots=8"]


def episode(correct, *verdicts, tokens=2, ended="answered"):
    steps = tuple(Step(Action("x", token_ids=tuple(range(tokens))), None, verdict=verdict) for verdict in verdicts)
    return Trajectory(Task("t", "q"), "p", Settings(tools=(), max_steps=3), steps, ended, Outcome(correct=correct))


def test_the_note_counts_accuracy_good_steps_tokens_and_failures():
    seconds = iter([0.0, 2.0])
    live = Live(clock=lambda: next(seconds))
    live.add(episode(True, Verdict.good(), Verdict.bad()))
    live.add(episode(False, Verdict.good(), Verdict.failed("away")))
    live.add(episode(None, Verdict.bad()))
    live.add(episode(None, ended="error"))
    assert str(live) == "accuracy 0.500  GOOD 50 %  5 tokens/s  1 failed  1 steps without a verdict"


def test_shares_are_those_of_the_latest_episodes():
    live = Live(recent=2)
    for correct in (True, True, False, True):
        live.add(episode(correct, Verdict.good() if correct else Verdict.bad(), tokens=0))
    assert str(live) == "accuracy 0.500  GOOD 50 %"


def test_nothing_is_claimed_before_an_episode_has_ended():
    assert str(Live()) == ""


def test_the_note_of_real_episodes_is_their_evaluation():
    engine = build_engine("ledger", judge="rules")
    live, episodes = Live(), list(collect(swirl_env.make_agent("scripted", noise=0.5), engine, 30, 8, 0))
    for one in episodes:
        live.add(one)
    from swirl_env.evaluate import evaluate

    evaluation = evaluate(episodes)
    good = [step.verdict.label == "GOOD" for one in episodes for step in one.steps]
    assert str(live).startswith(f"accuracy {evaluation.accuracy.value:.3f}  GOOD {100 * sum(good) / len(good):.0f} %")


def test_a_worker_of_a_launcher_prints_lines_in_place_of_a_bar(monkeypatch, capsys):
    monkeypatch.setenv(orphans.MARK, "another process's")
    monkeypatch.setattr("swirl_env.stages.progress._EVERY", 0.0)
    with progress("work", 3) as advance:
        advance(2, "accuracy 0.5")
    err = capsys.readouterr().err
    assert err.startswith("work: 2/3, ") and err.endswith("accuracy 0.5\n") and "\x1b" not in err


@pytest.mark.parametrize(
    ("name", "says"), [("tensorbord", "Did you mean 'tensorboard'?"), ("comet_ml", "pip install comet_ml"), ("[a]", "No tracker")]
)
def test_trackers_that_are_not_there_are_refused_before_anything_runs(swirl, name, says):
    pytest.importorskip("torch", reason="training needs torch")
    if name == "comet_ml" and importlib.util.find_spec(name):
        pytest.skip("it is installed")
    assert says in error_of(swirl("train", f"trackers=['{name}']", "out=run"))
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the extra swirl-env[track]")
def test_tensorboard_holds_the_metrics_of_a_run_that_was_killed_each_once(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="training needs torch")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from weak import put_warm_starts

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWIRL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    put_warm_starts(tmp_path / "cache", "easy")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    argv = [
        "train",
        *FEW,
        "updates=4",
        "save_every=2",
        "eval.episodes=4",
        "eval.before=false",
        "trackers=[tensorboard]",
        "out=run",
    ]
    run = started(tmp_path, *argv, env=env)
    while not Path("run/metrics.jsonl").exists() or len(Path("run/metrics.jsonl").read_text().splitlines()) < 3:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    code, out, err = finish(started(tmp_path, *argv, "resume=true", env=env))
    assert code == 0, out + err
    events = EventAccumulator("run/swirl")
    events.Reload()
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    for key in ("sampled_tokens", "reward", "episodes"):
        logged = [(event.step, event.value) for event in events.Scalars(key)]
        assert logged == [(row["update"], pytest.approx(row[key])) for row in rows], key
    after = json.loads(Path("run/evaluation.json").read_text())["after"]
    (measured,) = events.Scalars("after/greedy/accuracy")
    assert measured.value == pytest.approx(after["greedy"]["accuracy"]["value"])
