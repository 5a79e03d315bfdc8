"""Commands and run folders: what reads a folder never makes one, and no command overwrites what another measured."""

import importlib
import json
import shlex
from pathlib import Path

import pytest

from commands import error_of
from swirl_env.store import Store
from swirl_env.types import Action, Verdict

pytestmark = pytest.mark.usefixtures("own_cache")

FAKES = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "agent=fakes:EchoAgent"]


class Absent:
    """An agent that can never act."""

    def act(self, states):
        return [Action("", error="unavailable") for _ in states]


class Calls:
    """An agent that calls the broken tool for ever."""

    def act(self, states):
        return [Action("<broken>x</broken>") for _ in states]


class Undecided:
    """A grader that cannot tell."""

    def grade(self, tasks, answers):
        return [None for _ in answers]


class Broken:
    """A judge that always raises."""

    def judge(self, steps):
        raise RuntimeError("the scale is broken")


class Doubtful:
    """A judge that can never tell."""

    def judge(self, steps):
        return [Verdict.failed("no answer from the server") for _ in steps]


class Counting:
    """Judges everything GOOD, and counts the steps that it has been asked about."""

    fingerprint = "counting-1"
    asked = 0

    def judge(self, steps):
        Counting.asked += len(steps)
        return [Verdict.good() for _ in steps]


class Stops(Counting):
    """Is interrupted at its third batch."""

    fingerprint = "stops-1"
    batches = 0

    def judge(self, steps):
        Stops.batches += 1
        if Stops.batches == 3:
            raise KeyboardInterrupt
        return super().judge(steps)


def on_path():
    """Returns this module as the command line imports it."""
    return importlib.import_module("test_cli_folders")


def tree(folder="."):
    return {str(path) for path in Path(folder).rglob("*")}


@pytest.mark.parametrize(
    "argv",
    [
        ["eval", "out=runs/dmo"],
        ["eval", "out=runs/dmo", "n=5"],
        ["eval", "out=runs/dmo", "verdicts=outcome"],
        ["eval", "out=runs/dmo/deeper"],
        ["eval", "out=runs/dmo", "-m", "verdicts=a,b"],
        ["judge", "out=runs/dmo", "judge=outcome"],
        ["judge", "out=runs/dmo", "judge=outcome,rules", "-m"],
        ["filter", "out=runs/dmo"],
        ["filter", "out=runs/dmo", "-m", "limit=1,2"],
        ["train", "stored=[runs/dmo]", "algo=rft", "algo.states=stored", "updates=1", "out=trained"],
    ],
)
def test_a_mistyped_folder_is_refused_with_the_nearest_and_never_made(swirl, argv):
    assert swirl("generate", *FAKES, "n=2", "out=runs/demo")[0] == 0
    before = tree()
    code, out, err = swirl(*argv)
    form = "stored=[runs/demo]" if argv[0] == "train" else "out=runs/demo"
    assert code == 2 and "runs/dmo" in err and f"Did you mean {form}?" in err and "%" not in out
    assert tree() == before


def test_eval_generates_only_if_an_agent_or_a_task_is_named(swirl):
    assert "needs the run to evaluate, out=" in error_of(swirl("eval"))
    assert "needs the run to evaluate, out=" in error_of(swirl("eval", "n=5"))
    assert tree() <= {"cache"}
    assert swirl("eval", *FAKES, "n=4", "out=fresh")[0] == 0
    assert "already holds a run" in error_of(swirl("eval", *FAKES, "n=4", "out=fresh"))
    assert "n would change what is run" in error_of(swirl("eval", "out=fresh", "n=5"))
    Path("empty").mkdir()
    assert "empty is no run folder: it holds no run" in error_of(swirl("eval", "out=empty"))
    assert tree("empty") == set()


def test_eval_then_generate_go_on_in_one_folder(swirl):
    assert swirl("eval", *FAKES, "n=3", "out=run", "verdicts=null")[0] == 0
    code, out, err = swirl("generate", *FAKES, "out=run", "n=5", "resume=true")
    assert code == 0 and "5 episodes" in out, err
    code, out, err = swirl("eval", "out=run", "resume=true", *FAKES, "n=6")
    assert code == 0 and len(Store("run", "r")) == 6, err


def test_every_table_of_verdicts_has_an_evaluation_of_its_own(swirl):
    swirl("generate", *FAKES, "n=4", "out=run")
    swirl("judge", "out=run", "judge=outcome")
    swirl("judge", "out=run", "judge=test_cli_folders:Counting")
    for words in ([], ["verdicts=outcome"], ["verdicts=counting"]):
        assert swirl("eval", "out=run", *words)[0] == 0
    held = {path.name: json.loads(path.read_text()) for path in Path("run").glob("evaluation*.json")}
    assert len(held) == 3 and held["evaluation.json"]["verdicts"] is None
    assert held["evaluation.counting-1.json"]["reward"]["value"] == 1 > held["evaluation.json"]["reward"]["value"]


