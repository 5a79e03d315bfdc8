"""The KL's reference is the policy that training began with, on every path; KL and surprise are what their names say."""

import copy
import itertools

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
transformers = pytest.importorskip("transformers", reason="the tests run a tiny Llama")
pytest.importorskip("accelerate", reason="the trainer stands on accelerate")

from test_algos_trainer import some_steps, tiny, weights  # noqa: E402

from swirl_env.algos.batch import TokenStep, chains, collate  # noqa: E402
from swirl_env.algos.losses import kl_penalty  # noqa: E402
from swirl_env.algos.scoring import ActionScorer  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402

KL = TrainConfig(lr=1e-2, kl=0.5)


def adapted(dropout=0.0):
    peft = pytest.importorskip("peft", reason="LoRA comes from peft")
    return peft.get_peft_model(
        tiny(), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=dropout, init_lora_weights=True)
    )


def trained_adapter(tmp_path):
    """A LoRA policy that goes on from an adapter trained before: not the bare model."""
    peft = pytest.importorskip("peft", reason="LoRA comes from peft")
    model = adapted()
    trainer = Trainer(model, TrainConfig(lr=0.1))
    for u in range(5):
        trainer.update(*some_steps(u))
    model.save_pretrained(tmp_path / "adapter")
    return peft.PeftModel.from_pretrained(tiny(), tmp_path / "adapter", is_trainable=True)


