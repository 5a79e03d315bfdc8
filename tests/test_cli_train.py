"""``swirl train`` and the training part of ``swirl bench``: every algorithm, resuming, adapters, mistakes."""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from omegaconf import OmegaConf  # noqa: E402

import swirl_env.conf  # noqa: E402
from commands import error_of, finish, started  # noqa: E402
from swirl_env.agents.transformers import TransformersAgent  # noqa: E402
from swirl_env.algos.embedded import SETTINGS  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.warm_start import WarmStart, fingerprint  # noqa: E402
from swirl_env.episodes.rollout import collect  # noqa: E402
from swirl_env.registry import names  # noqa: E402
from weak import put_warm_starts  # noqa: E402

SHORT = ["eval.episodes=0", "slots=16"]
FEW = ["algo.questions=8", "algo.filter=none"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache in which the warm starts of two settings are there already: weaker ones, made in seconds."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIRL_CACHE_DIR", str(root))
        patch.setenv("OMP_NUM_THREADS", "1")
        put_warm_starts(root, "easy", "main", updates=120)
        yield root


JUDGE = "judge=fakes:Evens"


def folder_of(root, setting):
    return root / "warm-starts" / f"{setting}-0-{fingerprint(SETTINGS[setting], 0, WarmStart())}"


def start(folder, *argv):
    return started(folder, "train", *argv, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})  # for the judge


def metrics(folder):
    file = Path(folder) / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def weights(folder):
    return (Path(folder) / "policy/model.safetensors").read_bytes()


GROUPED = ("mt_grpo", "mt_grpo_unbiased", "gigpo", "hgpo", "igpo", "trace", "implicit_prm")
OPTIONS = {
    "swirl": [*FEW, "algo.states_per_update=8", "algo.group=mix"],
    "rft": [*FEW, "algo.episodes_per_update=4"],
    "reinforce": ["algo.episodes_per_update=8"],
    "grpo": ["algo.questions_per_update=2", "algo.samples=4"],
    "return_to_go": ["algo.episodes_per_update=8"],
    "vine": ["algo.episodes_per_update=4", "algo.samples=2"],
    "tree_grpo": ["algo.questions_per_update=2"],
    "slate": ["algo.episodes_per_update=4", "algo.samples=2"],
    "pivot": ["algo.questions=8", "algo.profile=2", "algo.states_per_update=4", "algo.samples=2"],
    "turn_ppo": ["algo.episodes_per_update=8"],
    "episode_reward": ["algo.episodes_per_update=8"],
    "step_dpo": ["algo.episodes_per_update=4"],
    **{name: ["algo.questions_per_update=2", "algo.samples=4"] for name in GROUPED},
}
OUTCOME_ONLY = ("reinforce", "grpo", "gigpo", "hgpo", "vine", "tree_grpo", "turn_ppo")
FIRST = ("swirl", "rft", "reinforce", "grpo", "return_to_go")
TRAINED = [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in names("algo")]


@pytest.mark.parametrize("name", TRAINED)
def test_every_algorithm_trains_a_policy_that_loads(name, swirl, cache):
    code, out, err = swirl("train", f"algo={name}", *OPTIONS[name], JUDGE, *SHORT, "setting=easy", "updates=2", "out=run")
    assert [row["update"] for row in metrics("run")] == [1, 2]
    if name in OUTCOME_ONLY and code:  # whether an outcome was ever right is chance; judged steps always differ
        assert "Nothing was trained on: in 2 updates all advantages were 0" in err and not Path("run/policy").exists()
        return
    assert code == 0, err
    assert out.splitlines()[-1] == f"next: swirl eval trained=run {JUDGE}"
    assert "policy/" in out.splitlines()[-2]
    agent = TransformersAgent("run/policy", max_new_tokens=24)
    (episode,) = collect(agent, SETTINGS["easy"].engine("test"), 1)
    assert episode.steps and all(step.action.token_ids for step in episode.steps)
    before = (folder_of(cache, "easy") / "model.safetensors").read_bytes()
    assert weights("run") != before and any(row["grad_norm"] > 0 for row in metrics("run"))


