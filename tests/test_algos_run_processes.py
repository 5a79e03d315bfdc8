"""A run in two processes over gloo is the run of one: branches, scores, critics, reward models, epochs, resume."""

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
pytest.importorskip("transformers", reason="the tests run tiny models")
pytest.importorskip("accelerate", reason="the launcher is accelerate's")
pytest.importorskip("peft", reason="LoRA comes from peft")

from two_processes import launched  # noqa: E402

SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import copy, hashlib, json, pathlib
import numpy as np, peft, torch
from accelerate import Accelerator
from swirl_env.algos.return_to_go import ReturnToGo
from swirl_env.algos.run import Limits, Run
from swirl_env.algos.run_logs import read_log
from swirl_env.algos.steps import tabulate
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from swirl_env.env import build_engine
from swirl_env.episodes.transcript import subtrajectories
from swirl_env.errors import ConfigError
from test_algos_run import ColourTasks, EchoTool, untrained
from test_algos_state import WithCritic
from test_algos_trainer import weights
from fakes import Evens

accelerator = Accelerator(cpu=True)
out, rank = pathlib.Path(sys.argv[2]), accelerator.process_index
results = {}

def run_of(name, config, updates=3, resume=False, lora=False, bf16=False, temperature=1.0):
    torch.manual_seed(0)
    _, agent = untrained()
    agent.max_new_tokens, agent.temperature = 3, temperature
    if lora:
        agent.model = peft.get_peft_model(agent.model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    if bf16:
        agent.model = agent.model.bfloat16()
    engine = build_engine(ColourTasks(), tools=[EchoTool()], judge=Evens(), prompt="question", max_steps=3)
    trainer = Trainer(agent.model, config, accelerator)
    return Run(agent, engine, trainer, out / name, Limits(updates=updates), slots=8, seed=3, save_every=2, resume=resume)

def rows_of(run):
    accelerator.wait_for_everyone()  # the first process writes them
    return read_log(run.folder)

def done(run):
    run.trainer.scorer = run.trainer.bare
    accelerator.free_memory()

# What a run offers an algorithm: the same in every process, and as in one.
run = run_of("api", TrainConfig(lr=1e-2))
trajectories = run.rollouts(5)
states = [sub.state for t in trajectories for sub in subtrajectories(t)]
table = tabulate(trajectories, run.agent.renderer)
branches = run.branch(states, 3)
run.branch(states[:1], 2)  # fewer states than processes
results["branches"] = [[[t.seed, t.sample, [s.action.text for s in t.steps]] for t in group] for group in branches]
results["logprobs"] = run.logprobs(table.steps)
results["reference"] = run.logprobs(table.steps, reference=True)
results["features"] = run.features(table.steps).tolist()
results["spent"] = [run.spent.sampled_tokens, run.spent.judge_calls, run.spent.episodes]
def loss(inputs):
    value = -(inputs.advantages.to(inputs.logprobs)[inputs.step] * inputs.logprobs).sum() / inputs.count
    return value, {"share": float(len(inputs.step)) / inputs.count}
run.update(table.steps, table.reward, table.scored, loss=loss)
results["own loss"] = rows_of(run)[-1]
done(run)

warm = {"temperature": 0.7}
for name, config, more in (
    ("epochs", {"loss": "ppo_clip", "epochs": 2, "minibatches": 3, "kl": 0.1, "entropy": 0.01, "micro_tokens": 24}, {}),
    ("lora", {"kl": 0.3, "micro_tokens": 16, "minibatches": 2}, {"lora": True}),
    ("sequence", {"loss": "ppo_clip", "ratio": "sequence", "epochs": 2, "importance_cap": 2.0, **warm}, warm),
    ("masked", {"overlong": "mask", "pack": 64, "tree": True}, {}),
):
    run = run_of(name, TrainConfig(lr=1e-2, **config), **more)
    ReturnToGo(episodes_per_update=5).train(run)
    results[name] = rows_of(run)[0]  # of the first update: later ones sample from weights that differ by rounding
    torch.save(weights(run.agent.model), f"{out}/{name}-{rank}.pt")
    done(run)

# Killed and resumed, with a critic, a reward model and a buffer.
for name, resume in (("whole", False), ("half", False), ("half", True)):
    config = TrainConfig(lr=1e-2, loss="ppo_clip", epochs=2, minibatches=2)
    run = run_of(name, config, updates=4 if name == "whole" or resume else 2, resume=resume)
    algorithm = WithCritic()
    algorithm.train(run)
    results["resumed " + name] = hashlib.md5(torch.cat([weights(run.agent.model), algorithm.parts]).numpy().tobytes()).hexdigest()
    results["rows " + name] = len(rows_of(run))
    done(run)

with open(f"{out}/results-{rank}.json", "w") as file:
    json.dump(results, file)
accelerator.end_training()
"""


def differences(one, two):
    """The figures, by place, in which two results differ by more than rounding."""
    if isinstance(one, dict):
        return {key: gap for key in one.keys() | two.keys() if (gap := differences(one.get(key), two.get(key)))}
    if isinstance(one, list):
        gaps = [gap for pair in zip(one, two, strict=True) if (gap := differences(*pair))]
        return gaps[:3]
    if isinstance(one, float | int) and isinstance(two, float | int):
        return None if one == pytest.approx(two, rel=2e-3, abs=1e-4) else (one, two)
    return None if one == two else (one, two)


@pytest.mark.slow
def test_a_run_of_two_processes_is_the_run_of_one(tmp_path):
    (one,), _ = launched(tmp_path / "one", 1, SCRIPT)
    two, both = launched(tmp_path / "two", 2, SCRIPT)
    for name in ("branches", "logprobs", "reference", "features", "spent", "resumed whole", "resumed half"):
        assert two[0][name] == two[1][name], name
    assert two[0]["branches"] == one["branches"] and two[0]["spent"] == one["spent"]
    for name in ("logprobs", "reference", "features", "own loss", "epochs", "lora", "sequence", "masked"):
        assert not differences(one[name], two[0][name]), name
    for name in ("epochs", "lora", "sequence", "masked"):
        assert torch.equal(both[0][name], both[1][name]), name
    assert one["own loss"]["share"] > 1 and "clip_fraction" in one["epochs"]
    # Within one number of processes a resumed run ends bit for bit as the whole one.
    for results in (one, *two):
        assert results["resumed whole"] == results["resumed half"] and results["rows half"] == results["rows whole"] == 4
