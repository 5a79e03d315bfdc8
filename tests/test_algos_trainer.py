"""The trainer: one update is one update, however it is cut up; exact resume; two processes; the KL's reference."""

import copy
import json
import random
import sys

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
transformers = pytest.importorskip("transformers", reason="the tests run a tiny Llama")
pytest.importorskip("accelerate", reason="the trainer stands on accelerate")

from swirl_env.algos.batch import TokenStep  # noqa: E402
from swirl_env.algos.train_config import TrainConfig, learning_rate  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402
from two_processes import run_script  # noqa: E402

VOCAB = 40


def tiny(seed=0):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return transformers.LlamaForCausalLM(config)


def some_steps(seed, episodes=6):
    """Steps of some episodes with advantages, some of them not valid."""
    rng = random.Random(seed)
    steps, gain, valid = [], [], []
    for number in range(episodes):
        state = [rng.randrange(VOCAB) for _ in range(rng.randint(2, 6))]
        for _ in range(rng.randint(1, 4)):
            action = [rng.randrange(VOCAB) for _ in range(rng.randint(1, 4))]
            behaviour = tuple(rng.uniform(-4, -3) for _ in action)
            steps.append(TokenStep(tuple(state), tuple(action), behaviour, number))
            gain.append(rng.uniform(-1, 1))
            valid.append(rng.random() < 0.8)
            state = state + action + [rng.randrange(VOCAB)]
    return steps, gain, valid


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trained(config, updates=3, keep=None):
    model = tiny()
    trainer = Trainer(model, config)
    for u in range(updates):
        steps, gain, valid = some_steps(u)
        if keep == "valid":
            chosen = [i for i in range(len(steps)) if valid[i]]
            steps, gain, valid = [steps[i] for i in chosen], [gain[i] for i in chosen], [True] * len(chosen)
        trainer.update(steps, gain, valid)
    return weights(model)


@pytest.mark.parametrize("loss", ["policy_gradient", "ppo_clip"])
def test_however_an_update_is_cut_up_the_weights_agree(loss):
    whole = trained(TrainConfig(lr=1e-2, loss=loss))
    for change in (
        {"micro_tokens": 20},
        {"pack": 64},
        {"tree": True},
        {"chunk": 3},
        {"micro_tokens": 50, "pack": 50, "tree": True},
    ):
        torch.testing.assert_close(trained(TrainConfig(lr=1e-2, loss=loss, **change)), whole, atol=2e-5, rtol=0, msg=str(change))


def test_steps_without_a_verdict_leave_the_update_as_if_never_taken():
    torch.testing.assert_close(trained(TrainConfig(lr=1e-2)), trained(TrainConfig(lr=1e-2), keep="valid"), atol=2e-5, rtol=0)


def test_an_update_moves_the_policy_as_its_advantages_say():
    trainer = Trainer(tiny(), TrainConfig(lr=1e-2))
    good, bad = TokenStep((1, 2, 3), (4, 5), (), 0), TokenStep((1, 2, 3), (6, 7), (), 1)
    before = trainer.logprobs([good, bad])
    metrics = trainer.update([good, bad], [1.0, -1.0], [True, True])
    after = trainer.logprobs([good, bad])
    assert sum(after[0]) > sum(before[0]) and sum(after[1]) < sum(before[1])
    assert metrics["steps"] == 2 and metrics["tokens"] == 10 and metrics["grad_norm"] > 0


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    config = TrainConfig(lr=1e-2, warmup=2, schedule="cosine", updates=6)
    straight, broken = Trainer(tiny(), config), Trainer(tiny(), config)
    for u in range(6):
        straight.update(*some_steps(u))
        if u < 3:
            broken.update(*some_steps(u))
    broken.save(tmp_path / "at")
    resumed = Trainer(tiny(seed=9), config)
    resumed.load(tmp_path / "at")
    for u in range(3, 6):
        resumed.update(*some_steps(u))
    assert torch.equal(weights(resumed.model), weights(straight.model))


