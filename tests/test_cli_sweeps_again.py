"""The same sweep once more: ended cells are left alone, begun ones go on, failed ones are named and tried again."""

import json
import shlex
from pathlib import Path

import pytest

from fakes import EchoAgent
from swirl_env.stages import environment
from swirl_env.store import Store

pytestmark = pytest.mark.usefixtures("own_cache")

FAKES = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge"]


class Counting(EchoAgent):
    """Counts its states in a file; fails while another file is there, if it is told to."""

    def __init__(self, word: str = "a"):
        self.word = word
        if self.word == "bad" and Path("broken").exists():
            raise RuntimeError("the server [red]is\x1b[31m away")

    def act(self, states):
        with Path("acts").open("a") as file:
            file.write(f"{self.word}\n" * len(states))
        return super().act(states)


def acts():
    file = Path("acts")
    return file.read_text().split() if file.exists() else []


AGENT = "agent=test_cli_sweeps_again:Counting"


def test_the_same_sweep_again_runs_nothing_and_shows_the_same_table(swirl):
    argv = ["generate", *FAKES, AGENT, "-m", "n=4", "seed=0,1", "out=sweep"]
    code, out, err = swirl(*argv)
    assert code == 0 and len(acts()) > 0, err
    table, count = out[out.index("2 runs in sweep") :], len(acts())
    stored = {path: path.read_bytes() for path in Path("sweep").rglob("*.jsonl")}
    code, again, err = swirl(*argv)
    assert code == 0 and again[again.index("2 runs in sweep") :] == table, err
    assert len(acts()) == count and stored == {path: path.read_bytes() for path in Path("sweep").rglob("*.jsonl")}


def test_cells_that_were_begun_go_on_and_new_ones_are_added(swirl):
    argv = ["generate", *FAKES, AGENT, "-m", "n=4", "out=sweep"]
    assert swirl(*argv, "seed=0,1")[0] == 0
    shard = Path("sweep/seed=1/trajectories/00000.jsonl")
    shard.write_bytes(b"".join(shard.read_bytes().splitlines(keepends=True)[:2]))
    before = len(acts())
    assert swirl(*argv, "seed=0,1,2")[0] == 0
    assert [len(Store(f"sweep/seed={seed}", "r")) for seed in (0, 1, 2)] == [4, 4, 4]
    assert 0 < len(acts()) - before < before


@pytest.mark.parametrize("change", ["n=3", "max_steps=2", "agent.word=other", "task.n=5", "history=calls"])
def test_another_sweep_in_the_same_folder_is_refused_cell_by_cell(swirl, change):
    argv = ["generate", *FAKES, AGENT, "-m", "n=4", "seed=0,1", "out=sweep"]
    assert swirl(*argv)[0] == 0
    stored = {path: path.read_bytes() for path in Path("sweep").rglob("*.jsonl")}
    code, _, err = swirl(*argv, change)
    key, _, value = change.partition("=")
    assert code == 2 and "was begun with another configuration" in err and f"{key} was" in err and f"now {value}" in err, err
    assert stored == {path: path.read_bytes() for path in Path("sweep").rglob("*.jsonl")}


def test_failed_cells_are_listed_with_their_reason_and_tried_again(swirl):
    Path("broken").touch()
    argv = ["generate", *FAKES, AGENT, "agent.word=bad,good", "seed=0,1", "n=2", "-m", "out=sweep"]
    code, out, err = swirl(*argv)
    assert code == 2 and "2 of 4 runs failed" in err and "the server [red]is\\x1b[31m away" in err, err
    lines = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in lines] == ["agent.word=bad,seed=0", "agent.word=bad,seed=1"]
    assert all("the server [red]is\\x1b[31m away" in line for line in lines)
    assert {len(Store(f"sweep/agent.word=good,seed={seed}", "r")) for seed in (0, 1)} == {2}
    code, again, _ = swirl("eval", "out=sweep")
    assert code == 0 and [line for line in again.splitlines() if line.startswith("failed: ")] == lines
    Path("broken").unlink()
    count = acts().count("good")
    code, out, err = swirl(*argv)
    assert code == 0 and "failed: " not in out and acts().count("good") == count, err
    assert not list(Path("sweep").rglob("failed.txt"))


