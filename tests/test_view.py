"""The page of trajectories and `swirl show`: complete, safe with hostile text, and one sentence for each mistake."""

import base64
import gzip
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from fakes import CallJudge, EchoAgent, EchoTool, SumTasks
from swirl_env.env import build_engine
from swirl_env.rollout import collect
from swirl_env.store import Store
from swirl_env.types import Verdict

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)></script>{{ 7*7 }}\x1b[31m\u202eright"


class HostileAgent(EchoAgent):
    def _one(self, state):
        return type(super()._one(state))(HOSTILE + super()._one(state).text)


def make_run(path, episodes=6, agent=None):
    engine = build_engine(SumTasks(50), tools=[EchoTool()], judge=CallJudge())
    with Store(path) as store:
        for trajectory in collect(agent or EchoAgent(), engine, episodes, 4):
            store.append(trajectory)
    return path


def unpacked(page, name):
    (text,) = re.findall(rf'id="{name}">([^<]*)<', page)
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_every_episode_is_on_the_page(swirl, tmp_path):
    make_run("run", 40)
    code, out, _ = swirl("view", "run")
    assert code == 0 and "40 episodes of 1 run in run/view.html" in out
    page = (tmp_path / "run/view.html").read_text()
    index = unpacked(page, "index")
    assert index["runs"] == ["run"] and len(index["rows"]) == 40
    episodes = unpacked(page, "piece-0")
    stored = list(Store("run", "r"))
    for row, episode, trajectory in zip(index["rows"], episodes, stored, strict=True):
        assert row[1:3] == list(trajectory.key) and row[7] == len(trajectory.steps) == len(episode["steps"])
        assert [s["call"] for s in episode["steps"]] == [s.action.text[s.call.start : s.call.end] for s in trajectory.steps]


def test_verdicts_of_all_judges_are_shown_and_repeated_ones_once(swirl, tmp_path):
    make_run("run", 3)
    with Store("run") as store:
        for trajectory in list(store):
            store.append_verdicts("same-1", trajectory.key, [step.verdict for step in trajectory.steps])
            store.append_verdicts("other-1", trajectory.key, [Verdict.bad("no", "other") for _ in trajectory.steps])
    swirl("view", "run", "out=page.html")
    for episode in unpacked((tmp_path / "page.html").read_text(), "piece-0"):
        for step in episode["steps"]:
            assert [verdict["judge"] for verdict in step["verdicts"]][1:] == ["other-1"]


def test_nothing_that_a_model_wrote_is_in_the_markup(swirl, tmp_path):
    make_run("run", 4, HostileAgent())
    assert swirl("view", "run")[0] == 0
    page = (tmp_path / "run/view.html").read_text()
    assert "alert(" not in page and "onerror" not in page and page.count("<script>") == 1
    assert HOSTILE in unpacked(page, "piece-0")[0]["steps"][0]["before"]
    assert "http" not in re.sub(r'id="(index|piece-\d+)">[^<]*<', "", page).replace("http-equiv", "")


def test_the_policy_of_the_page_names_its_own_script_and_style(swirl, tmp_path):
    import hashlib

    make_run("run")
    swirl("view", "run")
    page = (tmp_path / "run/view.html").read_text()
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page


def test_several_runs_and_sweeps_are_shown_by_their_folders(swirl, tmp_path):
    for name in ("sweep/a", "sweep/b", "one"):
        make_run(name)
        (tmp_path / name / "config.yaml").write_text("n: 6\n")
    assert swirl("view", "sweep", "one", "out=page.html")[0] == 0
    assert unpacked((tmp_path / "page.html").read_text(), "index")["runs"] == ["sweep/a", "sweep/b", "one"]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["view"], "Expected a run folder to show"),
        (["view", "rum"], "rum does not exist.*Did you mean run"),
        (["view", "run", "outt=x.html"], "Did you mean 'out'"),
        (["view", "run", "out=no/such/page.html"], "does not exist"),
        (["view", "run", "serve=yes"], "serve is true or false; got 'yes'"),
        (["show", "run"], "Expected a run folder, a task id"),
        (["show", "run", "sum-1", "x"], "sample number"),
        (["show", "run", "sum-01"], "Did you mean 'sum-"),
        (["show", "run", "sum-1", "7"], "no sample 7 of 'sum-1'; it holds 0"),
        (["show", "rum", "sum-1"], r"rum is no run folder: it does not exist\. Did you mean run\?"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(swirl, tmp_path, argv, sentence):
    make_run("run")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = swirl(*argv)
    assert code == 2 and re.search(sentence, err) and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_episode_in_the_terminal_shows_its_steps_and_no_control_characters(swirl):
    make_run("run", 4, HostileAgent())
    code, out, _ = swirl("show", "run", "sum-1")
    assert code == 0 and "[1]" in out and "ended: budget" in out and "gold '2'" in out
    assert "\x1b" not in out


def test_the_commands_that_view_prints_work(swirl):
    make_run("run")
    _, out, _ = swirl("view", "run")
    (show,) = re.findall(r"swirl (show .*)", out)
    assert swirl(*show.split())[0] == 0


@pytest.mark.parametrize("command", ["view", "show"])
def test_help(swirl, command):
    code, out, _ = swirl(command, "--help")
    assert code == 0 and out.startswith(f"usage: swirl {command} DIR")


def test_a_page_that_cannot_be_written_whole_leaves_the_one_before(swirl, tmp_path, monkeypatch):
    make_run("run")
    assert swirl("view", "run")[0] == 0
    page = Path("run/view.html").read_bytes()
    make_run("run2", 4)

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = swirl("view", "run", "run2")
    assert code == 2 and "No space left" in err and err.count("\n") == 1
    assert Path("run/view.html").read_bytes() == page
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]


def test_a_device_is_written_to_and_stays_a_device(swirl, tmp_path):
    make_run("run")
    os.mkfifo("pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE) as reader:
        assert swirl("view", "run", "out=pipe")[0] == 0
        assert reader.communicate()[0].startswith(b"<!doctype html>") and Path("pipe").is_fifo()
