"""Weights split over two processes (FSDP2 over gloo): the updates of one process, rollouts of any length, whole checkpoints."""

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
transformers = pytest.importorskip("transformers", reason="the tests run tiny models")
pytest.importorskip("accelerate", reason="the launcher is accelerate's")

from test_algos_trainer import some_steps, tiny, weights  # noqa: E402

from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from two_processes import launched  # noqa: E402

SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import json, pathlib, torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor
from swirl_env.algos.return_to_go import ReturnToGo
from swirl_env.algos.run import Limits, Run
from swirl_env.algos.run_logs import read_log
from swirl_env.algos.train_config import TrainConfig
from swirl_env.algos.trainer import Trainer
from swirl_env.env import build_engine
from swirl_env.errors import ConfigError
from fakes import Evens
from test_algos_layouts import text_and_images
from test_algos_reference import adapted
from test_algos_run import ColourTasks, EchoTool, untrained
from test_algos_state import WithCritic
from test_algos_trainer import some_steps, tiny, weights

accelerator = Accelerator(cpu=True)
rank, world, out = accelerator.process_index, accelerator.num_processes, pathlib.Path(sys.argv[2])
results = {}

def update(trainer, u):
    steps, gain, valid = some_steps(u)
    last = steps[-1].episode
    mine = [i for i, s in enumerate(steps) if world == 1 or (s.episode == last) == (rank == 1)]
    return trainer.update([steps[i] for i in mine], [gain[i] for i in mine], [valid[i] for i in mine])

def tied():
    model = tiny()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return model

def checkpointed():
    model = tiny()
    model.gradient_checkpointing_enable()
    return model

for name, make, options in (
    ("full", tiny, {"kl": 0.5, "micro_tokens": 20}),
    ("tied", tied, {"entropy": 0.01}),
    ("bfloat16", lambda: tiny().bfloat16(), {}),
    ("images", text_and_images, {"micro_tokens": 20}),
    ("epochs", checkpointed, {"loss": "ppo_clip", "epochs": 2, "minibatches": 2}),
):
    model = make()
    trainer = Trainer(model, TrainConfig(lr=1e-2, shard=True, **options), accelerator)
    for u in range(3):
        results[name] = update(trainer, u)
    scored = trainer.logprobs(some_steps(0)[0] if rank == 0 else [])  # one process scores alone
    if world > 1:  # what is trained is split, what generates is whole
        parts = sum(w.to_local().numel() for w in trainer.scorer.weights.values() if isinstance(w, DTensor))
        results[name + " share"] = parts / sum(w.numel() for w in trainer.weights.values())
        moments = [m["exp_avg"] for m in trainer.optimizer.adamw.state.values()]
        assert all(isinstance(m, DTensor) for m in moments)
    assert not any(isinstance(w, DTensor) for w in model.parameters())
    torch.save(weights(model), out / f"{name}-{rank}.pt")
    if name in ("full", "bfloat16"):  # goes on bit for bit from a checkpoint, and the policy is an ordinary one
        folder = out / f"{name}-at"
        folder.mkdir(exist_ok=True)
        accelerator.wait_for_everyone()
        trainer.save(folder)
        accelerator.wait_for_everyone()
        update(trainer, 3)
        torch.manual_seed(5)
        resumed = Trainer(make(), TrainConfig(lr=1e-2, shard=True, **options), accelerator)
        resumed.load(folder)
        update(resumed, 3)
        results[name + " resumed"] = bool(torch.equal(weights(model), weights(resumed.model)))
        if rank == 0:
            resumed.model.save_pretrained(out / f"{name}-policy")
        torch.save(weights(resumed.model), out / f"{name}-after-{rank}.pt")
        resumed.scorer = resumed.bare
    trainer.scorer = trainer.bare
    accelerator.free_memory()

# Whole runs: the processes draw unequal numbers of tokens, and a second model is split too.
def run_of(name, updates, resume=False):
    torch.manual_seed(0)
    _, agent = untrained()
    engine = build_engine(ColourTasks(), tools=[EchoTool()], judge=Evens(), prompt="question", max_steps=3)
    trainer = Trainer(agent.model, TrainConfig(lr=1e-2, shard=True), accelerator)
    return Run(agent, engine, trainer, out / name, Limits(updates=updates), slots=8, seed=3, save_every=2, resume=resume)

for name, updates, resume in (("whole", 4, False), ("half", 2, False), ("half", 4, True)):
    run = run_of(name, updates, resume)
    algorithm = WithCritic({"shard": True})
    algorithm.train(run)
    run.trainer.scorer = run.trainer.bare
    accelerator.free_memory()
    results["run " + name] = torch.cat([weights(run.agent.model), algorithm.parts]).tolist()
accelerator.wait_for_everyone()  # the first process writes them
results["rows"] = read_log(out / "whole")[:1]
try:
    Trainer(adapted(), TrainConfig(shard=True), accelerator)
except ConfigError as error:
    results["lora"] = str(error)
(out / f"results-{rank}.json").write_text(json.dumps(results))
accelerator.end_training()
"""


@pytest.mark.slow
def test_split_weights_are_trained_as_whole_ones(tmp_path):
    (one,), (alone,) = launched(tmp_path / "one", 1, SCRIPT, seconds=150)
    two, both = launched(tmp_path / "two", 2, SCRIPT, seconds=150)
    for results, tensors in zip(two, both, strict=True):
        for name in ("full", "tied", "images", "epochs"):
            torch.testing.assert_close(tensors[name], alone[name], atol=1e-5, rtol=0, msg=name)
            for key, value in one[name].items():
                assert results[name][key] == pytest.approx(value, rel=1e-3, abs=1e-5), (name, key)
        for name in ("full", "tied", "bfloat16", "images", "epochs"):
            assert torch.equal(tensors[name], both[0][name]) and results[name]["stepped"] == one[name]["stepped"] >= 1
            assert 0.3 < results[name + " share"] < 0.7
        # Gradients in bfloat16 are sums of rounded numbers; most weights agree to their last digits all the same.
        close = torch.isclose(tensors["bfloat16"], alone["bfloat16"], atol=0, rtol=0.02)
        assert close.float().mean() > 0.9
        assert results["full resumed"] and results["bfloat16 resumed"]
        assert results["run whole"] == results["run half"] == two[0]["run whole"]
        assert "adapters are small" in results["lora"]
    assert one["rows"][0].keys() == two[0]["rows"][0].keys()
    # A checkpoint is whole: a run that splits nothing goes on from it.
    resumed = Trainer(tiny(), TrainConfig(lr=1e-2, kl=0.5, micro_tokens=20))
    resumed.load(tmp_path / "two" / "full-at")
    resumed.update(*some_steps(3))
    torch.testing.assert_close(weights(resumed.model), both[0]["full-after"], atol=1e-5, rtol=0)
    policy = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "two" / "full-policy")
    torch.testing.assert_close(torch.cat([p.flatten() for p in policy.parameters()]), both[0]["full-after"], atol=0, rtol=0)
