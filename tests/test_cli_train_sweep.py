"""Sweeps of training runs, trajectories of other settings, and what a training run prints."""

import json
import os
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from commands import error_of, finish, printed_commands, started  # noqa: E402
from swirl_env.stages.trained import expand_trained  # noqa: E402
from swirl_env.store import Store  # noqa: E402
from weak import put_warm_starts  # noqa: E402

FEW = ["setting=easy", "judge=fakes:Evens", "updates=2", "eval.episodes=6", "eval.before=false", "slots=16"]
DEMOS = [
    "task.words=40",
    "task.max_hops=2",
    "task.values=false",
    "task.comparisons=0",
    "prompt=question",
    "agent.reasoning=false",
]
STORED = ["algo=rft", "algo.states=stored", "algo.filter=none", "algo.episodes_per_update=4", "eval.episodes=0", "updates=1"]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache in which the warm start of a setting is there already: a weak one, made in seconds."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str(root))
        patch.setenv("OMP_NUM_THREADS", "1")
        put_warm_starts(root, "easy")
        yield root


def test_a_sweep_of_training_runs_ends_with_a_table_that_eval_prints_again(swirl):
    algos = "algo=return_to_go,swirl"
    code, out, err = swirl("train", "-m", algos, "seed=0,1", *FEW, "out=sweep")
    assert code == 0, err
    table = out[out.index("4 runs in sweep") :]
    rows = {line.split()[0]: line.split() for line in table.splitlines() if line.strip().startswith("algo=")}
    assert list(rows) == ["algo=return_to_go", "algo=swirl"] and [row[1:3] for row in rows.values()] == [["2", "12"]] * 2
    held = {path: path.read_bytes() for path in Path("sweep").rglob("*.json") if path.name == "evaluation.json"}
    after = [json.loads(held[Path(f"sweep/algo=swirl,seed={i}/evaluation.json")])["after"] for i in (0, 1)]
    shares = [evaluation["sampled"]["accuracy"]["value"] for evaluation in after]
    assert rows["algo=swirl"][3] == f"{50 * sum(shares):.1f}"
    code, again, _ = swirl("eval", "out=sweep")
    assert code == 0 and again == table
    assert held == {path: path.read_bytes() for path in held}
    (argv,) = printed_commands(again)
    code, out, _ = swirl(*argv)
    assert code == 0 and "after" in out and "the trained policy is in sweep/algo=return_to_go,seed=0/policy" in out
    assert held == {path: path.read_bytes() for path in held}


def test_the_command_after_training_runs_the_policy_in_its_setting(swirl):
    code, out, err = swirl("train", "algo=return_to_go", *FEW, "max_steps=4", "history=calls", "out=a run")
    assert code == 0, err
    (argv,) = printed_commands(out)
    assert argv == ["eval", "trained=a run", "judge=fakes:Evens"]
    code, _, err = swirl(*argv, "n=3", "out=b")
    assert code == 0, err
    (settings,) = {(t.settings.max_steps, t.settings.history, t.prompt.startswith("Question")) for t in Store("b", "r")}
    assert settings[:2] == (4, "calls") and {s.action.token_ids.__len__() <= 24 for t in Store("b", "r") for s in t.steps} == {
        True
    }


def test_the_command_after_lora_keeps_tools_limits_and_tokens(swirl, cache):
    pytest.importorskip("peft", reason="LoRA needs peft")
    (base,) = (path for path in cache.glob("warm-starts/easy-0-*") if path.is_dir())
    shutil.copytree(base, "model")
    few = ["task=atlas_ledger", "task.split=train", "tool=[search]", "tool.search.top_k=2", "max_steps=2", "eval.split=test"]
    few += ["model.max_new_tokens=7", "policy=model", "lora.rank=2", "prompt=question", "format=hermes", "max_chars=3000"]
    code, out, err = swirl("train", "algo=return_to_go", *FEW[1:4], "slots=8", "eval.before=false", *few, "out=run")
    assert code == 0, err
    (argv,) = printed_commands(out)
    words = expand_trained(argv[0], argv[1:])
    wanted = {"agent.max_new_tokens=7", "tool=[search]", "tool.search.top_k=2", "max_steps=2", "format=hermes", "max_chars=3000"}
    wanted |= {"task.split=test", "prompt=question", "agent.adapter=run/policy", "judge=fakes:Evens"}
    assert wanted <= set(words) and len(argv) == 3
    code, _, err = swirl(*argv, "n=2", "out=b")
    assert code == 0 and {(t.settings.max_steps, t.settings.format, len(t.settings.tools)) for t in Store("b", "r")} == {
        (2, "hermes", 1)
    }, err


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (["task=ledger", "prompt=question"], "the task is ledger, not atlas"),
        (["prompt=question"], "task.words is None, not 40"),
        ([*DEMOS, "tool=[search,calculator]"], "the tools are search_query, "),
        ([word for word in DEMOS if not word.startswith("prompt")], "the prompt of task "),
        ([*DEMOS, "format=hermes"], "format is hermes, not xml"),
        ([*DEMOS, "history=calls"], "history is calls, not full"),
    ],
)
def test_stored_trajectories_of_another_setting_are_refused_with_the_difference(swirl, made, says):
    assert swirl("generate", *made, "n=4", "out=demos")[0] == 0
    err = error_of(swirl("train", *STORED, "setting=easy", "stored=[demos]", "out=run"))
    assert says in err and "allow_other_settings=true" in err and not Path("run").exists()


def test_an_interrupted_sweep_of_training_goes_on_and_leaves_finished_runs_alone(tmp_path, swirl):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    few = [
        "algo=return_to_go",
        "algo.episodes_per_update=4",
        "setting=easy",
        "judge=fakes:Evens",
        "updates=3",
        "eval.episodes=0",
        "slots=8",
        "save_every=1",
    ]
    process = started(tmp_path, "train", "-m", *few, "seed=0,1", "out=sweep", env=env)
    while not (tmp_path / "sweep/seed=1/metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    again = shlex.split(err.splitlines()[-1].partition("To go on: swirl ")[2])
    first = (Path("sweep/seed=0/policy/model.safetensors")).stat().st_mtime_ns
    code, out, err = swirl(*again)
    assert code == 0 and all((Path("sweep") / f"seed={i}" / "policy").is_dir() for i in (0, 1)), out + err
    assert "sweep/seed=0 has ended already" in out and "2 of 2 runs in sweep have ended, none with an evaluation" in out
    assert first == (Path("sweep/seed=0/policy/model.safetensors")).stat().st_mtime_ns