def test_a_run_folder_holds_what_it_was_made_with(swirl, monkeypatch):
    argv = ["generate", *FAKES, AGENT, "n=2", "out=run"]
    assert swirl(*argv)[0] == 0
    (entry,) = json.loads(Path("run/environment.json").read_text())
    assert {"time", "python", "platform", "cpus", "device", "packages", "git"} == entry.keys()
    assert {"swirl-env", "numpy", "hydra-core", "gymnasium"} <= entry["packages"].keys() and "pytest" not in entry["packages"]
    assert swirl(*argv, "resume=true")[0] == 0
    assert len(environment.read_environments(Path("run"))) == 1
    monkeypatch.setattr(environment, "_packages", lambda: {"swirl-env": "0.0.0"})
    assert swirl(*argv[:-2], "out=run", "n=3", "resume=true")[0] == 0
    noted = environment.read_environments(Path("run"))
    assert noted[0] == entry and noted[1]["packages"] == {"swirl-env": "0.0.0"}


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", '{"a": 1}', "[" * 100_000, "\x00\xff"])
def test_a_damaged_note_of_the_environment_costs_nothing_but_itself(swirl, damage):
    argv = ["generate", *FAKES, AGENT, "n=2", "out=run"]
    assert swirl(*argv)[0] == 0
    Path("run/environment.json").write_bytes(damage.encode("latin-1"))
    assert swirl(*argv[:-2], "out=run", "n=3", "resume=true")[0] == 0
    assert len(environment.read_environments(Path("run"))) == 1 and len(Store("run", "r")) == 3


def test_revisions_of_git_say_whether_files_were_changed(tmp_path):
    import subprocess

    def git(*words):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    assert environment._revision.__wrapped__(tmp_path) is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    assert environment._revision.__wrapped__(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    (tmp_path / "hook").write_text("#!/bin/sh\ntouch hooked\n")
    (tmp_path / "hook").chmod(0o755)
    git("config", "core.fsmonitor", str(tmp_path / "hook"))
    assert environment._revision.__wrapped__(tmp_path) == git("rev-parse", "HEAD") + "+"
    assert not (tmp_path / "hooked").exists()


@pytest.mark.parametrize("words", [["tool=[fakes:EchoTool],[fakes:EchoTool,fakes:EchoTool]"], ["seed=range(0,2)"], []])
def test_every_cell_has_a_folder_of_its_own(swirl, words):
    code, _, err = swirl("generate", *FAKES, AGENT, "n=2", *words, "-m", "out=sweep")
    assert code == 0, err
    cells = [path for path in Path("sweep").iterdir() if path.is_dir()]
    assert [len(Store(cell, "r")) for cell in cells] == [2] * (2 if words else 1)
    assert {path.name for path in Path("sweep").iterdir() if path.is_file()} == {"multirun.yaml"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["seed=0,1", "out=file"], "file is a file, not a folder"),
        (["seed=0,1", "out=run"], "run holds a single run"),
        (["seed=glob(*)", "out=new"], "The sweep has no runs"),
        (["seed=interval(0,1)", "out=new"], "does not support sweep type"),
        (["seed=0,1", "out=new", "hydra/launcher=jobli"], "No hydra/launcher named 'jobli'"),
        (["seed=0,1", "out=new", "hydra/sweeper=optun"], "No hydra/sweeper named 'optun'"),
        (["seed=0,1", "out=new", "hydra.launcher.n_jobz=2"], "has no key 'hydra.launcher.n_jobz'"),
        (["seed=0,1", "out=new", "--cfg", "job"], "Only one of --"),
        (["seed=0,1", "out=new", "--config-path", "conf"], "--config-dir conf"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_line_and_leaves_nothing(swirl, words, says):
    assert swirl("generate", *FAKES, AGENT, "n=2", "out=run")[0] == 0
    Path("file").touch()
    before = {str(path) for path in Path().rglob("*")}
    code, _, err = swirl("generate", *FAKES, AGENT, "n=2", "-m", *words)
    assert code == 2 and err.startswith("swirl: ") and err.count("\n") == 1 and says in err, err
    assert {str(path) for path in Path().rglob("*")} == before


def test_an_unknown_preset_is_refused_with_the_nearest(swirl):
    pytest.importorskip("torch", reason="training needs torch")
    code, _, err = swirl("train", "+experiment=filers", "out=new")
    assert code == 2 and "No experiment named 'filers'. Did you mean 'filters'?" in err and not Path("new").exists()


def test_a_sweep_that_is_interrupted_before_it_has_a_folder_says_how_to_begin_it(swirl, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("swirl_env.config.app._run", interrupt)
    code, _, err = swirl("generate", *FAKES, AGENT, "n=2", "-m", "seed=0,1", "out=a b")
    again = shlex.split(err.partition("To go on: ")[2])
    assert code == 130 and again == ["swirl", "generate", "-m", *FAKES, AGENT, "n=2", "seed=0,1", "out=a b"]


def test_two_sweeps_at_once_share_the_work_and_neither_spoils_the_other(swirl):
    argv = ["generate", *FAKES, AGENT, "-m", "n=2", "seed=0,1", "out=sweep"]
    with Store("sweep/seed=1") as other:
        other.lock()
        code, out, err = swirl(*argv)
        assert code == 2 and "is writing to sweep/seed=1" in err and "failed: " not in out, err
        assert len(Store("sweep/seed=0", "r")) == 2 and not list(Path("sweep").rglob("failed.txt"))
    code, out, err = swirl(*argv)
    assert code == 0 and "2 runs in sweep" in out, err
