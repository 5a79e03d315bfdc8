"""Epochs and minibatches: what an optimizer step sees, figures over several of them, and every algorithm with them."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
pytest.importorskip("transformers", reason="the tests run a tiny Llama")

from test_algos_run import Teacher  # noqa: E402
from test_algos_trainer import some_steps, tiny, weights  # noqa: E402
from test_algos_update import colours, prepared  # noqa: E402

from fakes import Evens  # noqa: E402
from swirl_env.algos.batch import TokenStep  # noqa: E402
from swirl_env.algos.implicit_prm import ImplicitPrm  # noqa: E402
from swirl_env.algos.return_to_go import ReturnToGo  # noqa: E402
from swirl_env.algos.rft import Rft  # noqa: E402
from swirl_env.algos.run import Limits  # noqa: E402
from swirl_env.algos.run_logs import read_log  # noqa: E402
from swirl_env.algos.step_dpo import StepDpo  # noqa: E402
from swirl_env.algos.swirl import Swirl  # noqa: E402
from swirl_env.algos.train_config import TrainConfig, learning_rate  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.algos.turn_ppo import TurnPpo  # noqa: E402
from swirl_env.episodes.rollout import collect  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402

LN = math.log


def sampled(seed, model):
    """Steps whose behaviour log-probs are those of the model as it is."""
    steps, gain, _ = some_steps(seed)
    known = Trainer(model, TrainConfig()).logprobs(steps)
    return (
        [TokenStep(s.prompt_ids, s.token_ids, b, s.episode) for s, b in zip(steps, known, strict=True)],
        gain,
        [True] * len(steps),
    )


def test_the_second_epoch_clips():
    model = tiny()
    batch = sampled(0, model)
    one = Trainer(model, TrainConfig(lr=3e-2, loss="ppo_clip")).update(*batch)
    assert one["ratio"] == pytest.approx(1, abs=1e-4) and one["clip_fraction"] == 0 and one["kl_behaviour"] < 1e-6
    rows = {}
    for epochs in (2, 4):
        trainer = Trainer(tiny(), TrainConfig(lr=3e-2, loss="ppo_clip", epochs=epochs))
        rows[epochs] = trainer.update(*batch)
        assert rows[epochs]["stepped"] == epochs and trainer.updates == 1
    # Averages over the epochs: none of the first, some of the later ones.
    assert 0 < rows[2]["clip_fraction"] < 0.5 and rows[4]["clip_fraction"] > rows[2]["clip_fraction"]
    assert rows[4]["kl_behaviour"] > rows[2]["kl_behaviour"] > 0


def test_the_figures_of_the_second_epoch_by_hand():
    batch = sampled(0, tiny())
    config = TrainConfig(lr=3e-2, loss="ppo_clip", epochs=2)
    row = Trainer(tiny(), config).update(*batch)
    first = Trainer(tiny(), TrainConfig(lr=3e-2, loss="ppo_clip"))
    first.update(*batch)
    now, old = ([x for r in rows for x in r] for rows in (first.logprobs(batch[0]), [s.behaviour for s in batch[0]]))
    gain = np.repeat(batch[1], [len(s.token_ids) for s in batch[0]])
    ratio = np.exp(np.array(now) - np.array(old))
    clipped = np.where(gain > 0, ratio > 1.2, ratio < 0.8)
    assert row["ratio"] == pytest.approx((1 + ratio.mean()) / 2, rel=1e-4)
    assert row["clip_fraction"] == pytest.approx(clipped.mean() / 2, abs=1e-6) and clipped.any()
    assert row["kl_behaviour"] == pytest.approx((ratio - 1 - np.log(ratio)).mean() / 2, rel=1e-3)


def test_minibatches_hold_each_episode_once_per_epoch_and_add_up_to_the_batch(monkeypatch):
    steps, gain, valid = sampled(0, tiny())
    config = TrainConfig(lr=1e-2, epochs=3, minibatches=2)
    trainer = Trainer(tiny(), config)
    parts = []
    monkeypatch.setattr(trainer, "_optimize", lambda batch, lr, loss, tally: parts.append(batch))
    trainer.update(steps, gain, valid)
    assert len(parts) == 6 and all(part.count == len(steps) / 2 for part in parts)
    for epoch in range(3):
        halves = [{step.episode for step in part.steps} for part in parts[2 * epoch : 2 * epoch + 2]]
        assert not halves[0] & halves[1] and halves[0] | halves[1] == set(range(6)) and len(halves[0]) == 3
        indices = sorted(i for part in parts[2 * epoch : 2 * epoch + 2] for i in part.index.tolist())
        assert indices == list(range(len(steps)))
    assert len({tuple(sorted(s.episode for s in part.steps)) for part in parts}) > 2  # another order each time


def test_gradients_of_minibatches_add_up_to_that_of_the_batch():
    batch = sampled(0, tiny())
    sums = []
    for minibatches in (1, 3):
        model = tiny()
        trainer = Trainer(model, TrainConfig(lr=1e-2, minibatches=minibatches))
        total = [torch.zeros_like(w) for w in model.parameters()]

        def step(lr, sound, total=total, model=model, trainer=trainer):
            for all_, weight in zip(total, model.parameters(), strict=True):
                all_ += 0 if weight.grad is None else weight.grad
            trainer.optimizer.zero_grad()

        trainer._clip = lambda: 1.0
        trainer._step = step
        trainer.update(*batch)
        sums.append(torch.cat([t.flatten() for t in total]) / minibatches)
    torch.testing.assert_close(sums[1], sums[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("minibatches", "steps"), [(1, 1), (6, 6), (50, 6)])
def test_there_are_never_more_minibatches_than_episodes(minibatches, steps):
    row = Trainer(tiny(), TrainConfig(lr=1e-2, minibatches=minibatches)).update(*sampled(0, tiny()))
    assert row["stepped"] == steps and row["skipped"] == 0


def test_one_epoch_in_one_minibatch_is_what_it_was():
    for loss in ("policy_gradient", "ppo_clip"):
        plain, named = Trainer(tiny(), TrainConfig(lr=1e-2, loss=loss)), Trainer(tiny(), TrainConfig(1e-2, loss=loss, epochs=1))
        for u in range(3):
            assert plain.update(*some_steps(u)) == named.update(*some_steps(u))
        assert torch.equal(weights(plain.model), weights(named.model))


def test_the_schedule_counts_updates_not_optimizer_steps():
    config = TrainConfig(lr=1.0, schedule="linear", updates=4, epochs=2, minibatches=3)
    trainer = Trainer(tiny(), config)
    assert [trainer.update(*some_steps(u))["lr"] for u in range(4)] == pytest.approx([learning_rate(config, u) for u in range(4)])


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_importance_weights_correct_what_generation_scored_otherwise(level):
    """Stored log-probs are off by a constant: the weight is its exponential, cut at the cap, and ratios stay 1."""
    steps, gain, valid = sampled(0, tiny())
    shifted = [TokenStep(s.prompt_ids, s.token_ids, tuple(b - LN(1.5) for b in s.behaviour), s.episode) for s in steps]
    plain = Trainer(tiny(), TrainConfig(lr=1e-2)).update(steps, gain, valid)
    for cap, weight in ((2.0, 1.5), (1.2, 1.2)):
        for loss in ("policy_gradient", "ppo_clip"):
            config = TrainConfig(lr=1e-2, loss=loss, importance_cap=cap, ratio=level)
            row = Trainer(tiny(), config).update(shifted, gain, valid)
            assert row["importance"] == pytest.approx(weight, rel=1e-4) and row["ratio"] == pytest.approx(1, abs=1e-4)
            assert row["grad_norm"] == pytest.approx(weight * plain["grad_norm"], rel=1e-3)


def test_epochs_and_a_resume_in_the_middle_end_with_the_same_weights(tmp_path):
    config = TrainConfig(lr=1e-2, loss="ppo_clip", epochs=2, minibatches=2, kl=0.1, entropy=0.01)
    straight = Trainer(tiny(), config)
    straight.seed = 5
    for u in range(4):
        straight.update(*some_steps(u))
        if u == 1:
            straight.save(tmp_path / "at")
    resumed = Trainer(tiny(), config)
    resumed.seed = 5
    resumed.load(tmp_path / "at")
    for u in range(2, 4):
        resumed.update(*some_steps(u))
    assert torch.equal(weights(straight.model), weights(resumed.model))


def test_a_run_of_several_epochs_logs_how_far_it_moved(tmp_path):
    config = TrainConfig(lr=2e-2, loss="ppo_clip", epochs=3, minibatches=2, temperature=0.7, ratio="sequence", clip_high=0.1)
    run = prepared(tmp_path, config, limits=Limits(updates=2), temperature=0.7, judge=Evens())
    ReturnToGo(episodes_per_update=8).train(run)
    rows = read_log(tmp_path)
    assert len(rows) == 2 and all({"ratio", "clip_fraction", "kl_behaviour"} <= set(row) for row in rows)
    assert run.spent.updates == 2 and run.spent.optimizer_steps <= 12


EVERY_OPTION = {"loss": "ppo_clip", "ratio": "sequence", "clip_low": 0.1, "clip_high": 0.3, "importance_cap": 2.0, "epochs": 2}
EVERY_OPTION |= {"minibatches": 2, "entropy": 0.01, "kl": 0.05, "overlong": "mask", "temperature": 0.8}
STATES = {"questions": 6, "filter": "none", "states_per_update": 6, "samples_per_state": 2}
ALGORITHMS = {
    "swirl-mix": lambda: Swirl(**STATES, group="mix", skip_flat=True),
    "rft": lambda: Rft(filter="none", questions=6, episodes_per_update=4),
    "turn_ppo": lambda: TurnPpo(episodes_per_update=6, reward_weight=0.5, clip=0),
    "implicit_prm": lambda: ImplicitPrm(questions_per_update=3, samples=2),
    "step_dpo": lambda: StepDpo(episodes_per_update=4, samples=3),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_go_with_every_option_of_the_trainer(name, tmp_path):
    run = prepared(tmp_path, TrainConfig(lr=1e-2, **EVERY_OPTION), judge=Evens(), limits=Limits(updates=2), temperature=0.8)
    run.agent.max_new_tokens = 3
    ALGORITHMS[name]().train(run)
    rows = read_log(tmp_path)
    assert len(rows) == 2 and all(math.isfinite(row[key]) for row in rows for key in ("loss", "kl", "entropy", "grad_norm"))
    assert 2 <= run.spent.optimizer_steps + run.spent.skipped_updates <= 8 and run.spent.skipped_updates == 0


def test_demonstrations_have_no_ratios(tmp_path):
    demos = list(collect(Teacher(0, 0.5), colours(), 4, seed=1))
    run = prepared(tmp_path, TrainConfig(lr=1e-2, loss="ppo_clip"))
    run.stored = demos
    with pytest.raises(ConfigError, match="needs the log-probs at generation"):
        Rft(filter="none", states="stored", episodes_per_update=4).train(run)
    run = prepared(tmp_path, TrainConfig(lr=1e-2, epochs=2, minibatches=2))
    run.stored = demos
    Rft(filter="none", states="stored", episodes_per_update=4).train(run)  # several passes over demonstrations are fine
    assert "ratio" not in read_log(tmp_path)[0] and run.spent.optimizer_steps == 8