def test_the_kl_pulls_back_to_the_reference():
    model = tiny()
    reference = copy.deepcopy(model)
    steps, gain, valid = some_steps(1)
    free, held = Trainer(copy.deepcopy(model), TrainConfig(lr=1e-2)), None
    held = Trainer(copy.deepcopy(model), TrainConfig(lr=1e-2, kl=5.0), reference=reference)
    for _ in range(8):
        free.update(steps, gain, valid)
        metrics = held.update(steps, gain, valid)
    start = weights(model)
    assert (weights(held.model) - start).norm() < (weights(free.model) - start).norm()
    assert metrics["kl"] > 0


def test_lora_trains_adapters_and_takes_the_bare_model_as_reference():
    peft = pytest.importorskip("peft", reason="LoRA comes from peft")
    model = peft.get_peft_model(tiny(), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    base = [p.detach().clone() for p in model.parameters() if not p.requires_grad]
    trainer = Trainer(model, TrainConfig(lr=1e-2, kl=0.5))
    first = trainer.update(*some_steps(2))
    second = trainer.update(*some_steps(2))
    assert first["kl"] == pytest.approx(0, abs=1e-9) and second["kl"] > 0
    assert all(torch.equal(a, b) for a, b in zip(base, (p for p in model.parameters() if not p.requires_grad), strict=True))


def test_schedules_by_hand():
    linear = TrainConfig(schedule="linear", warmup=2, updates=6)
    assert [learning_rate(linear, u) for u in range(7)] == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25, 0])
    assert learning_rate(TrainConfig(schedule="cosine", updates=4), 2) == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="give their number"):
        Trainer(tiny(), TrainConfig(schedule="linear"))


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import contextlib, json, pathlib, time, torch
from test_algos_trainer import Trainer, TrainConfig, some_steps, tiny, weights

def collective_threads():
    names = []
    for path in pathlib.Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            names.append(path.read_text().strip())
    return [name for name in names if "gloo" in name]

trainer = Trainer(tiny(), TrainConfig(lr=1e-2, micro_tokens=40))
rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
for u in range(5):
    steps, gain, valid = some_steps(u)
    mine = [i for i in range(len(steps)) if steps[i].episode % world == rank]
    if u == 3:  # one process has nothing at all
        mine = list(range(len(steps))) if rank == 0 else []
    metrics = trainer.update([steps[i] for i in mine], [gain[i] for i in mine], [valid[i] for i in mine])
before = collective_threads()
trainer.close()
patience = time.monotonic() + 10
while collective_threads() and time.monotonic() < patience:  # a joined thread is listed for a moment longer
    time.sleep(0.01)
report = {"metrics": metrics, "world": world, "threads": [before, collective_threads()]}
torch.save({"weights": weights(trainer.model), **report}, sys.argv[2] + "/rank" + str(rank))
"""


def trained_by(processes, folder):
    """Runs the script in so many processes; returns the report of each."""
    run_script(folder, processes, SCRIPT, seconds=240)
    return [torch.load(path) for path in sorted(folder.glob("rank*"))]


@pytest.mark.slow
def test_two_processes_train_to_the_weights_of_one(tmp_path):
    (one,) = trained_by(1, tmp_path / "one")
    both = trained_by(2, tmp_path / "two")
    assert [one["world"], *(results["world"] for results in both)] == [1, 2, 2]
    for results in both:
        torch.testing.assert_close(results["weights"], one["weights"], atol=1e-5, rtol=0)
        for key, value in one["metrics"].items():
            assert results["metrics"][key] == pytest.approx(value, rel=1e-3, abs=1e-5), json.dumps([key])
        # A thread that outlives the process group may abort the process at exit.
        before, after = results["threads"]
        assert before or not sys.platform.startswith("linux")
        assert not after