def test_evaluations_before_and_on_the_way_and_after(swirl):
    few = ["algo.episodes_per_update=8", "setting=easy", "updates=4", "out=run"]
    code, out, _ = swirl("train", "algo=return_to_go", JUDGE, *few, "eval.episodes=12", "eval.every=2", "eval.quick=6")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()[:1] in (["before"], ["after"])}
    held = json.loads(Path("run/evaluation.json").read_text())
    for when in ("before", "after"):
        for how in ("sampled", "greedy"):
            assert held[when][how]["episodes"] == 12
        assert rows[when][1] == f"{100 * held[when]['sampled']['accuracy']['value']:.1f}"
    assert held["spent"]["updates"] == 4 and held["spent"]["sampled_tokens"] == metrics("run")[-1]["sampled_tokens"]
    assert ["eval_success" in row for row in metrics("run")] == [False, True, False, True]


def test_the_budget_ends_a_run_and_may_grow(swirl):
    few = ["algo=return_to_go", JUDGE, "algo.episodes_per_update=8", "setting=easy", *SHORT, "out=run"]
    assert swirl("train", *few, "budget=300", "save_every=1")[0] == 0
    first = metrics("run")
    assert first[-1]["sampled_tokens"] >= 300 > first[-2]["sampled_tokens"]
    assert "already holds a run" in error_of(swirl("train", *few, "budget=600"))
    assert "seed was 0, now 1" in error_of(swirl("train", *few, "budget=600", "seed=1", "resume=true"))
    assert swirl("train", "out=run", "budget=600", "resume=true", JUDGE)[0] == 0
    assert metrics("run")[: len(first)] == first and metrics("run")[-1]["sampled_tokens"] >= 600


RATIOS = [
    "trainer.loss=ppo_clip",
    "trainer.epochs=2",
    "trainer.minibatches=2",
    "trainer.temperature=0.7",
    "trainer.ratio=sequence",
]
RATIOS += [
    "trainer.clip_high=0.3",
    "trainer.importance_cap=2",
    "trainer.entropy=0.01",
    "trainer.overlong=mask",
    "trainer.kl=0.05",
]


@pytest.mark.slow
def test_options_of_several_optimizer_steps_on_the_command_line_and_on_resume(swirl):
    few = ["algo=return_to_go", JUDGE, "algo.episodes_per_update=6", "setting=easy", *SHORT, "save_every=1"]
    for out, updates in (("whole", 3), ("half", 2)):
        assert swirl("train", *few, *RATIOS, f"updates={updates}", f"out={out}")[0] == 0
    code, _, err = swirl("train", "out=half", "updates=3", "resume=true", JUDGE)
    assert code == 0, err
    assert metrics("half") == metrics("whole") and weights("half") == weights("whole")
    for row in metrics("whole"):
        assert {"ratio", "clip_fraction", "kl_behaviour", "importance", "entropy"} <= row.keys() and row["kl_behaviour"] > 0
        assert row["importance"] == pytest.approx(1, abs=1e-3)  # generation and training score alike, at 0.7 too
    assert metrics("whole")[-1]["optimizer_steps"] == 12


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("trainer.temperature=0", "temperature is a finite number, above 0"),
        ("trainer.clip_high=0.3", "clip_high is about ratios"),
        ("trainer.epochs=0", "epochs is a whole number"),
        ("trainer.overlong=drop", "overlong"),
    ],
)
def test_options_of_the_trainer_that_make_no_sense_are_one_line(given, said, swirl):
    assert said in error_of(swirl("train", given, "out=run"))


