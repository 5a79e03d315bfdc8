"""Losses: literal numbers, finite differences in float64, chunked log-probs against full logits."""

import pytest

torch = pytest.importorskip("torch", reason="the losses need torch")

from swirl_env.algos import losses, output_layer  # noqa: E402

STEP = torch.tensor([0, 0, 1, 1, 1, 3])
LOGP = torch.tensor([-1.0, -0.5, -2.0, -0.25, -0.75, -3.0], dtype=torch.float64)
ADV = torch.tensor([2.0, -1.0, 5.0, 0.5], dtype=torch.float64)
VALID = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)


def test_policy_gradient_by_hand():
    # step sums -1.5, -3, 0, -3; times 2, -1, 5, 0.5 = -3 + 3 + 0 - 1.5
    assert losses.policy_gradient(LOGP, STEP, ADV, 3).item() == pytest.approx(1.5 / 3)
    # step means -0.75, -1, 0, -3
    assert losses.policy_gradient(LOGP, STEP, ADV, 3, reduction="mean").item() == pytest.approx(-(-1.5 + 1 - 1.5) / 3)


def test_ppo_by_hand():
    logp = torch.log(torch.tensor([1.5, 0.5, 1.1], dtype=torch.float64))
    step, adv = torch.tensor([0, 1, 2]), torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    # min(1.5, 1.2) = 1.2; min(-0.5, -0.8) = -0.8; min(2.2, 2.2) = 2.2
    assert losses.ppo_clip(logp, torch.zeros(3), step, adv, 1).item() == pytest.approx(-(1.2 - 0.8 + 2.2))


def test_kl_by_hand():
    ref = torch.tensor([-1.5, -0.5, -1.0, -0.25, -0.75, 99.0], dtype=torch.float64)
    valid = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    for name, values in {
        "k1": 0.5 - 1.0,
        "k2": 0.125 + 0.5,
        "k3": (2.718281828459045**-0.5 - 0.5) + (2.718281828459045 - 2),
    }.items():
        penalty = losses.kl_penalty(LOGP, ref, STEP, valid, 2, estimator=name)
        assert penalty.item() == pytest.approx(values / 2), name


