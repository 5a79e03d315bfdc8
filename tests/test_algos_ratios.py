"""Several optimizer steps per update: ratios, clips, weights and entropies against numbers worked out by hand or by autograd."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
pytest.importorskip("transformers", reason="the tests run a tiny Llama")

from test_algos_trainer import some_steps, tiny, weights  # noqa: E402
from test_algos_update import prepared  # noqa: E402

from swirl_env.algos import losses, output_layer  # noqa: E402
from swirl_env.algos.batch import TokenStep  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402

LN = math.log
# Two steps: tokens 0 and 1 of step 0 (A = 2), token 2 of step 1 (A = -1). Ratios 1.5, 0.5 and 0.7.
STEP, GAIN = torch.tensor([0, 0, 1]), torch.tensor([2.0, -1.0])
OLD = torch.tensor([-1.0, -2.0, -3.0])
NOW = OLD + torch.tensor([LN(1.5), LN(0.5), LN(0.7)])


def value_and_gradient(**options):
    logp = NOW.clone().requires_grad_()
    loss = losses.ppo_clip(logp, OLD, STEP, GAIN, 2.0, **options)
    loss.backward()
    return loss.item(), logp.grad.tolist()


@pytest.mark.parametrize(
    ("options", "values", "slopes"),
    [
        # A token's value is min(r A, clip(r) A); its slope r A where the ratio is trusted, 0 where it is clipped.
        ({"clip": 0.2}, (2 * 1.2, 2 * 0.5, -0.8), (0.0, 2 * 0.5, 0.0)),
        ({"clip": 0.2, "clip_high": 0.6}, (2 * 1.5, 2 * 0.5, -0.8), (2 * 1.5, 2 * 0.5, 0.0)),
        ({"clip": 0.4, "clip_high": 0.2}, (2 * 1.2, 2 * 0.5, -0.7), (0.0, 2 * 0.5, -0.7)),
        ({"clip": 0.2, "weight": torch.tensor([0.5, 2.0, 1.0])}, (0.5 * 2.4, 2.0, -0.8), (0.0, 2 * 2 * 0.5, 0.0)),
        # One ratio per step: sqrt(1.5 * 0.5) for step 0, 0.7 for step 1. Each of two tokens moves it by half.
        ({"clip": 0.2, "level": "sequence"}, (2 * 0.75**0.5,) * 2 + (-0.8,), (2 * 0.75**0.5,) * 2 + (0.0,)),
        ({"clip": 0.4, "level": "sequence"}, (2 * 0.75**0.5,) * 2 + (-0.7,), (2 * 0.75**0.5,) * 2 + (-0.7,)),
    ],
)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_clipped_losses_by_hand(options, values, slopes, reduction):
    loss, gradient = value_and_gradient(reduction=reduction, **options)
    size = (2, 2, 1) if reduction == "mean" else (1, 1, 1)
    assert loss == pytest.approx(-sum(v / n for v, n in zip(values, size, strict=True)) / 2, rel=1e-6)
    assert gradient == pytest.approx([-s / n / 2 for s, n in zip(slopes, size, strict=True)], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_at_ratio_one_every_clipped_loss_has_the_gradient_of_the_plain_one(level, reduction):
    gradients = []
    for loss in (
        lambda x: losses.ppo_clip(x, OLD, STEP, GAIN, 2.0, level=level, reduction=reduction, clip_high=0.5),
        lambda x: losses.policy_gradient(x, STEP, GAIN, 2.0, reduction=reduction),
    ):
        logp = OLD.clone().requires_grad_()
        loss(logp).backward()
        gradients.append(logp.grad)
    torch.testing.assert_close(*gradients)


def test_truncated_weights_by_hand():
    token = losses.truncated_weights(NOW, OLD, STEP, 2, 1.2)
    assert token.tolist() == pytest.approx([1.2, 0.5, 0.7], rel=1e-6)
    sequence = losses.truncated_weights(NOW, OLD, STEP, 2, 0.8, "sequence")
    assert sequence.tolist() == pytest.approx([0.8, 0.8, 0.7], rel=1e-6)
    weighted = losses.policy_gradient(NOW, STEP, GAIN, 2.0, weight=token)
    assert weighted.item() == pytest.approx(-(2 * (1.2 * NOW[0] + 0.5 * NOW[1]) - 0.7 * NOW[2]).item() / 2, rel=1e-6)


def test_ratios_beyond_all_bounds_stay_finite():
    far = torch.tensor([100.0, -100.0, 0.0]).requires_grad_()
    loss = losses.ppo_clip(far, torch.zeros(3), STEP, torch.tensor([0.0, -1.0]), 1.0)
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(far.grad).all()


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [0, 2])
def test_entropies_and_their_gradients_agree_with_autograd_over_all_logits(softcap, bias, chunk):
    torch.manual_seed(1)
    hidden, weight, b = (torch.randn(*s, dtype=torch.float64) for s in ((5, 4), (7, 4), (7,)))
    targets, mix = torch.tensor([0, 6, 3, 3, 1]), torch.randn(2, 5, dtype=torch.float64)
    results = []
    for chunked in (True, False):
        h, w, c = (x.clone().requires_grad_() for x in (hidden, weight, b))
        offset = c if bias else None
        if chunked:
            logp, entropy = output_layer.token_entropies(h, w, targets, bias=offset, softcap=softcap, scale=0.7, chunk=chunk)
        else:
            logits = torch.nn.functional.linear(h, w, offset)
            logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
            everything = torch.log_softmax(0.7 * logits, -1)
            logp, entropy = everything[range(5), targets], -(everything.exp() * everything).sum(-1)
        (mix[0] * logp + mix[1] * entropy).sum().backward()
        results.append((logp.detach(), entropy.detach(), h.grad, w.grad, c.grad if bias else torch.zeros(7)))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("change", [{}, {"micro_tokens": 20}, {"pack": 64, "tree": True}])
def test_the_entropy_bonus_moves_the_policy_towards_more_entropy(change):
    steps = [TokenStep((1, 2, 3), (4, 5), (), 0), TokenStep((1, 2, 6), (7,), (), 1)]
    model = tiny()
    trainer = Trainer(model, TrainConfig(lr=1e-3, entropy=0.5, **change))

    def entropies():
        total = 0.0
        for step in steps:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*step.prompt_ids, *step.token_ids]])).logits[0]
            start = len(step.prompt_ids) - 1
            total += torch.distributions.Categorical(logits=logits[start : start + len(step.token_ids)]).entropy().sum().item()
        return total / 3

    before = entropies()
    rows = [trainer.update(steps, [0.0, 0.0], [True, True]) for _ in range(5)]
    assert rows[0]["entropy"] == pytest.approx(before, rel=1e-5) and entropies() > before
    assert all(row["stepped"] == 1 for row in rows)


# Actions that were cut off.


@pytest.mark.parametrize("mode", ["train", "mask"])
def test_masked_actions_leave_the_loss_as_if_never_taken(mode):
    steps, gain, valid = some_steps(0)
    cut = [i % 3 == 0 for i in range(len(steps))]
    marked = [TokenStep(s.prompt_ids, s.token_ids, s.behaviour, s.episode, c) for s, c in zip(steps, cut, strict=True)]
    trainer, plain = Trainer(tiny(), TrainConfig(lr=1e-2, overlong=mode)), Trainer(tiny(), TrainConfig(lr=1e-2))
    trainer.update(marked, gain, valid)
    plain.update(steps, gain, [v and not (c and mode == "mask") for v, c in zip(valid, cut, strict=True)])
    assert torch.equal(weights(trainer.model), weights(plain.model))


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_actions_are_marked_as_cut_off_only_if_they_had_not_ended(limit, tmp_path):
    run = prepared(tmp_path, max_new_tokens=limit)
    steps = [step for t in run.rollouts(40) for step in t.steps]
    for step in steps:
        ended = step.action.token_ids[-1] in run.agent.end_ids or step.action.text.endswith(("</echo>", "</answer>"))
        assert step.action.truncated == (not ended) and (ended or len(step.action.token_ids) == limit)
    assert {step.action.truncated for step in steps} == {True, False}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": 0}, "epochs is a whole number, 1 or more"),
        ({"minibatches": 1.5}, "minibatches is a whole number"),
        ({"loss": "ppo_clip", "clip_low": 0.0}, "clip_low is a finite number, above 0"),
        ({"clip_high": 0.2}, "clip_high is about ratios"),
        ({"ratio": "sequence"}, "ratio is about ratios"),
        ({"ratio": "word"}, "ratio is one of token, sequence"),
        ({"importance_cap": -1.0}, "importance_cap is a finite number, at least 0"),
        ({"entropy": math.nan}, "entropy is a finite number"),
        ({"overlong": "drop"}, "overlong is one of train, mask"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(options, match):
    with pytest.raises(ConfigError, match=match):
        TrainConfig(**options)


@pytest.mark.parametrize("options", [{"loss": "ppo_clip"}, {"importance_cap": 2.0}])
def test_ratios_without_log_probs_at_generation_are_refused(options, tmp_path):
    with pytest.raises(ConfigError, match="needs the log-probs at generation"):
        Trainer(tiny(), TrainConfig(**options)).update([TokenStep((1, 2), (3,))], [1.0], [True])
    with pytest.raises(ConfigError, match="cuts some off"):
        prepared(tmp_path, TrainConfig(**options), top_p=0.9)
