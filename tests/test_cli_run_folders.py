"""Run folders under hostile or unlucky circumstances: two commands at once, received folders, damaged or older configurations."""

import importlib
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import forked
from commands import error_of, finish, started
from stored import episode
from swirl_env.stages import runs
from swirl_env.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")
GONE = object()
LEDGER = ("generate", "task=ledger", "agent.noise=0.3", "n=4", "out=run")


@pytest.fixture
def run(swirl):
    """A small run in the folder "run"."""
    assert swirl(*LEDGER)[0] == 0
    return Path("run")


def edit(path, **changes):
    """Changes keys of config.yaml; `GONE` removes one."""
    config = OmegaConf.to_container(OmegaConf.load(path / "config.yaml"))
    config = {key: value for key, value in {**config, **changes}.items() if value is not GONE}
    OmegaConf.save(OmegaConf.create(config), path / "config.yaml")


# Lock, then compare


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (LEDGER, "already holds a run"),
        ((*LEDGER, "resume=true"), "begun with another configuration"),
        (("eval", *LEDGER[1:]), "already holds a run"),
    ],
)
def test_what_another_command_did_after_the_first_look_is_seen_under_the_lock(swirl, monkeypatch, argv, says):
    """Between the first look at the folder and the lock, another command may have begun, and ended, a run in it."""
    assert swirl("generate", "task=atlas", "task.documents=400", "n=2", "out=run")[0] == 0
    before = {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}
    monkeypatch.setattr(runs, "settle", lambda options, keys=None: options)  # the first look, at an empty folder
    assert says in error_of(swirl(*argv))
    assert before == {p: p.read_bytes() for p in Path().rglob("*") if p.is_file()}


def test_many_commands_at_once_in_one_folder_leave_one_run(tmp_path):
    processes = [started(tmp_path, "generate", "task=ledger", f"seed={i}", "n=300", "out=run") for i in range(3)]
    results = [finish(process) for process in processes]
    assert sorted(code for code, _, _ in results) == [0, 2, 2], results
    refusals = [err for code, _, err in results if code]
    assert all(err.startswith("swirl: ") and err.count("\n") == 1 for err in refusals)
    assert all("Another process is writing" in err or "already holds a run" in err for err in refusals)
    assert len(Store(tmp_path / "run", "r").keys()) == 300


def test_default_folders_are_unique(swirl):
    outs = []
    for _ in range(3):
        code, out, err = swirl("generate", "task=ledger", "n=1")
        assert code == 0, err
        outs.append(re.search(r" in (runs/\S+)", out)[1])
    assert len(set(outs)) == 3 and all(re.search(r"\d{6}$", out) for out in outs)


# The stored configuration


def test_ctrl_c_before_the_first_episode_keeps_the_configuration(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from swirl_env.stages import playing\n"
        "playing.collect = lambda *a, **k: iter(lambda: os.kill(os.getpid(), signal.SIGINT), 0)\n"
        "from swirl_env.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = ["generate", "task=ledger", "agent.noise=0.3", "n=4", "out=run"]
    done = forked.run(["-c", code, *argv], cwd=tmp_path, timeout=180)
    assert done.returncode == 130 and "0 of 4 episodes" in done.stderr, done.stderr
    config = (tmp_path / "run" / "config.yaml").read_bytes()
    printed = shlex.split(done.stderr.partition("To go on: swirl ")[2])
    result, out, err = finish(started(tmp_path, *printed))
    assert result == 0 and "4 episodes" in out, err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == config
    assert all(key[0].startswith("ledger") for key in sorted(Store(tmp_path / "run", "r").keys()))


def test_a_run_that_is_killed_before_its_first_episode_is_resumed_as_it_began(swirl, run):
    for file in (*run.glob("trajectories/*"), *run.glob("verdicts/*")):
        file.unlink()
    assert "n was 4, now 2" in error_of(swirl("generate", "out=run", "resume=true", "n=2"))
    code, out, _ = swirl("generate", "out=run", "resume=true")
    assert code == 0 and "4 episodes" in out and "ledger" in next(iter(Store("run", "r"))).task.id


def test_a_resumed_run_takes_what_the_command_line_leaves_out_from_the_folder(swirl, run):
    code, out, _ = swirl("generate", "task=ledger", "out=run", "resume=true", "n=6")
    assert code == 0 and "6 episodes" in out
    assert OmegaConf.load("run/config.yaml").agent.noise == 0.3
    assert "agent.noise was 0.3, now 0.1" in error_of(swirl("generate", "agent.noise=0.1", "out=run", "resume=true"))
    assert "task.name was ledger, now atlas" in error_of(swirl("generate", "task=atlas", "out=run", "resume=true"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1\n- 2\n",
        "just text",
        "a: [1, 2",
        "\x00\x01\x02",
        "a: !!python/object/apply:os.system ['touch owned']\n",
        "a: " + "[" * 1_000 + "]" * 1_000,
        "{a: " * 1_000 + "1" + "}" * 1_000,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "x: ${oc.env:HOME}\n",
        "a: " + "x" * 2_000_000,
        "? [a, b]\n: 1\n",
    ],
    ids=["empty", "list", "text", "cut", "nul", "python", "deep-list", "deep-map", "aliases", "interpolation", "huge", "keys"],
)
def test_a_garbage_configuration_is_one_sentence(swirl, run, text):
    (run / "config.yaml").write_text(text)
    err = error_of(swirl("generate", "out=run", "resume=true"))
    assert "config.yaml" in err and not Path("owned").exists()
    assert len(Store("run", "r")) == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": GONE}, "it lacks the field 'task'"),
        ({"samples": GONE}, "it lacks the field 'samples'"),
        ({"surplus": 1}, "unknown field 'surplus'"),
        ({"samples": "many"}, "Expected 'int'"),
        ({"n": -3}, "'int' >= 1"),
        ({"agent": {"noise": 0.3}}, "agent lacks a name"),
        ({"agent": 7}, "Expected 'object'"),
        ({"history": "nothing"}, "nothing"),
        ({"seed": float("nan")}, "Expected 'int', got 'float'"),
    ],
)
def test_a_configuration_with_a_missing_surplus_or_wrong_key_is_one_sentence(swirl, run, changes, says):
    edit(run, **changes)
    assert says in error_of(swirl("generate", "out=run", "resume=true"))


