"""Mistakes of a command line and of plugins that end badly: one line each, exit code 2, and nothing that looks like a result."""

import asyncio
from pathlib import Path

import pytest

from commands import error_of
from fakes import CallJudge
from swirl_env.config.overrides import readable
from swirl_env.config.plain_arguments import parse
from swirl_env.errors import PluginError, plugin_failure
from swirl_env.registry import make
from swirl_env.stages import folders
from swirl_env.store import Store
from swirl_env.types import Verdict

pytestmark = pytest.mark.usefixtures("own_cache")

FAKES = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "agent=fakes:EchoAgent"]
HERE = "test_cli_mistakes:"
NUMBER = 5


class PanicException(BaseException):
    """What a library in Rust raises (PyO3)."""


class Ends:
    """Ends the program in the way that its option names, whatever it is asked."""

    corpus, split, tools, max_steps = None, "test", (), 2

    def __init__(self, how: str = "exit", when: str = "call"):
        self.how = how
        if when == "made":
            self.end()

    def end(self, *_):
        raise {"exit": SystemExit(0), "generator": GeneratorExit(), "panic": PanicException("rust")}[self.how]

    judge = act = grade = __len__ = __getitem__ = end


class Moody(CallJudge):
    """Ends the program on the first step of an episode alone."""

    def judge(self, steps):
        if any(not s.state.steps for s in steps):
            raise SystemExit(0)
        return super().judge(steps)


def short(trajectory):
    return len(trajectory.steps) < 2


def raising(trajectory):
    raise KeyError("boom")


def silent(trajectory):
    pass


def ending(trajectory):
    raise SystemExit(0)


# Folders


@pytest.fixture
def runs(swirl):
    assert swirl("generate", *FAKES, "n=2", "out=runs/demo")[0] == 0
    return swirl


def test_folders_that_are_something_else_are_called_what_they_are(runs):
    for argv, says in [
        (["eval", "out=runs/demo/config.yaml"], "it is a file. Did you mean out=runs/demo?"),
        (["eval", "out=runs/demo/trajectories"], "it holds no run. Did you mean out=runs/demo?"),
        (["report", "runs/dmo"], "it does not exist. Did you mean runs/demo?"),
        (["generate", "out=runs", "resume=true"], "but a folder of runs: out=runs/demo is one of them"),
        (["generate", "resume=true"], "resume=true goes on with a run: name its folder too"),
        (["generate", *FAKES, "n=3", "resume=true"], "resume=true goes on with a run: name its folder too"),
    ]:
        assert says in error_of(runs(*argv))
        assert [path.name for path in Path("runs").iterdir()] == ["demo"]


def test_links_in_a_circle_are_walked_once(runs):
    for name in "ab":
        Path("loop", name).mkdir(parents=True)
        for way in ("up", "again"):
            Path("loop", name, way).symlink_to("..")
    assert "loop is no run folder: it holds no run" in error_of(runs("eval", "out=loop"))
    Path("loop/a/run").symlink_to(Path("runs/demo").absolute())
    Path("loop/b/run").symlink_to(Path("runs/demo").absolute())
    assert [str(path) for path, _ in folders.runs_below(Path("loop"))] == ["loop/a/run"]
    assert runs("eval", "out=loop")[0] == 0


def test_a_folder_with_everything_below_it_is_not_searched_for_ever(runs, monkeypatch):
    monkeypatch.setattr(folders, "MOST_FOLDERS", 3)
    assert runs("eval", "out=runs")[0] == 0
    for name in "abc":
        Path("home", name).mkdir(parents=True)
    assert "home has over 3 folders below it that hold no run" in error_of(runs("eval", "out=home"))


