"""The command line: stages end to end in process, options read from plugins, errors in one line, sweeps."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from commands import error_of
from fakes import EchoAgent
from swirl_env.cli import STAGES
from swirl_env.config.plugins import defaults, docs, spec
from swirl_env.judges.rules import RulesJudge
from swirl_env.store import Store
from swirl_env.types import Action, Verdict

pytestmark = pytest.mark.usefixtures("own_cache")

FAKES = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "judge=fakes:CallJudge", "agent=fakes:EchoAgent"]


class MoodyJudge:
    """Fails on its first two steps, which are those of one episode."""

    name = "moody"
    fingerprint = "moody-1"
    left = 2

    def judge(self, steps):
        verdicts = []
        for _ in steps:
            verdicts.append(Verdict.failed("not today", "moody") if MoodyJudge.left > 0 else Verdict.good("", "moody"))
            MoodyJudge.left -= 1
        return verdicts


class TiredJudge:
    """Fails on the first steps of episodes as long as a file says that it is tired."""

    def __init__(self, until: int = 1):
        self.until = until

    def judge(self, steps):
        tired = Path("tired").exists()
        return [Verdict.failed("no") if tired and len(s.state.steps) < self.until else Verdict.good() for s in steps]


class TiredAgent(EchoAgent):
    """Cannot act on two tasks as long as a file says that it is tired."""

    def act(self, states):
        lost = {"sum-0", "sum-1"} if Path("tired").exists() else set()
        return [Action("", error="unavailable") if s.task.id in lost else super(TiredAgent, self)._one(s) for s in states]


# Stages


def test_generate_judge_filter_eval_end_to_end(swirl, tmp_path):
    code, out, _ = swirl("generate", *FAKES, "n=10", "out=run")
    assert code == 0 and "10 episodes, accuracy 0.500 in run\n" in out and "next: swirl eval out=run" in out
    store = Store(tmp_path / "run", "r")
    assert store.keys() == {(f"sum-{i}", 0) for i in range(10)}
    (table,) = store.judges()
    assert {key: verdicts for key, verdicts in store.verdicts(table).items()} == {
        t.key: tuple(step.verdict for step in t.steps) for t in store
    }

    code, out, _ = swirl("filter", "out=run")
    assert code == 0 and [line.split()[1:3] for line in out.splitlines() if line.split()[:1] in (["none"], ["both"])] == [
        ["10", "10"],
        ["10", "5"],
    ]
    assert Store("run", "r").selection("outcome").size == 5

    code, out, _ = swirl("judge", "out=run", "judge=outcome")
    assert code == 0 and "10 episodes judged" in out and len(Store("run", "r").judges()) == 2
    assert "0 episodes judged" in swirl("judge", "out=run", "judge=outcome")[1]

    code, out, _ = swirl("eval", "out=run", "verdicts=outcome")
    assert code == 0 and "50.0 %" in out
    (file,) = (tmp_path / "run").glob("evaluation.outcome-*.json")
    written = json.loads(file.read_text())
    assert written["accuracy"]["value"] == 0.5 and written["verdicts"].startswith("outcome-")


def test_filters_cut_to_equal_sizes(swirl):
    swirl("generate", *FAKES, "n=12", "out=run")
    code, _, _ = swirl("filter", "out=run", "filter=[none,outcome]", "equal=true", "limit=5", "seed=3")
    store = Store("run", "r")
    assert code == 0 and store.selection("none").size == store.selection("outcome").size == 5


def test_judging_again_fills_the_gaps_only(swirl):
    swirl("generate", *FAKES, "n=6", "out=run")
    _, out, _ = swirl("judge", "out=run", "judge=test_cli:MoodyJudge", "batch=1")
    assert "6 episodes judged" in out and "1 hold failed verdicts" in out
    _, out, _ = swirl("judge", "out=run", "judge=test_cli:MoodyJudge", "batch=1")
    assert "1 episode judged" in out
    assert not any(v.status == "failed" for found in Store("run", "r").verdicts("moody-1").values() for v in found)


@pytest.mark.parametrize("until", [1, 2])
def test_generate_says_what_a_run_lacks_and_how_to_get_it(swirl, until):
    Path("tired").touch()
    judge = ["judge=test_cli:TiredJudge", *([] if until == 1 else ["judge.until=2"])]
    code, out, _ = swirl("generate", *FAKES[:2], *judge, "agent=test_cli:TiredAgent", "n=8", "out=run")
    assert code == 0 and "\n2 episodes failed: swirl generate out=run resume=true" in out
    again = shlex.split(out.partition("2 episodes failed: swirl ")[2].partition("   runs them again")[0])
    asked = f"\n{6 * until} steps without a verdict: swirl judge out=run {' '.join(judge)}\n"
    assert asked in out
    Path("tired").unlink()
    _, out, err = swirl(*again)
    assert "8 episodes" in out and asked in out and "failed" not in out, err
    _, out, _ = swirl(*asked.partition(": swirl ")[2].split())
    assert "6 episodes judged" in out
    _, out, err = swirl(*again)
    assert "8 episodes" in out and "without a verdict" not in out


def test_eval_generates_what_is_not_there_and_compares_sweeps(swirl):
    code, out, _ = swirl("eval", *FAKES, "n=4", "out=fresh")
    assert code == 0 and "50.0 %" in out and len(Store("fresh", "r")) == 4
    assert "already holds a run" in error_of(swirl("eval", *FAKES, "n=5", "out=fresh"))
    code, _, _ = swirl("generate", *FAKES, "n=4", "max_steps=1,3", "out=sweep", "-m")
    assert code == 0
    code, out, _ = swirl("eval", "out=sweep")
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("max_steps")]
    assert [row[:3] for row in rows] == [["max_steps=1", "4", "0.0"], ["max_steps=3", "4", "50.0"]]


def test_a_sweep_over_agents_has_a_folder_a_job(swirl, tmp_path):
    code, _, _ = swirl("generate", *FAKES[:3], "agent=fakes:EchoAgent,random", "-m", "n=4", "out=sweep")
    assert code == 0
    assert {p.name for p in (tmp_path / "sweep").iterdir()} == {"agent=fakes.EchoAgent", "agent=random", "multirun.yaml"}
    assert {t.agent for t in Store(tmp_path / "sweep/agent=random", "r")} == {"random"}
    code, out, _ = swirl("eval", "out=sweep/agent=random")  # an = in a value needs no quotes
    assert code == 0 and "episodes" in out


def test_nothing_is_left_beside_the_run_folder(swirl, tmp_path):
    swirl("generate", *FAKES, "n=2")
    swirl("generate", *FAKES, "n=2", "agent=nobody")
    swirl("generate", "--help")
    assert {p.name for p in tmp_path.iterdir()} <= {"runs", "cache"}
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("generate-")
    assert {p.name for p in run.iterdir()} == {
        "config.yaml",
        "environment.json",
        "trajectories",
        "verdicts",
        "selections",
        ".lock",
    }


def test_bench_writes_one_table(swirl, tmp_path):
    code, out, err = swirl("bench", "part=agents", "n=3", "out=b", "only=[ledger]")
    assert code == 0, err
    table = json.loads((tmp_path / "b/bench.json").read_text())["rows"]
    assert [(row["task"], row["agent"]) for row in table] == [
        (task, agent) for task in ("Ledger", "AtlasLedger") for agent in ("scripted 0", "scripted 0.2", "scripted 0.4", "random")
    ]
    assert table[0]["evaluation"]["accuracy"]["value"] == 1 and table[0]["kept"] == {"process": 3, "outcome": 3, "both": 3}
    assert "scripted 0.4" in out and "HotpotQA and GSM8K were left out: set SWIRL_DATA_DIR" in out
    assert (tmp_path / "b/bench.md").read_text().count("\n") == 10
    assert "resume=true" in error_of(swirl("bench", "out=b"))
    code, _, err = swirl("bench", "part=agents", "n=3", "out=b", "only=[ledger]", "resume=true")
    assert code == 0 and "[8/8]" in err


@pytest.mark.data
def test_bench_on_real_sets_leaves_out_what_is_absent(swirl, tmp_path, data_dir):
    code, out, _ = swirl(
        "bench",
        "part=agents",
        "n=3",
        "out=b",
        "only=[gsm8k]",
        f"data_dir={data_dir}",
        "model=package:no_such_package",
        "n_model=1",
    )
    assert code == 0 and "was left out: " in out and "no_such_package" in out
    expert = json.loads((tmp_path / "b/bench.json").read_text())["rows"][0]
    assert expert["evaluation"]["accuracy"]["value"] == 1 and expert["evaluation"]["process"]["value"] == 1


def test_play_shows_a_reward_for_every_step(swirl, monkeypatch):
    lines = iter(["echo: hi", "nonsense", "answer: 1"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    code, out, _ = swirl("play", *FAKES[:3], "out=played")
    assert code == 0 and out.count("What is 0 + 1?") == 1 and out.count("hi -> HI") == 1
    assert [line.split()[1] for line in out.splitlines() if line.strip().startswith("reward")] == ["0.5", "0", "1"]
    assert "answered, correct. Rewards: 0.5 0 1" in out and len(Store("played", "r")) == 1


def test_play_ends_with_the_input_and_can_watch_an_agent(swirl, monkeypatch):
    def closed(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    code, out, _ = swirl("play", *FAKES[:3])
    assert code == 0 and out.endswith("given up\n")
    code, out, _ = swirl("play", *FAKES, "task_id=sum-1")
    assert code == 0 and "out of actions, wrong; the answer is 2. Rewards: 0.5 0.5 0.5" in out


def test_check_reports_and_its_exit_code_counts(swirl):
    code, out, _ = swirl("check", "calculator")
    assert code == 0 and "BROKEN" not in out
    code, out, _ = swirl("check", "fakes:BrokenTool", "kind=tool")
    assert code == 1 and "BROKEN" in out and "out of order" in out
    assert "No plugin named 'calculater'. Did you mean 'calculator'?" in error_of(swirl("check", "calculater"))


# Options


def test_options_come_from_the_signature():
    assert defaults("judge", "rules") == {
        "name": "rules",
        "good": 1.0,
        "bad": 0.0,
        "require_evidence": True,
        "require_computed": True,
    }
    assert defaults("tool", "search")["corpus"] is None  # the program's to give
    assert defaults("agent", "transformers")["model"] == "???"
    assert "judges" in defaults("judge", "weighted") and set(defaults("agent", "human")) == {
        "name"
    }  # functions are no configuration
    assert docs(RulesJudge)["good"] == "reward of a GOOD step."
    assert spec("judge", {"name": "none"}) is None


def test_options_reach_the_plugin_and_the_config_file(swirl):
    swirl("generate", *FAKES, "task.n=7", "n=null", "samples=2", "out=run")
    assert len(Store("run", "r")) == 14
    config = OmegaConf.create(Store("run", "r").config())
    assert config.task.n == 7 and config.n is None and config.samples == 2 and "resume" not in config


def test_options_of_the_tasks_own_tools_need_no_choice_of_tools(swirl):
    code, _, err = swirl("generate", "task=ledger", "tool.calculator.timeout_s=1.0", "n=1", "out=run", "--cfg", "job")
    assert code == 0, err
    code, _, _ = swirl("generate", "task=atlas_ledger", "tool.search.top_k=3", "n=1", "out=run")
    assert code == 0 and Store("run", "r").config().count("top_k: 3") == 1
    (trajectory,) = Store("run", "r")
    assert len(trajectory.settings.tools) == 2


def test_an_option_may_be_a_plugin_with_options(swirl):
    code, _, err = swirl("generate", "task=ledger", "judge=weighted", "judge.judges={rules: 1, outcome: 3}", "n=2", "out=run")
    assert code == 0, err
    assert [t.steps[-1].verdict.parts for t in Store("run", "r")] == [{"rules": 1.0, "outcome": 1.0}] * 2


def test_a_users_own_config_files_take_part(swirl, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/hard.yaml").write_text(
        "defaults: [generate, {override agent: random}, _self_]\nn: 3\ntask: {max_hops: 2}\n"
    )
    code, _, err = swirl("generate", "--config-dir", "mine", "--config-name", "hard", "out=run")
    assert code == 0, err
    assert {t.agent for t in Store("run", "r")} == {"random"} and len(Store("run", "r")) == 3


def test_no_judge_and_no_tools(swirl):
    code, _, _ = swirl("generate", "judge=null", "tool=[]", "n=2", "out=run")
    assert code == 0
    assert [t.settings.tools for t in Store("run", "r")] == [(), ()] and not Store("run", "r").judges()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["agent=scriptd"], "No agent named 'scriptd'. Did you mean 'scripted'? Known: "),
        (["task=nope:Nope"], "The task 'nope:Nope' could not be imported"),
        (["agent.nois=1"], "The agent 'scripted' has no option 'nois'. Did you mean agent.noise?"),
        (["sed=3"], "`swirl generate` has no key 'sed'. Did you mean seed?"),
        (["agnt=scripted"], "Did you mean agent?"),
        (["tool=[search]", "tool.search.topk=3"], "The tool 'search' has no option 'topk'. Did you mean tool.search.top_k?"),
        (["tool.serch.top_k=3"], "select it too, tool=[search]"),
        (["n=abc"], "n: expected int | null, got str; got 'abc'."),
        (["n=0"], "n: expected int >= 1; got 0."),
        (["history=ful"], "history: expected one of full, calls; got 'ful'."),
        (["agent.noise=high"], "agent.noise: expected float, got str; got 'high'."),
        (["agent=scripted,random"], "To run one after the other add --multirun (-m)"),
        (["n=[1"], "Expected key=value, got 'n=[1'"),
        (["agent.noise.x=1"], "agent.noise is a value, not a section"),
        (["+sed=3"], "No key of `swirl generate` named 'sed'. Did you mean 'seed'?"),
        (["out="], "out: expected str of length >= 1; got ''."),
        (["agent=transformers"], "The agent 'transformers' needs a value for 'model': give agent.model=..."),
    ],
)
def test_mistakes_are_explained_in_one_line_and_leave_nothing(swirl, tmp_path, argv, says):
    assert says in error_of(swirl("generate", *argv))
    assert not (tmp_path / "runs").exists()


def test_other_mistakes(swirl, tmp_path):
    assert "No stage named 'generat'. Did you mean 'generate'?" in error_of(swirl("generat"))
    assert "`swirl judge` needs a value for 'out'" in error_of(swirl("judge"))
    assert "nowhere is no run folder" in error_of(swirl("filter", "out=nowhere"))
    assert "nowhere is no run folder" in error_of(swirl("judge", "out=nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_failing_job_of_a_sweep_is_named(swirl):
    code, _, err = swirl("generate", *FAKES[:3], "agent=fakes:EchoAgent,fakes:Nobody", "n=2", "out=sweep", "-m")
    assert code == 2 and "Nobody" in err


@pytest.mark.parametrize("stage", [name for name, stage in STAGES.items() if not stage.plain])
def test_every_shipped_config_composes_and_is_explained(swirl, stage):
    code, out, _ = swirl(stage, "--help")
    assert code == 0 and out.startswith(f"swirl {stage}: ")
    keys = out.partition("\nKeys\n")[2].partition("\n\n")[0]
    for line in keys.splitlines():
        assert line.startswith(" " * 20) or " = " in line
    assert " out " in keys and "(undocumented)" not in keys


def test_help_shows_choices_and_options(swirl):
    _, out, _ = swirl("generate", "agent=random", "--help")
    out = " ".join(out.split())  # where lines are folded depends on the choices and the terminal
    assert "= random" in out
    assert "atlas_ledger" in out
    assert "several: tool=[a,b]" in out, out
    assert "task.documents" in out and "how many documents describe the world" in out
    assert swirl()[1] == swirl("--help")[1] and all(stage in swirl()[1] for stage in STAGES)


# Cost


def test_help_is_light_and_plugins_that_are_not_named_stay_out(tmp_path):
    code = "import sys; from swirl_env.cli import main; main({argv}); print(*sorted(m.partition('.')[0] for m in sys.modules))"

    def loaded(argv):
        done = subprocess.run(
            [sys.executable, "-c", code.format(argv=argv)], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return set(done.stdout.splitlines()[-1].split())

    assert not {"hydra", "omegaconf", "rich", "torch"} & loaded(["--help"])
    assert not {"torch", "transformers", "datasets"} & loaded(["generate", "task=ledger", "n=1", "out=x"])