def test_eval_of_a_training_run_shows_what_it_measured_and_writes_nothing(swirl):
    rate = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 8, "clusters": 8}
    rates = dict.fromkeys(("accuracy", "f1", "process", "reward", "valid_actions", "tool_errors", "steps", "tokens"), rate)
    counts = dict.fromkeys(("failed", "ungradable", "unscored", "failed_verdicts"), 0)
    of_one = {"sampled": {**rates, "episodes": 8, **counts}, "greedy": {**rates, "episodes": 8, **counts}}
    Path("run").mkdir()
    Path("run/config.yaml").write_text("algo: {name: reinforce}\n")
    Path("run/evaluation.json").write_text(json.dumps({"before": of_one, "at": {}, "after": None}))
    before = Path("run/evaluation.json").read_bytes()
    code, out, _ = swirl("eval", "out=run")
    assert code == 0 and "before" in out and "25.0" in out and out.splitlines()[-1] == "next: swirl train out=run resume=true"
    assert Path("run/evaluation.json").read_bytes() == before and len(tree("run")) == 2
    assert "has no tables of verdicts" in error_of(swirl("eval", "out=run", "verdicts=rules"))
    for stage in ("judge", "filter"):
        assert "is a training run that keeps no episodes" in error_of(swirl(stage, "out=run"))
    Path("run/config.yaml").write_text("algo: {name: reinforce}\njudge: {name: 'fakes:Evens'}\n")
    code, out, _ = swirl("eval", "out=run")
    assert out.splitlines()[-1] == "next: swirl train out=run resume=true judge=fakes:Evens"
    assert "Go on with it: swirl train out=run resume=true judge=fakes:Evens" in error_of(swirl("eval", "trained=run"))
    assert "another stage" in error_of(swirl("generate", *FAKES, "out=run", "resume=true"))


@pytest.mark.parametrize(
    ("stage", "more"), [("generate", []), ("generate", ["slots=2", "n=9"]), ("train", []), ("train", ["updates=1"])]
)
def test_a_mistyped_folder_to_go_on_with_begins_no_run(swirl, stage, more):
    assert swirl("generate", *FAKES, "n=2", "out=runs/demo")[0] == 0
    said = error_of(swirl(stage, "out=runs/dmo", "resume=true", *more))
    assert "runs/dmo is no run folder" in said and "Did you mean out=runs/demo?" in said
    assert not Path("runs/dmo").exists()
    assert swirl("generate", *FAKES, "n=2", "out=runs/new", "resume=true")[0] == 0  # says what to run: goes on or begins


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("benhc-1", "bench-1"),
        ("benhc-1/rules", "bench-1/rules"),
        ("benhc-1/nothing", "bench-1"),
        ("bench-1/ruls", "bench-1/rules"),
    ],
)
def test_a_mistyped_folder_of_runs_is_answered_with_the_nearest(swirl, typed, meant):
    for name in ("bench-1/rules", "bench-1/random", "other"):  # a folder per row, as `swirl bench` makes them
        assert swirl("generate", *FAKES, "n=2", f"out={name}")[0] == 0
    Path("benhc-2/notes").mkdir(parents=True)  # holds no run
    Path("a file").touch()
    said = error_of(swirl("eval", f"out={typed}"))
    assert f"{typed} is no run folder: it does not exist. Did you mean out={meant}?" in said
    assert not Path(typed).exists()


def test_a_run_in_which_everything_failed_is_an_error(swirl):
    code, _, err = swirl("generate", *FAKES[:3], "agent=test_cli_folders:Absent", "n=3", "out=a")
    assert code == 2 and "All 3 episodes failed" in err and "swirl generate out=a resume=true" in err
    code, _, err = swirl("generate", *FAKES, "judge=test_cli_folders:Broken", "n=3", "out=b")
    assert code == 2 and "The judge failed on every step of b: RuntimeError: the scale is broken" in err
    assert len(Store("b", "r")) == 3
    code, _, err = swirl("judge", "out=b", "judge=test_cli_folders:Doubtful")
    assert code == 2 and "no answer from the server" in err
    code, _, err = swirl("eval", *FAKES, "judge=test_cli_folders:Doubtful", "n=3", "out=c")
    assert code == 2 and "no answer from the server" in err
    assert swirl("judge", "out=b", "judge=fakes:CallJudge")[0] == 0
    tool = ["tool=fakes:BrokenTool", "agent=test_cli_folders:Calls"]
    code, _, err = swirl("generate", "task=fakes:SumTasks", "judge=none", *tool, "n=2", "out=d")
    assert code == 2 and "The tool 'broken' was unavailable on all 6 calls of d" in err and len(Store("d", "r")) == 2
    code, _, err = swirl("generate", "task=fakes:SumTasks", "judge=none", *tool, "n=20", "slots=2", "out=e")
    assert code == 2 and "The tool 'broken' failed on every one of the last 8 calls" in err and "out of order" in err
    code, _, err = swirl("generate", *FAKES, "grader=test_cli_folders:Undecided", "n=2", "out=f")
    assert code == 2 and "The grader graded none of the" in err