@pytest.mark.parametrize("name", ["config.yaml", "environment.json"])
def test_a_pipe_in_place_of_a_file_is_never_waited_for(swirl, run, name):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    code, _, err = swirl("generate", "out=run", "resume=true")
    assert code == 0 if name == "environment.json" else "config.yaml cannot be read: It is no ordinary file" in err


def test_run_folders_that_are_older_than_an_option_stay_readable(swirl, run, monkeypatch):
    """An option that later releases add has its usual value in older folders."""
    since = runs.to_options.__globals__["_SINCE_FIRST"]
    monkeypatch.setitem(runs.to_options.__globals__, "_SINCE_FIRST", since - {"history", "max_chars"})
    edit(run, history=GONE, max_chars=GONE)
    code, out, err = swirl("generate", "out=run", "resume=true", "n=5")
    assert code == 0 and "5 episodes" in out, err
    assert OmegaConf.load("run/config.yaml").history == "full"
    edit(run, history=GONE)
    assert "history was None, now calls" in error_of(swirl("generate", "out=run", "resume=true", "history=calls"))


# Code in received folders


@pytest.mark.parametrize(
    "changes",
    [
        {"agent": {"name": "os:system", "command": "touch owned"}},
        {"task": {"name": "os:system", "command": "touch owned"}},
        {"judge": {"name": "cached", "judge": {"name": "os:system", "command": "touch owned"}}},
        {"judge": {"name": "weighted", "judges": {"os:system": 1.0}}},
        {"tool": {"x": {"name": "subprocess:run"}}},
        {"format": "evil.module:Format"},
    ],
    ids=["agent", "task", "nested", "weights", "tool", "format"],
)
def test_code_that_only_a_stored_configuration_names_is_not_run(swirl, run, changes):
    edit(run, **changes)
    err = error_of(swirl("generate", "out=run", "resume=true", "n=9"))
    assert "names code to run" in err and not Path("owned").exists()


def test_code_that_the_command_line_repeats_is_run_with_its_stored_options(swirl):
    fakes = ["task=fakes:SumTasks", "task.n=9", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "agent=fakes:EchoAgent"]
    assert swirl("generate", *fakes, "n=2", "out=run")[0] == 0
    assert "agent=fakes:EchoAgent" in error_of(swirl("generate", "out=run", "resume=true"))
    words = [word for word in fakes if "task.n" not in word]
    code, out, err = swirl("generate", *words, "n=9", "out=run", "resume=true")
    assert code == 0 and "9 episodes" in out, err
    assert OmegaConf.load("run/config.yaml").task.n == 9


def test_registered_names_need_no_repetition(swirl, run):
    assert swirl("generate", "out=run", "resume=true", "n=5")[0] == 0


def test_remote_code_of_a_model_needs_repetition(swirl, run):
    edit(run, agent={"name": "transformers", "model": "nowhere", "trust_remote_code": True})
    assert "add agent.trust_remote_code=true" in error_of(swirl("generate", "out=run", "resume=true"))