def test_killed_at_any_moment_it_ends_with_the_same_bits(cache, tmp_path):
    few = [*FEW, "algo.updates_per_round=4", "algo.rounds=0", "algo.states_per_update=8", "setting=easy", "updates=12"]
    few += [JUDGE, "eval.episodes=4", "eval.every=3", "eval.quick=4", "save_every=2", "slots=16"]
    code, out, err = finish(start(tmp_path, *few, "out=whole"))
    assert code == 0, err
    assert sum(row["grad_norm"] > 0 for row in metrics(tmp_path / "whole")) > 8
    for updates in (0, 5):
        process = start(tmp_path, *few, "out=broken", "resume=true")
        while len(metrics(tmp_path / "broken")) < updates or not (tmp_path / "broken/config.yaml").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert not (tmp_path / "broken/policy").exists()
    code, out, err = finish(start(tmp_path, JUDGE, "out=broken", "resume=true"))
    assert code == 0 and "12 updates" in out, err
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")
    for name in ("metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "broken" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_ctrl_c_says_how_to_go_on(cache, tmp_path):
    run = ["algo=return_to_go", JUDGE, "setting=easy", *SHORT, "save_every=7", "out=run"]
    process = start(tmp_path, *run)
    while not metrics(tmp_path / "run"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    code, _, err = finish(start(tmp_path, *run, "resume=true"))
    assert code == 2 and "Another process is writing to run" in err
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130 and "Traceback" not in err
    # What was set and decides no result is repeated, and code of one's own is named again.
    go_on = f"swirl train out=run resume=true save_every=7 {JUDGE}"
    assert err.splitlines()[-1] == f"swirl: interrupted. To go on from the last checkpoint: {go_on}"


def test_adapters_are_trained_and_saved_alone(swirl, cache):
    pytest.importorskip("peft", reason="LoRA needs peft")
    base = folder_of(cache, "easy")
    shutil.copytree(base, "model")
    few = ["algo=return_to_go", "algo.episodes_per_update=8", JUDGE, "setting=easy", *SHORT, "updates=2", "trainer.kl=0.1"]
    code, out, err = swirl("train", "policy=model", "lora.rank=2", "lora.targets=[q_proj,v_proj]", *few, "out=run")
    assert code == 0 and out.splitlines()[-1] == f"next: swirl eval trained=run {JUDGE}", err
    assert (Path("run/policy") / "adapter_model.safetensors").exists() and not Path("run/policy/model.safetensors").exists()
    agent = TransformersAgent("model", adapter="run/policy", max_new_tokens=24)
    plain = TransformersAgent("model", max_new_tokens=24)
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.equal(agent.model(ids).logits, plain.model(ids).logits)
    assert "lora.targets" in error_of(swirl("train", "policy=model", "lora.rank=2", "lora.targets=[x]", *few, "out=other"))
    first = (Path("run/policy") / "adapter_model.safetensors").read_bytes()
    code, out, err = swirl("train", "policy=model", "model.adapter=run/policy", *few, "out=further")
    assert code == 0, err
    assert (Path("further/policy") / "adapter_model.safetensors").read_bytes() != first
    for wrong, reason in (("no/such/adapter", "check the path"), ("model", "a folder without")):
        said = error_of(swirl("train", "policy=model", f"model.adapter={wrong}", *few, "out=other"))
        assert f"Expected an adapter as a local folder or a hub name; got '{wrong}'" in said and reason in said
    assert not Path("other").exists()


def test_stored_trajectories_are_trained_on(swirl):
    demos = ["task.words=40", "task.max_hops=2", "task.values=false", "task.comparisons=0", "prompt=question"]
    assert swirl("generate", *demos, "agent.reasoning=false", "n=12", "out=demos")[0] == 0
    few = ["algo=rft", "algo.states=stored", "algo.episodes_per_update=4", "setting=easy", *SHORT, "out=run"]
    assert "name their run folders" in error_of(swirl("train", *few, "updates=2"))
    assert "nowhere is no run folder" in error_of(swirl("train", *few, "updates=2", "stored=[nowhere]"))
    assert "limit the updates" in error_of(swirl("train", *few, "stored=[demos]"))
    shutil.rmtree("run")
    assert swirl("train", *few, "stored=[demos]", "updates=2")[0] == 0
    assert metrics("run")[-1]["sampled_tokens"] == 0 < metrics("run")[-1]["trained_tokens"]


def test_a_saved_selection_is_trained_on(swirl):
    demos = ["task.words=40", "task.max_hops=2", "task.values=false", "task.comparisons=0", "prompt=question"]
    assert swirl("generate", *demos, "agent.reasoning=false", "agent.noise=0.5", "n=16", "out=demos")[0] == 0
    assert swirl("filter", "out=demos", "equal=true")[0] == 0
    few = ["algo=rft", "algo.states=stored", "algo.filter=none", "algo.episodes_per_update=4", "setting=easy", *SHORT]
    for name in ("process", "none"):
        given = [*few, "stored=[demos]", f"selection={name}", "updates=1", f"out={name}"]
        assert swirl("train", *given)[0] == 0
        keys = json.loads(next(Path("demos/selections").glob(f"{name}*")).read_text())["keys"]
        assert 0 < len(keys) < 16 and metrics(name)[-1]["trajectories"] == len(keys)


def test_evaluations_at_counts_of_sampled_tokens(swirl):
    few = ["algo=return_to_go", JUDGE, "algo.episodes_per_update=8", "setting=easy", "eval.episodes=6", "eval.before=false"]
    assert swirl("train", *few, "budget=400", "eval.at=[150,300]", "out=run")[0] == 0
    held = json.loads(Path("run/evaluation.json").read_text())
    assert held["before"] is None and list(held["at"]) == ["150", "300"]
    rows = [row["sampled_tokens"] for row in metrics("run")]
    for mark, at in held["at"].items():
        assert at["sampled"]["episodes"] == 6 and at["spent"]["sampled_tokens"] == next(n for n in rows if n >= int(mark))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["algo=swril"], "No algo named 'swril'. Did you mean 'swirl'?"),
        (["algo=rft", "algo.gamma=1"], "The algo 'rft' has no option 'gamma'"),
        (["trainer.lr=fast"], "trainer.lr: expected float | null, got str; got 'fast'"),
        (["trainer.loss=ppo"], "trainer.loss: expected one of policy_gradient, ppo_clip; got 'ppo'"),
        (["trainer.rl=1"], "Did you mean trainer.lr?"),
        (["temperature=0"], "Did you mean trainer.temperature?"),
        (["model.temperature=0"], "Did you mean trainer.temperature?"),
        (["trainer.lr=0"], "swirl: lr is a finite number, above 0; got 0.0.\n"),
        (["precision=fp8"], "precision: expected one of no, fp16, bf16; got 'fp8'"),
        (["trainer.betas=[0.9]"], "trainer.betas: expected array of length 2, got 1; got [0.9]"),
        (["agent=random"], "`swirl train` has no group 'agent'"),
        (["setting=mian"], "No setting named 'mian'. Did you mean 'main'?"),
        (["task=gsm8k"], "The embedded policy knows the words of its settings only"),
        (["tool=[calculator]"], "brings its own tools"),
        (["lora.rank=4"], "The embedded policy is trained whole"),
        (["budget=null"], "Nothing would end the run"),
        (["trainer.schedule=linear"], "give updates="),
        (["trainer.lr=nan"], "lr is a finite number, above 0; got nan"),
        (["algo=return_to_go", "algo.gamma=nan"], "gamma is a finite number, at least 0, at most 1; got nan"),
        (["trackers=[tensorbord]"], "No tracker named 'tensorbord'. Did you mean 'tensorboard'?"),
        (["eval.split=dev"], "a setting has test, validation and train worlds; got 'dev'"),
        (["algo.filter=good"], "filter is one of none, process, outcome, both"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(given, said, swirl, tmp_path):
    assert said in error_of(swirl("train", *given, "out=run"))
    assert not (tmp_path / "run").exists()


def test_stored_folders_that_are_no_runs_of_episodes_are_called_what_they_are(swirl):
    fakes = ["task=fakes:SumTasks", "tool=[fakes:EchoTool]", "agent=fakes:EchoAgent", "judge=fakes:CallJudge"]
    assert swirl("generate", *fakes, "n=2", "out=runs/demo")[0] == 0
    shutil.copytree("runs/demo", "runs/trained/rollouts")
    Path("runs/trained/config.yaml").write_text("algo: {name: rft}\n")
    for stored, says in [
        ("[runs]", "runs is a sweep; name the runs of episodes in it: 'stored=[runs/demo,runs/trained/rollouts]'"),
        ("[runs/trained]", "runs/trained is a training run; name the runs of episodes in it: 'stored=[runs/trained/rollouts]'"),
        ("[runs/dmo]", "runs/dmo is no run folder: it does not exist. Did you mean stored=[runs/demo]?"),
        ("runs/demo", "expected a list, [runs/demo] for a single one"),
    ]:
        said = error_of(swirl("train", "setting=easy", "algo=rft", "algo.states=stored", f"stored={stored}", "out=run"))
        assert says in said and not Path("run").exists()
    assert "goes on with a run: name its folder too, out=" in error_of(swirl("train", "resume=true"))
    assert "Did you mean trained=runs/trained?" in error_of(swirl("eval", "trained=runs/traned"))


def test_what_is_not_installed_is_named(swirl, cache, monkeypatch):
    results = importlib.util.find_spec
    absent = {"peft", "wandb", "matplotlib"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in absent else results(name, *a))
    model = folder_of(cache, "easy")
    assert "pip install 'swirl-env[train]'" in error_of(swirl("train", f"policy={model}", "lora.rank=2", "out=run"))
    assert "pip install wandb" in error_of(swirl("train", "trackers=[wandb]", "out=run"))
    assert "pip install 'swirl-env[report]'" in error_of(swirl("bench", "part=training", "out=b"))


def test_the_command_line_has_the_trainers_defaults():
    written = OmegaConf.to_container(OmegaConf.load(Path(swirl_env.conf.__path__[0]) / "train.yaml"))["trainer"]
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    # `updates` is a key of the stage.
    own = {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items() if name != "updates"}
    assert written == own


def test_help_describes_every_key(swirl):
    code, out, _ = swirl("train", "--help")
    assert code == 0 and "trainer.lr" in out and "peak learning rate" in out and "algo.samples_per_state" in out


def test_bench_compares_algorithms(swirl, monkeypatch):
    pytest.importorskip("matplotlib", reason="the curves need matplotlib")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the judge
    few = ["part=training", "algos=[rft,return_to_go]", "setting=easy", "budget=400", "episodes=6", "out=b"]
    few += ["+arms.return_to_go.judge=fakes:Evens", "+arms.rft.algo.filter=none", "+arms.rft.algo.questions=8"]
    assert "No algorithm named 'reinforc'" in error_of(swirl("bench", "algos=[reinforc]", "part=training"))
    assert "names each once" in error_of(swirl("bench", "seeds=[1,1]", "part=training"))
    code, out, err = swirl("bench", *few)
    assert code == 0, err
    held = json.loads(Path("b/bench.json").read_text())["training"]
    assert [row["name"] for row in held] == ["warm start", "rft", "return_to_go"]
    assert all(row["sampled"][0] >= 400 and row["judged"][0] > 0 for row in held[1:])
    for row in held[1:]:
        spent = json.loads(Path(f"b/train-{row['name']}-0/evaluation.json").read_text())["spent"]
        assert [row["sampled"], row["trained"]] == [[spent["sampled_tokens"]], [spent["trained_tokens"]]]
    assert Path("b/curves.png").read_bytes().startswith(b"\x89PNG")
    assert "warm start" in out and ("Not above the warm start" in out or "Every algorithm ended above" in out)
    (section,) = json.loads(Path("b/report/report.json").read_text())["sections"]
    shown = {cell["label"].partition(",")[0]: cell["figures"]["success"]["values"] for cell in section["cells"]}
    assert shown == {row["name"]: row["success"] for row in held[1:]}
    assert "report: b/report/report.html" in out and "episodes: b/view.html" in out
    times = {path: os.stat(path).st_mtime_ns for path in Path("b").glob("train-*/policy/*")}
    assert swirl("bench", *few, "resume=true")[0] == 0
    assert times == {path: os.stat(path).st_mtime_ns for path in times}
    (Path("b") / "train-rft-0" / "evaluation.json").unlink()
    said = error_of(swirl("bench", *few, "arms.rft.trainer.lr=0.5", "resume=true"))
    assert "1 of 2 training runs failed. train-rft-0: b/train-rft-0 was begun with another configuration" in said


def test_figures_of_several_seeds():
    from swirl_env.benchmarks.compare import Figures, verdict
    from swirl_env.stages.tables import percent_over_seeds as percent

    # Student's t with 2 degrees of freedom: 4.3027; standard deviation 0.1.
    assert percent([0.1, 0.2, 0.3]) == "20.0 ± 24.8" and percent([0.123]) == "12.3"
    costs = ((1.0,),) * 4
    warm = Figures("warm start", (0.1,), (0.4,), (0.5,), *costs)
    better, worse = Figures("a", (0.2,), (0.5,), (0.5,), *costs), Figures("b", (0.2,), (0.3,), (0.5,), *costs)
    assert verdict([warm, better]).startswith("Every algorithm ended above")
    assert verdict([warm, better, worse]).endswith("or both: b (20.0 % sampled, 30.0 % greedy).")


def test_seconds_of_a_resumed_run_are_counted_once(tmp_path):
    from swirl_env.benchmarks.compare import Arm

    rows = [1.0, 2.5, 0.5, 1.5]  # resumed after the second update
    (tmp_path / "timing.jsonl").write_text("".join(json.dumps({"update": i, "seconds": s}) + "\n" for i, s in enumerate(rows)))
    assert Arm("a", 0, tmp_path, (), 0).seconds == 4.0