def test_more_episodes_than_questions_are_all_episodes(swirl):
    code, out, err = swirl("generate", *FAKES, "task.n=7", "n=100", "out=run")
    assert code == 0 and "7 episodes" in out and "n=100: the task has 7 questions, so all 7 episodes are run" in err
    _, _, err = swirl("generate", *FAKES, "task.n=2", "samples=2", "n=9", "out=two")
    assert "2 questions with 2 samples each, so all 4 episodes" in err
    assert swirl("generate", *FAKES, "task.n=7", "out=run", "n=null", "resume=true")[0] == 0
    assert "has no questions" in error_of(swirl("generate", *FAKES, "task.n=0", "out=none"))
    assert not Path("none").exists()


def test_judge_again_makes_a_new_table_and_the_newest_counts(swirl):
    swirl("generate", *FAKES, "n=4", "out=run")
    judge = ["judge", "out=run", "judge=test_cli_folders:Counting"]
    assert "4 episodes judged" in swirl(*judge)[1] and "0 episodes judged" in swirl(*judge)[1]
    first = Path("run/verdicts/counting-1.jsonl").read_bytes()
    asked = on_path().Counting.asked
    code, out, _ = swirl(*judge, "force=true")
    assert code == 0 and "4 episodes judged, 4 in the table counting-1.2" in out and on_path().Counting.asked > asked
    assert Path("run/verdicts/counting-1.jsonl").read_bytes() == first
    assert "0 episodes judged, 4 in the table counting-1.2" in swirl(*judge)[1]
    assert "judged by counting-1.2" in swirl("eval", "out=run", "verdicts=counting")[1]
    assert "evaluation.counting-1.json" in swirl("eval", "out=run", "verdicts=counting-1")[1]


class Flaky(Counting):
    """Fails on the steps that `failing` numbers, in the order in which they are asked about."""

    fingerprint = "flaky-1"
    failing: frozenset[int] = frozenset()

    def judge(self, steps):
        first = Counting.asked
        super().judge(steps)
        numbers = range(first, first + len(steps))
        return [Verdict.failed("away") if n in on_path().Flaky.failing else Verdict.good() for n in numbers]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_judging_again_asks_about_failed_steps_alone(swirl, batch, monkeypatch):
    monkeypatch.setattr(on_path().Counting, "asked", 0)
    monkeypatch.setattr(on_path().Flaky, "failing", frozenset(range(3, 30, 3)) | {31})
    swirl(
        "generate",
        "task=fakes:SumTasks",
        "task.n=12",
        "tool=fakes:EchoTool",
        "judge=none",
        "agent=test_cli_folders:Calls",
        "max_steps=3",
        "n=12",
        "out=run",
    )
    judge = ["judge", "out=run", "judge=test_cli_folders:Flaky", f"batch={batch}"]
    assert swirl(*judge)[0] == 0 and on_path().Counting.asked == 36
    table = Path("run/verdicts/flaky-1.jsonl")
    before = table.read_bytes()
    assert before.count(b'"failed"') == 10
    monkeypatch.setattr(on_path().Flaky, "failing", frozenset())
    assert swirl(*judge)[0] == 0 and on_path().Counting.asked == 46  # exactly the ten
    after = table.read_bytes()
    assert (
        after.startswith(before)
        and [v.status for vs in Store("run", "r").verdicts("flaky-1").values() for v in vs] == ["scored"] * 36
    )
    assert "0 episodes judged" in swirl(*judge)[1] and on_path().Counting.asked == 46
    assert "12 episodes judged" in swirl("judge", "out=run", "judge=test_cli_folders:Counting")[1]  # a second judge
    assert table.read_bytes() == after