POLICIES = {
    "full": lambda path: tiny(),
    "lora": lambda path: adapted(),
    "lora with dropout": lambda path: adapted(0.5),
    "lora on an adapter": trained_adapter,
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_first_kl_is_zero_and_later_ones_measure_the_way_from_the_start(name, temperature, tmp_path):
    model = POLICIES[name](tmp_path)
    start = copy.deepcopy(model).eval()
    trainer = Trainer(model, TrainConfig(lr=1e-2, kl=0.5, temperature=temperature))
    steps, gain, valid = some_steps(2)
    first = trainer.update(steps, gain, valid)
    if "dropout" not in name:  # dropout makes the policy differ from itself; the reference has none
        assert first["kl"] == pytest.approx(0, abs=1e-9)
    usable = [step for step, ok in zip(steps, valid, strict=True) if ok]
    batch = collate(chains(usable))
    with torch.no_grad():
        now = ActionScorer(copy.deepcopy(model).eval(), temperature=temperature)(batch)
        then = ActionScorer(start, temperature=temperature)(batch)
    expected = kl_penalty(now, then, batch.step, torch.ones(len(usable)), len(usable)).item()
    again = trainer.update(steps, gain, valid)
    assert expected > 0
    if "dropout" not in name:
        assert again["kl"] == pytest.approx(expected, rel=1e-4)


def test_a_reference_of_its_own_is_scored_at_the_trainers_temperature():
    model = tiny()
    trainer = Trainer(model, TrainConfig(lr=1e-2, kl=0.5, temperature=0.5), reference=copy.deepcopy(model))
    assert trainer.update(*some_steps(2))["kl"] == pytest.approx(0, abs=1e-9)


def test_swapping_the_reference_in_leaves_the_policy_as_it_was():
    with_kl, without = tiny(), tiny()
    one, other = Trainer(with_kl, TrainConfig(lr=1e-2, kl=1e-12)), Trainer(without, TrainConfig(lr=1e-2))
    for u in range(3):
        one.update(*some_steps(u))
        other.update(*some_steps(u))
    torch.testing.assert_close(weights(with_kl), weights(without), atol=1e-5, rtol=0)


def test_a_resumed_run_keeps_the_reference_that_it_began_with(tmp_path):
    straight, broken = Trainer(tiny(), KL), Trainer(tiny(), KL)
    for u in range(3):
        straight.update(*some_steps(u))
        broken.update(*some_steps(u))
    broken.save(tmp_path / "at")
    resumed = Trainer(tiny(), KL)
    resumed.load(tmp_path / "at")
    assert resumed.update(*some_steps(4)) == straight.update(*some_steps(4))


# Two-token actions over a vocabulary of 3, all nine of them: expectations are sums.

VOCABULARY = 3


def tables(seed):
    """Log-probs of the first token [3] and of the second after each first [3, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3,), (3, 3))]


def logp(first, second, action):
    a, b = action
    return torch.stack([first.log_softmax(-1)[a], second.log_softmax(-1)[a, b]])


def expectation(estimator, policy, reference):
    """E over actions of the estimate, differentiable through the estimate alone as in a loss."""
    total = torch.zeros((), dtype=torch.float64)
    for action in itertools.product(range(VOCABULARY), repeat=2):
        now, then = logp(*policy, action), logp(*reference, action)
        value = kl_penalty(now, then, torch.zeros(2, dtype=torch.long), torch.ones(1), 1.0, estimator=estimator)
        total = total + now.detach().sum().exp() * value
    return total


def token_kls(policy, reference):
    """Sum of the KLs of the next-token distributions, at the prefixes that the policy samples (prefixes held fixed)."""
    first, second = (table.log_softmax(-1) for table in policy)
    first_ref, second_ref = (table.log_softmax(-1) for table in reference)
    at_first = (first.exp() * (first - first_ref)).sum()
    at_second = (second.exp() * (second - second_ref)).sum(-1)
    return at_first + (first.detach().exp() * at_second).sum()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_unbiased_estimators_give_the_kl_of_the_whole_action(estimator):
    policy, reference = tables(0), tables(1)
    whole = sum(
        logp(*policy, a).sum().exp() * (logp(*policy, a).sum() - logp(*reference, a).sum())
        for a in itertools.product(range(VOCABULARY), repeat=2)
    )
    # The chain rule: the KL over actions is the sum of the KLs per token.
    assert whole.item() == pytest.approx(token_kls(policy, reference).item())
    assert expectation(estimator, policy, reference).item() == pytest.approx(whole.item())


def test_the_gradient_of_k2_is_that_of_the_kls_per_token():
    policy, reference = tables(0), tables(1)
    for table in policy:
        table.requires_grad_()
    mine = torch.autograd.grad(expectation("k2", policy, reference), policy)
    exact = torch.autograd.grad(token_kls(policy, reference), policy)
    for a, b in zip(mine, exact, strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_of_k1_is_zero_on_average():
    policy, reference = tables(0), tables(1)
    for table in policy:
        table.requires_grad_()
    for gradient in torch.autograd.grad(expectation("k1", policy, reference), policy):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_surprise_is_the_mean_of_minus_log_pi_over_trained_tokens():
    trainer = Trainer(tiny(), TrainConfig(lr=1e-2))
    steps = [TokenStep((1, 2), (3, 4), (), 0), TokenStep((5,), (6,), (), 1)]
    values = [value for row in trainer.logprobs(steps) for value in row]
    metrics = trainer.update(steps, [1.0, -1.0], [True, True])
    assert metrics["surprise"] == pytest.approx(-sum(values) / 3, rel=1e-5)
    assert "entropy" not in metrics


# Ratios.


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_ratios_of_the_policy_that_sampled_are_one(temperature):
    model = tiny()
    scored = Trainer(model, TrainConfig(lr=1e-9, temperature=temperature))
    steps, gain, valid = some_steps(3)
    behaviour = scored.logprobs(steps)
    again = [TokenStep(s.prompt_ids, s.token_ids, b, s.episode) for s, b in zip(steps, behaviour, strict=True)]
    clipped = Trainer(model, TrainConfig(lr=1e-9, temperature=temperature, loss="ppo_clip", clip=1e-4))
    # At ratio 1 the loss is minus the mean of A x tokens, and nothing is clipped.
    n = sum(valid)
    expected = -sum(g * len(s.token_ids) for g, s, ok in zip(gain, steps, valid, strict=True) if ok) / n
    assert clipped.update(again, gain, valid)["loss"] == pytest.approx(expected, rel=1e-3)


def test_steps_without_behaviour_log_probs_have_no_ratios():
    trainer = Trainer(tiny(), TrainConfig(loss="ppo_clip"))
    with pytest.raises(ConfigError, match="needs the log-probs at generation"):
        trainer.update([TokenStep((1, 2), (3,))], [1.0], [True])
