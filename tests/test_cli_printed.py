"""Every command that a stage prints works as printed: it is run, and so is what it prints in turn."""

import os
import signal
import time
from pathlib import Path

import pytest

from commands import finish, printed_commands, started
from fakes import EchoAgent
from swirl_env.store import Store
from swirl_env.types import Action, Verdict

pytestmark = pytest.mark.usefixtures("own_cache")

FAKES = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "agent=fakes:EchoAgent"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Pictures of reports take seconds, and no command depends on them."""
    monkeypatch.setattr("swirl_env.view.report.files.pictures", lambda report: [])


class Tired(EchoAgent):
    """Cannot act on one task as long as a file says that it is tired."""

    def act(self, states):
        tired = Path("tired").exists()
        return [Action("", error="unavailable") if tired and s.task.id == "sum-0" else self._one(s) for s in states]


class Unsure:
    """Cannot judge first steps as long as a file says that it is tired."""

    def __init__(self, words: str = "a, b", table: dict[str, float] | None = None):
        self.words, self.table = words, table

    def judge(self, steps):
        tired = Path("tired").exists()
        return [Verdict.failed("no") if tired and not s.state.steps else Verdict.good() for s in steps]


def run_all(swirl, text, seen=()):
    """Runs the commands in a text and those that they print, each once; returns them."""
    todo, done = printed_commands(text), list(seen)
    while todo:
        argv = todo.pop(0)
        if argv in done:
            continue
        done.append(argv)
        code, out, err = swirl(*argv)
        assert code == 0, (argv, err)
        todo += printed_commands(out + err)
    return done


def test_commands_of_the_stages(swirl):
    code, out, _ = swirl("generate", *FAKES, "n=4", "out=a run/x=1,y")
    done = run_all(swirl, out)
    assert code == 0 and {argv[0] for argv in done} >= {"eval", "filter", "judge", "report", "show", "view"} and len(done) >= 8
    assert all({"out=a run/x=1,y", "a run/x=1,y"} & set(argv) for argv in done)
    assert {path.name for path in Path().iterdir()} <= {"a run", "cache"}


def test_commands_of_a_run_that_lacks_something(swirl):
    Path("tired").touch()
    judge = ["judge=test_cli_printed:Unsure", "judge.words='say: {a}, [b]'", "judge.table={x:0.5}"]
    code, out, _ = swirl("generate", *FAKES[:2], *judge, "agent=test_cli_printed:Tired", "n=4", "out=run")
    assert code == 0 and "1 episode failed" in out and "without a verdict" in out
    Path("tired").unlink()
    run_all(swirl, out)
    store = Store("run", "r")
    assert len(store.keys()) == 4
    (table,) = [name for name in store.judges() if not name.startswith(("outcome", "rules"))]
    assert not any(v.status == "failed" for of_one in store.verdicts(table).values() for v in of_one)


def test_commands_of_a_sweep(swirl):
    code, out, _ = swirl("generate", *FAKES, "-m", "n=2", "max_steps=1,3", "seed=0,1", "out=sweep")
    done = run_all(swirl, out)
    assert code == 0 and len({word for argv in done for word in argv if word.startswith("out=sweep/max_steps=")}) == 4
    code, out, _ = swirl("judge", "out=sweep", "judge=outcome")
    assert code == 0 and run_all(swirl, out, done)


def test_commands_of_bench(swirl):
    code, out, err = swirl("bench", "part=agents", "n=2", "only=[ledger-scripted-0.2]", "out=b")
    assert code == 0 and run_all(swirl, out), err


def test_commands_after_an_interrupt(tmp_path, swirl):
    argv = [
        "task=atlas_ledger",
        "agent.noise=0.25",
        "tool.search.top_k=2",
        "judge=weighted",
        "judge.judges={rules:0.7,outcome:0.5}",
    ]
    process = started(tmp_path, "generate", *argv, "n=1500", "slots=4", "out=run", env={**os.environ})
    while not any(tmp_path.glob("run/trajectories/*.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    (again,) = printed_commands(err)
    assert code == 130 and again == ["generate", "out=run", "resume=true", "slots=4"]
    config, before = Store("run", "r").config(), len(Store("run", "r").keys())
    code, _, err = swirl(*again)
    assert code == 0 and config == Store("run", "r").config() and before < len(Store("run", "r").keys()) == 1500, err


def test_a_filter_with_other_verdicts_names_them(swirl):
    swirl("generate", *FAKES, "n=4", "out=run")
    swirl("judge", "out=run", "judge=outcome")
    code, out, _ = swirl("filter", "out=run", "verdicts=outcome", "filter=[process]")
    (argv,) = printed_commands(out)
    (table,) = [name for name in Store("run", "r").judges() if name.startswith("outcome")]
    assert code == 0 and argv == ["eval", "out=run", f"verdicts={table}"]
    python = out.splitlines()[-1].partition("in Python: ")[2]
    selected = list(eval(python, {"Store": Store}))  # our own text, printed for Python
    assert [t.key for t in selected] == list(Store("run", "r").selection("process", table).keys)