@pytest.mark.parametrize("command", [["touch", "started"], "touch started", ["sh", "-c", "touch started"]])
def test_programs_that_only_a_stored_configuration_names_are_not_started(swirl, run, command):
    pytest.importorskip("mcp")
    edit(run, tool={"mcp": {"name": "mcp", "command": command}})
    sentence = error_of(swirl("generate", "out=run", "resume=true"))
    assert "names a program to start: tool.mcp.command=" in sentence and not Path("started").exists()


# Folders that cannot be written


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "y" * 256 + "/b"])
def test_names_that_are_too_long_are_one_sentence(swirl, name):
    assert "too long" in error_of(swirl("generate", "task=ledger", "n=1", f"out={name}"))


def test_a_file_in_place_of_the_folder_is_one_sentence(swirl):
    Path("run").write_text("text")
    assert "not a folder" in error_of(swirl(*LEDGER))
    assert Path("run").read_text() == "text"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.parametrize("argv", [("generate", "resume=true", "n=9"), ("judge", "judge=outcome"), ("filter", "filter=process")])
def test_a_folder_of_another_owner_is_one_sentence(swirl, run, argv):
    assert swirl(argv[0], "--help")[0] == 0  # what it imports may lie where only the owner reads
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    os.chmod(".", 0o755)
    os.seteuid(65534)
    try:
        said = swirl(argv[0], "out=run", *argv[1:])
    finally:
        os.seteuid(0)
    assert "Permission denied" in error_of(said)
    assert before == {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from swirl_env.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("limit", [0, 1, 300, 3_000, 20_000])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(tmp_path, limit):
    argv = ["generate", "task=ledger", "n=40", "out=run"]
    done = forked.run(["-c", LIMITED, str(limit), *argv], cwd=tmp_path, timeout=180)
    assert done.returncode == 2 and "File too large" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("swirl: ")
    stored = Store(tmp_path / "run").keys()
    code, out, err = finish(started(tmp_path, *argv, *(["resume=true"] if limit > 300 else [])))
    assert code == 0 and "40 episodes" in out, err
    assert stored <= Store(tmp_path / "run").keys() and len(Store(tmp_path / "run")) == 40


# Folders of an own loop


def test_every_command_works_on_a_folder_that_a_loop_has_stored(swirl):
    with Store("own") as store:
        for i in range(3):
            store.append(episode(f"q{i}", labels=("GOOD", "GOOD" if i else "BAD")))
    for argv in (("eval",), ("filter", "filter=process"), ("judge", "judge=outcome")):
        code, _, err = swirl(*argv, "out=own")
        assert code == 0, (argv, err)
    assert Store("own", "r").selection("process").size == 2
    assert "no config.yaml" in error_of(swirl("generate", "task=ledger", "n=1", "out=own", "resume=true"))


JUDGE = """
from swirl_env.types import Verdict

class Mine:
    def judge(self, steps):
        return [Verdict.{kind}("", "mine") for _ in steps]
"""


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Writes the module of a judge that says GOOD or BAD to everything, as an editor would between two commands."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a stale .pyc of the same second and size would be imported

    def write(kind):
        Path("edited_judge.py").write_text(JUDGE.format(kind=kind))
        sys.modules.pop("edited_judge", None)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("edited_judge", None)


def test_an_edited_judge_judges_again_into_another_table(swirl, run, edited):
    for kind, judged in (("good", "4 episodes judged"), ("good", "0 episodes judged"), ("bad", "4 episodes judged")):
        edited(kind)
        code, out, err = swirl("judge", "out=run", "judge=edited_judge:Mine")
        assert code == 0 and judged in out, (out, err)
    tables = [table for table in Store("run", "r").judges() if "Mine" in table]
    labels = [{v.label for verdicts in Store("run", "r").verdicts(t).values() for v in verdicts} for t in tables]
    assert sorted(map(sorted, labels)) == [["BAD"], ["GOOD"]]


def test_verdicts_of_a_judge_before_it_was_edited_are_not_the_edited_ones(swirl, edited):
    """A run that is resumed after its judge was edited keeps both apart."""
    words = ("judge=edited_judge:Mine", "out=run")
    edited("good")
    assert swirl("generate", "task=ledger", "n=2", *words)[0] == 0
    edited("bad")
    assert swirl("generate", "n=4", "resume=true", *words)[0] == 0
    store = Store("run", "r")
    labels = [[verdicts[0].label for verdicts in store.verdicts(table).values()] for table in store.judges()]
    assert sorted(labels) == [["BAD", "BAD"], ["GOOD", "GOOD"]]