@pytest.mark.parametrize("batch", [1, 3])
def test_an_interrupted_judge_has_stored_what_it_judged(swirl, batch, monkeypatch):
    monkeypatch.setattr(on_path().Stops, "batches", 0)
    swirl("generate", *FAKES, "n=8", "out=run")
    code, _, err = swirl("judge", "out=run", "judge=test_cli_folders:Stops", f"batch={batch}")
    asked = len(Store("run", "r").verdicts("stops-1"))
    assert code == 130 and asked >= 2 and f"{asked} of 8 episodes are judged" in err
    again = err.splitlines()[-1].partition("To go on: swirl ")[2]
    code, out, _ = swirl(*shlex.split(again))
    assert code == 0 and f"{8 - asked} episodes judged, 8 in the table" in out


@pytest.mark.parametrize("force", [False, True])
def test_an_interrupted_judge_of_a_sweep_goes_on_with_all_its_runs(swirl, force, monkeypatch):
    assert swirl("generate", *FAKES, "-m", "n=4", "seed=0,1", "out=sweep")[0] == 0
    words = ["judge", "out=sweep", "judge=test_cli_folders:Stops", "batch=1"]
    if force:
        monkeypatch.setattr(on_path().Stops, "batches", 3)  # it has passed its third batch
        assert swirl(*words)[0] == 0
        words.append("force=true")
    monkeypatch.setattr(on_path().Stops, "batches", 0)
    asked = on_path().Counting.asked
    code, _, err = swirl(*words)
    again = err.splitlines()[-1].partition("To go on: swirl ")[2]
    assert code == 130 and again == "judge out=sweep judge=test_cli_folders:Stops"
    code, out, err = swirl(*shlex.split(again))
    table = "stops-1.2" if force else "stops-1"
    assert code == 0 and out.splitlines()[-1].startswith(f"next: swirl eval out=sweep verdicts={table}   or"), err
    tables = [Store(cell, "r").verdicts(table) for cell in ("sweep/seed=0", "sweep/seed=1")]
    assert list(map(len, tables)) == [4, 4]
    assert on_path().Counting.asked - asked == sum(len(of_one) for held in tables for of_one in held.values())  # none twice
    assert "0 episodes judged" in swirl(*words[:4])[1]


def test_an_interrupted_sweep_of_judges_goes_on_with_all_of_them(swirl, monkeypatch):
    monkeypatch.setattr(on_path().Stops, "batches", 0)
    swirl("generate", *FAKES, "n=4", "out=run")
    code, _, err = swirl("judge", "-m", "out=run", "judge=test_cli_folders:Stops,test_cli_folders:Counting", "batch=1")
    again = err.splitlines()[-1].partition("To go on: swirl ")[2]
    assert code == 130 and swirl(*shlex.split(again))[0] == 0
    assert [len(Store("run", "r").verdicts(table)) for table in ("stops-1", "counting-1")] == [4, 4]


@pytest.mark.parametrize("name", ["a\x1b]0;owned\x07b", "a\u202eb", "a\nb", "a\x9b31mb'c\\d"])
def test_names_of_cells_that_somebody_sent_reach_no_table_raw(swirl, name):
    for cell in ("a", name):
        Path("sweep", cell).mkdir(parents=True)
        assert swirl("generate", "task=ledger", "n=2", f"out=sweep/{cell}")[0] == 0
    Path("sweep/multirun.yaml").touch()
    Path("sweep", f"{name}-failed").mkdir()
    Path("sweep", f"{name}-failed", "failed.txt").write_text(f"why {name}\n")
    code, out, err = swirl("eval", "out=sweep")
    assert code == 0 and out.replace("\n", "").isprintable() and "failed: " in out, err


@pytest.mark.parametrize("argv", [["generate", "task=ledger", "n=1", "out=null"], ["eval", "task=ledger", "n=1", "out=null"]])
def test_a_run_without_a_folder_is_refused(swirl, argv):
    assert "out=null: a run needs a folder" in error_of(swirl(*argv))


MEASURED = '{"sampled": {"episodes": 3}, "greedy": 4}'
DAMAGED = ["{", "[]", "3", '{"after": 3}', '{"after": {"sampled": 3}}', '{"at": 3}', '{"also": {"easy": []}}', '{"spent": []}']
DAMAGED += ["[" * 9999, f'{{"before": {MEASURED}}}', f'{{"at": {{"5": {MEASURED}}}}}']


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_results_of_a_training_run_are_one_line(swirl, content):
    Path("sweep/run").mkdir(parents=True)
    Path("sweep/run/config.yaml").write_text("algo: {name: reinforce}\n")
    Path("sweep/run/evaluation.json").write_text(content)
    for folder in ("sweep/run", "sweep"):
        assert "sweep/run/evaluation.json is damaged: " in error_of(swirl("eval", f"out={folder}"))