def test_kl_gradients_are_those_of_the_divergences_they_claim():
    """Enumerated over a softmax of 4: E[grad k2] = grad KL(pi || ref), E[grad k1] = 0, E[grad k3] = grad KL(ref || pi)."""
    theta = torch.tensor([0.3, -0.2, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.tensor([0.0, 0.4, 0.1, -0.6], dtype=torch.float64), 0)
    logp = torch.log_softmax(theta, 0)
    p = logp.exp().detach()

    def expected(name):
        total = torch.zeros_like(theta)
        for a in range(4):
            value = losses.kl_penalty(logp[a : a + 1], ref[a : a + 1], torch.tensor([0]), torch.ones(1), 1, estimator=name)
            total = total + p[a] * torch.autograd.grad(value, theta, retain_graph=True)[0]
        return total

    forward = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), theta, retain_graph=True)[0]
    backward = torch.autograd.grad((ref.exp() * (ref - logp)).sum(), theta, retain_graph=True)[0]
    torch.testing.assert_close(expected("k2"), forward, atol=1e-12, rtol=0)
    torch.testing.assert_close(expected("k1"), torch.zeros_like(theta), atol=1e-12, rtol=0)
    torch.testing.assert_close(expected("k3"), backward, atol=1e-12, rtol=0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_finite_differences_of_every_loss(reduction):
    behaviour, ref = LOGP - 0.07, LOGP + torch.linspace(-0.4, 0.5, 6, dtype=torch.float64)
    every = [
        lambda x: losses.policy_gradient(x, STEP, ADV, 3, reduction=reduction),
        lambda x: losses.ppo_clip(x, behaviour, STEP, ADV, 3, reduction=reduction),
        *[lambda x, k=k: losses.kl_penalty(x, ref, STEP, VALID, 3, estimator=k, reduction=reduction) for k in ("k1", "k2", "k3")],
    ]
    for loss in every:
        assert torch.autograd.gradcheck(loss, (LOGP.clone().requires_grad_(True),))


def test_micro_batches_add_up_to_the_whole():
    whole = losses.policy_gradient(LOGP, STEP, ADV, 3)
    parts = [losses.policy_gradient(LOGP[:2], STEP[:2], ADV[:1], 3)]
    parts.append(losses.policy_gradient(LOGP[2:], STEP[2:] - 1, ADV[1:], 3))
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_chunked_logprobs_equal_full_logits_and_their_gradients(bias, softcap, scale):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 5, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(13, 5, generator=g, dtype=torch.float64, requires_grad=True)
    b = torch.randn(13, generator=g, dtype=torch.float64, requires_grad=True) if bias else None
    targets = torch.randint(13, (11,), generator=g)
    penalty = output_layer.token_logprobs(hidden, weight, targets, bias=b, softcap=softcap, scale=scale, chunk=4)
    logits = torch.nn.functional.linear(hidden, weight, b)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    full = torch.log_softmax(logits * scale, -1).gather(-1, targets[:, None]).squeeze(-1)
    torch.testing.assert_close(penalty, full)
    pull = torch.randn(11, generator=g, dtype=torch.float64)
    wanted = [t for t in (hidden, weight, b) if t is not None]
    for mine, theirs in zip(torch.autograd.grad(penalty, wanted, pull), torch.autograd.grad(full, wanted, pull), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_products_are_taken_in_the_dtype_of_the_weight_or_of_autocast(weight_dtype, hidden_dtype, autocast):
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 8, generator=g).to(hidden_dtype).requires_grad_()
    weight = torch.randn(13, 8, generator=g).to(weight_dtype).requires_grad_()
    bias = torch.randn(13, generator=g).to(weight_dtype).requires_grad_()
    targets, pull = torch.randint(13, (11,), generator=g), torch.randn(11, generator=g)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        penalty = output_layer.token_logprobs(hidden, weight, targets, bias=bias, chunk=4)
    assert penalty.dtype == torch.float32
    product = torch.bfloat16 if autocast else weight_dtype
    exact = [t.detach().to(product).double().requires_grad_() for t in (hidden, weight, bias)]
    full = torch.log_softmax(torch.nn.functional.linear(*exact), -1).gather(-1, targets[:, None]).squeeze(-1)
    # bfloat16 rounds by up to 2^-9 of a value, and logits are below 2^4
    torch.testing.assert_close(penalty.double(), full, atol=1e-5 if product == torch.float32 else 2**-5, rtol=0)
    mine = torch.autograd.grad(penalty, (hidden, weight, bias), pull)  # outside autocast, as after a forward pass under it
    for grad, given, theirs in zip(mine, (hidden, weight, bias), torch.autograd.grad(full, exact, pull.double()), strict=True):
        assert grad.dtype == given.dtype
        near = 1e-5 if product == given.dtype == torch.float32 else 2**-5
        torch.testing.assert_close(grad.double(), theirs, atol=near * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_what_is_trained_gets_a_gradient(wanted):
    given = [torch.randn(6, 5), torch.randn(7, 5), torch.randn(7)]
    hidden, weight, bias = (t.requires_grad_(flag) for t, flag in zip(given, wanted, strict=True))
    output_layer.token_logprobs(hidden, weight, torch.arange(6), bias=bias, chunk=4).sum().backward()
    assert tuple(t.grad is not None for t in (hidden, weight, bias)) == wanted


@pytest.mark.parametrize(
    ("dtype", "softcap", "buffers"), [(torch.float32, None, 1 + 2), (torch.bfloat16, None, 2 + 3), (torch.float32, 3.0, 1 + 2)]
)
def test_every_chunk_is_computed_in_the_same_buffers(dtype, softcap, buffers):
    rows, vocabulary = 8, 50
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            penalty = func(*args, **(kwargs or {}))
            if isinstance(penalty, torch.Tensor) and penalty.numel() >= rows * vocabulary:
                seen.append(penalty.untyped_storage())  # kept, so that no later one takes its address
            return penalty

    hidden = torch.randn(10 * rows, 4).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, 4).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (len(hidden),))
    with Watch():
        output_layer.token_logprobs(hidden, weight, targets, softcap=softcap, scale=0.7, chunk=rows).sum().backward()
    assert len({s.data_ptr() for s in seen}) == buffers


def test_no_tokens_no_loss():
    weight = torch.zeros(7, 5, requires_grad=True)
    none = output_layer.token_logprobs(torch.zeros(0, 5), weight, torch.zeros(0, dtype=torch.long))
    assert losses.policy_gradient(none, torch.zeros(0, dtype=torch.long), torch.zeros(2), 1).item() == 0
    none.sum().backward()
    assert torch.equal(weight.grad, torch.zeros(7, 5))