def test_the_home_folder_and_numbers_are_folders(swirl, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, out, err = swirl("generate", *FAKES, "n=2", "out=~/run")
    assert code == 0 and f"swirl eval out={tmp_path}/home/run" in out and not Path("~").exists(), err
    assert parse(["to=chat", "out=~/chat.jsonl"], {"to": str, "out": str})[1]["out"] == f"{tmp_path}/home/chat.jsonl"
    assert swirl("generate", *FAKES, "n=2", "out=5")[0] == 0 and len(Store("5", "r")) == 2
    assert [readable(f"out={name}") for name in ("true", "1e3", "null")] == ["out='true'", "out='1e3'", "out=null"]


def test_a_run_without_a_single_episode_has_no_figures(swirl):
    assert swirl("generate", *FAKES[:3], f"agent={HERE}Ends", "n=2", "out=run")[0] == 2
    said = error_of(swirl("eval", "out=run"))
    assert (
        "There is nothing to evaluate in run: all 2 episodes in it failed. To run them: swirl generate out=run resume=true"
        in said
    )
    assert not Path("run/evaluation.json").exists()


# Words


def test_what_a_stage_lacks_or_does_not_have_is_named(swirl):
    for argv, says in [
        (["judge", "out=run", "judge=none"], "`swirl judge` needs a judge: give judge=NAME, one of "),
        (["filter", "out=run", "filter=[]"], "`swirl filter` needs a filter: give filter=[NAME,...], one of "),
        (["filter", "out=run", "judge=rules"], "`swirl filter` has no group 'judge'"),
        (["judge", "out=run", "judge=rules,outcome"], "add --multirun (-m); one run takes a single judge."),
        (["filter", "out=run", "filter=process,outcome"], "add --multirun (-m); for all of them write filter=[process,outcome]."),
    ]:
        assert says in error_of(swirl(*argv))


# Plugins


@pytest.mark.parametrize(("kind", "how"), [("agent", "exit"), ("judge", "generator"), ("task", "panic"), ("grader", "exit")])
def test_a_plugin_that_ends_the_program_is_an_error(swirl, kind, how):
    words = [word for word in FAKES if not word.startswith(kind)]
    code, out, err = swirl("generate", *words, f"{kind}={HERE}Ends", f"{kind}.how={how}", "n=2", "out=run")
    name = {"exit": "SystemExit(0)", "generator": "GeneratorExit()", "panic": "PanicException(rust)"}[how]
    assert code == 2 and name in err and "accuracy" not in out, err
    code, out, err = swirl("generate", *words, f"{kind}={HERE}Ends", f"{kind}.how={how}", f"{kind}.when=made", "out=other")
    assert code == 2 and f"The {kind} '{HERE}Ends' could not be made: RuntimeError: {name}" in err and not Path("other").exists()


def test_a_judge_that_ends_the_program_now_and_then_fails_there_alone(swirl):
    assert swirl("generate", *FAKES[:2], FAKES[3], f"judge={HERE}Moody", "n=2", "out=run")[0] == 0
    verdicts = [step.verdict for t in Store("run", "r") for step in t.steps]
    assert {verdict.status for verdict in verdicts} == {"failed", "scored"} and Verdict.failed not in verdicts


def test_ctrl_c_and_cancelled_tasks_are_not_a_plugins():
    for error in (KeyboardInterrupt(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            plugin_failure(error)


@pytest.mark.parametrize("path", [f"{HERE}NUMBER", f"{HERE}__doc__", "math:hypot"])
def test_what_is_no_plugin_is_named(swirl, path):
    assert f"'{path}' is no agent: it is" in error_of(swirl("generate", f"agent={path}", "out=run"))
    for kind in ("agent", "judge", "task", "grader", "tool", "algo"):
        with pytest.raises(PluginError, match=rf"'{path}' is no {kind}: it is"):
            make(kind, path)


def test_a_filter_that_decides_nothing_selects_nothing(runs):
    for name, says in [
        ("NUMBER", "is no filter: it is 5"),
        ("raising", "The filter 'raising' raised KeyError on task 'sum-0': 'boom'"),
        ("silent", "The filter 'silent' returned None on task 'sum-0'; expected True or False"),
        ("ending", "The filter 'ending' raised RuntimeError on task 'sum-0': SystemExit(0)"),
    ]:
        code, _, err = runs("filter", "out=runs/demo", f"filter={HERE}{name}")
        assert code == 2 and says in err.splitlines()[0] and not list(Path("runs/demo/selections").iterdir())
    assert runs("filter", "out=runs/demo", f"filter={HERE}short")[0] == 0


class Loud:
    """Raises with what a terminal would act upon."""

    def judge(self, steps):
        raise ValueError("boom \x1b[2J\u202e")


def test_the_contract_suite_prints_what_a_plugin_says_escaped(swirl):
    code, out, err = swirl("check", f"{HERE}Loud")
    assert code == 1 and "boom \\x1b[2J\\u202e" in out and out.replace("\n", "").isprintable(), out + err
