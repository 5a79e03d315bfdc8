"""A training run keeps the episodes of its policy; ``trained=RUN`` runs the policy in the setting of its training."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from commands import error_of, finish, printed_commands, started  # noqa: E402
from swirl_env.algos.kept import Kept  # noqa: E402
from swirl_env.stages.trained import expand_trained  # noqa: E402
from swirl_env.store import Store, reader  # noqa: E402
from swirl_env.store.verdicts import read_heads  # noqa: E402
from weak import put_warm_starts  # noqa: E402

slow = pytest.mark.slow
FEW = ["setting=easy", "judge=fakes:Evens", "eval.episodes=0", "slots=8"]
PLAIN = ["algo=return_to_go", "algo.episodes_per_update=4", "updates=3", *FEW]
SWIRL = ["algo=swirl", "algo.filter=none", "algo.questions=4", "algo.updates_per_round=2", "algo.rounds=0"]
SWIRL.append("algo.states_per_update=4")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str(root))
        patch.setenv("OMP_NUM_THREADS", "1")
        put_warm_starts(root, "easy")
        yield root


@pytest.fixture(scope="module")
def episodes():
    import swirl_env
    from swirl_env.episodes.rollout import collect

    engine = swirl_env.env.build_engine("ledger", judge="rules")
    return list(collect(swirl_env.make_agent("scripted", noise=0.5), engine, 6, 4, 0))


def test_all_episodes_are_kept_once_also_those_that_are_played_once_more(tmp_path, episodes):
    for first, update in ((0, 0), (6, 1), (6, 1), (0, 0), (12, 2)):  # a kill after update 1, a run from the beginning
        kept = Kept(tmp_path, "all")
        kept.add(episodes, first, update)
        kept.close()
    store = Store(tmp_path / "rollouts", "r")
    assert sorted(t.sample for t in store) == list(range(18))
    again = [store.get((episode.task.id, 6 + i)) for i, episode in enumerate(episodes)]
    assert [t.steps for t in again] == [t.steps for t in episodes]


def test_what_is_kept_already_is_not_read_again_for_what_comes(tmp_path, episodes, monkeypatch):
    read = []
    monkeypatch.setattr(reader, "read_heads", lambda path, *rest: read.append(path) or read_heads(path, *rest))
    kept = Kept(tmp_path, "all")
    for update in range(20):
        kept.add(episodes, 6 * update, update)
    assert read == []  # an update of a long run would take longer and longer
    kept.close()
    Kept(tmp_path, "all").add(episodes, 120, 20)
    assert len(read) == 1 and len(Store(tmp_path / "rollouts", "r")) == 126


def test_the_last_episodes_are_those_of_the_last_update_that_played_some(tmp_path, episodes):
    kept = Kept(tmp_path, "last")
    kept.add(episodes[:2], 0, 0)
    kept.add(episodes[2:4], 2, 1)
    kept.add(episodes[4:], 4, 1)
    kept.close()
    assert {t.sample for t in Store(tmp_path / "rollouts", "r")} == {2, 3, 4, 5}


def test_none_are_kept_on_request(tmp_path, episodes):
    kept = Kept(tmp_path, "none")
    kept.add(episodes, 0, 0)
    kept.close()
    assert not list(tmp_path.iterdir())


@slow
def test_every_command_reads_what_training_kept(swirl, cache):
    code, out, err = swirl("train", *PLAIN, "out=run")
    assert code == 0, err
    store = Store("run/rollouts", "r")
    assert len(store) == 12 == json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])["episodes"]
    assert {len(list(t.steps)) > 0 for t in store} == {True}
    task, sample = max(store.keys(), key=lambda key: key[1])
    for argv in (
        ["view", "run", "out=page.html"],
        ["show", "run", task, str(sample)],
        ["eval", "out=run/rollouts"],
        ["judge", "out=run", "judge=outcome"],
        ["filter", "out=run"],
        ["export", "run", "to=chat", "out=chat.jsonl"],
    ):
        code, out, err = swirl(*argv)
        assert code == 0, (argv, err)
    assert len(Path("chat.jsonl").read_text().splitlines()) == 12 and Path("page.html").stat().st_size > 1000
    assert len(Store("run/rollouts", "r").judges()) == 1
    code, out, err = swirl("eval", "out=run")
    assert code == 0 and "run has no evaluation" in out and ["eval", "trained=run", "judge=fakes:Evens"] in printed_commands(out)


@slow
@pytest.mark.parametrize(
    ("algo", "keep", "count"),
    [
        (SWIRL, "all", 8),
        (SWIRL, "last", 4),
        (PLAIN[:2], "all", 12),
        (PLAIN[:2], "none", 0),
    ],
)
def test_a_killed_run_keeps_each_episode_once(tmp_path, swirl, cache, algo, keep, count):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    argv = ["train", *algo, *FEW, "updates=3", "save_every=2", f"keep_rollouts={keep}", "out=run"]
    run = started(tmp_path, *argv, env=env)
    while not Path("run/metrics.jsonl").exists() or len(Path("run/metrics.jsonl").read_text().splitlines()) < 2:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    code, out, err = finish(started(tmp_path, *argv, "resume=true", env=env))
    assert code == 0, out + err
    assert (len(Store("run/rollouts", "r")) if count else int(Path("run/rollouts").exists())) == count


@slow
def test_a_policy_runs_in_the_setting_of_its_training_and_the_command_line_goes_before_it(swirl, cache):
    code, out, err = swirl("train", *PLAIN, "max_steps=4", "history=calls", "out=run")
    assert code == 0, err
    (argv,) = printed_commands(out)
    assert argv == ["eval", "trained=run", "judge=fakes:Evens"]
    code, out, err = swirl(*argv, "n=3", "out=b")
    assert code == 0, err
    assert {(t.settings.max_steps, t.settings.history) for t in Store("b", "r")} == {(4, "calls")}
    code, out, err = swirl("generate", "trained=run", "judge=rules", "max_steps=2", "task.split=validation", "n=2", "out=c")
    assert code == 0, err
    assert {(t.settings.max_steps, t.settings.history, t.task.meta["split"]) for t in Store("c", "r")} == {
        (2, "calls", "validation")
    }
    code, out, err = swirl("eval", "-m", "trained=run", "judge=rules", "agent.temperature=0,1", "n=2", "out=d")
    assert code == 0 and "2 runs in d" in out, err
    code, out, err = swirl("eval", "trained=run", "task=ledger", "judge=rules", "n=2", "out=e")
    assert code == 0 and {t.settings.tools for t in Store("e", "r")} == {("math_exp",)}, err
    assert "Did you mean trained=run?" in error_of(swirl("eval", "trained=run/policy", "out=f"))
    code, out, err = swirl("generate", "out=c", "resume=true", "n=3")
    assert code == 0 and len(Store("c", "r")) == 3, err


@slow
def test_what_a_training_run_cannot_stand_for_is_refused_in_one_line(swirl, cache):
    assert swirl("train", *PLAIN, "out=run")[0] == 0
    assert "names code to run: judge=fakes:Evens" in error_of(swirl("eval", "trained=run", "out=b"))
    assert "one training run" in error_of(swirl("eval", "-m", "trained=run,run2", "out=b"))
    shutil.rmtree("run/policy")
    assert "the run has not ended" in error_of(swirl("eval", "trained=run", "judge=rules", "out=b"))
    assert not Path("b").exists()


@pytest.mark.parametrize("value", ["absent", ".", "''", "a/b"])
def test_a_folder_without_a_training_run_is_refused(swirl, value):
    assert "expected the folder of a training run" in error_of(swirl("eval", f"trained={value}", "out=b"))
    assert not Path("b").exists()


def test_other_words_are_left_as_they_are():
    argv = ["task=x", "-m", "out=trained=b", "agent=scripted"]
    assert expand_trained("generate", argv) == argv and expand_trained("train", ["trained=a"]) == ["trained=a"]
