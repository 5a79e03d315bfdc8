"""What an algorithm asks of the policy apart from actions: log-probs now and at the start, features, its own loss."""

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="the policy is a tiny Llama")

from test_algos_reference import adapted  # noqa: E402
from test_algos_run import Teacher, engine, untrained  # noqa: E402
from test_algos_trainer import some_steps, tiny, weights  # noqa: E402

from swirl_env.algos.batch import TokenStep  # noqa: E402
from swirl_env.algos.losses import policy_gradient  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.run_logs import read_log  # noqa: E402
from swirl_env.algos.steps import tabulate  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.episodes.rollout import collect  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402


def run_of(folder, model=None, config=None, **kwargs):
    torch.manual_seed(0)
    agent = untrained()[1]
    if model is not None:
        agent.model = model
    return Run(
        agent, engine(), Trainer(agent.model, config or TrainConfig(lr=1e-2)), folder, Limits(updates=4), slots=8, **kwargs
    )


def demos(run):
    return tabulate(list(collect(Teacher(0, 0.5), engine(), 4, seed=1)), run.agent.renderer)


def plainly(model, step):
    """log pi of a step's tokens by one forward pass of the whole text."""
    ids = torch.tensor([[*step.prompt_ids, *step.token_ids]])
    training = model.training
    model.eval()
    with torch.no_grad():
        logp = model(input_ids=ids).logits[0].log_softmax(-1)
    model.train(training)
    start = len(step.prompt_ids)
    return [logp[start + k - 1, token].item() for k, token in enumerate(step.token_ids)]


@pytest.mark.parametrize("training", [True, False])
def test_logprobs_are_without_dropout_and_leave_the_mode(training):
    torch.manual_seed(0)
    model = adapted(0.5)
    trainer = Trainer(model, TrainConfig(lr=1e-2))
    steps, gain, valid = some_steps(0)
    trainer.update(steps, gain, valid)
    model.train(training)
    rows = trainer.logprobs(steps)
    assert rows == trainer.logprobs(steps) and model.training is training
    for step, row in zip(steps, rows, strict=True):
        assert list(row) == pytest.approx(plainly(model, step), abs=1e-5)
    assert all(module.training is training for module in model.modules())


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("kind", [tiny, adapted, lambda: tiny().bfloat16()])
def test_the_reference_is_the_policy_that_training_began_with(kind, kl):
    trainer = Trainer(kind(), TrainConfig(lr=1e-2, kl=kl))
    steps = some_steps(0)[0]
    first = trainer.logprobs(steps)
    assert trainer.logprobs(steps, reference=True) == first
    for u in range(3):
        trainer.update(*some_steps(u))
    before = weights(trainer.model)
    assert trainer.logprobs(steps, reference=True) == first != trainer.logprobs(steps)
    assert torch.equal(weights(trainer.model), before)


def test_a_given_reference_is_scored():
    other = tiny(seed=5)
    trainer = Trainer(tiny(), TrainConfig(lr=1e-2), reference=other)
    steps, gain, valid = some_steps(0)
    trainer.update(steps, gain, valid)
    rows = trainer.logprobs(steps, reference=True)
    assert list(rows[0]) == pytest.approx(plainly(other, steps[0]), abs=1e-5)


def test_a_reference_that_is_asked_for_too_late_is_refused(tmp_path):
    trainer = Trainer(tiny(), TrainConfig(lr=1e-2))
    steps, gain, valid = some_steps(0)
    trainer.update(steps, gain, valid)
    for batch in (steps, []):
        with pytest.raises(ConfigError, match="before the first update"):
            trainer.logprobs(batch, reference=True)


def test_a_resumed_run_has_the_reference_that_the_run_had(tmp_path):
    run = run_of(tmp_path, save_every=1)
    table = demos(run)
    first = run.logprobs(table.steps, reference=True)
    assert first == run.logprobs(table.steps)
    run.update(table.steps, table.outcome, table.known)
    resumed = run_of(tmp_path, resume=True)
    assert resumed.spent.updates == 1
    assert resumed.logprobs(table.steps, reference=True) == first != resumed.logprobs(table.steps)


@pytest.mark.parametrize("config", [{}, {"pack": 64}, {"tree": True}, {"micro_tokens": 20}])
def test_features_are_the_last_hidden_states_of_the_prompts(config, tmp_path):
    run = run_of(tmp_path, config=TrainConfig(lr=1e-2, **config))
    steps = [*demos(run).steps, TokenStep((2, 3, 4), (), (), 99)]
    features = run.features(steps)
    assert features.shape == (len(steps), 32) and not features.requires_grad
    for step, row in zip(steps, features, strict=True):
        with torch.no_grad():
            hidden = run.agent.model.model(input_ids=torch.tensor([step.prompt_ids])).last_hidden_state[0, -1]
        torch.testing.assert_close(row, hidden, atol=1e-5, rtol=0)
    assert run.features([]).shape == (0, 32)


# A loss of one's own.


def own_policy_gradient(inputs):
    gain = inputs.advantages.to(inputs.logprobs)
    loss = policy_gradient(inputs.logprobs, inputs.step, gain, inputs.count, reduction=inputs.reduction)
    return loss, {"tokens_seen": float(len(inputs.step)) / inputs.count}


@pytest.mark.parametrize("config", [{}, {"micro_tokens": 20}, {"kl": 0.2}, {"epochs": 2, "minibatches": 2}])
def test_a_loss_of_ones_own_takes_the_place_of_the_configured_one(config, tmp_path):
    ways = []
    for name, loss in (("a", None), ("b", own_policy_gradient)):
        run = run_of(tmp_path / name, config=TrainConfig(lr=1e-2, **config))
        table = demos(run)
        gain = table.outcome + 0.25  # none is 0: all of them carry loss either way
        for _ in range(2):
            run.update(table.steps, gain, table.known, loss=loss, mine=1.0)
        ways.append((weights(run.agent.model), read_log(run.folder)))
    torch.testing.assert_close(ways[0][0], ways[1][0], atol=1e-6, rtol=0)
    tokens = sum(len(step.token_ids) for step in table.steps)
    row = ways[1][1][-1]
    assert row["tokens_seen"] == pytest.approx(tokens / len(table.steps)) and row["mine"] == 1.0
    assert row["loss"] == pytest.approx(ways[0][1][-1]["loss"], rel=1e-4)


def test_a_loss_sees_each_step_once_with_its_place_and_its_log_probs(tmp_path):
    run = run_of(tmp_path, config=TrainConfig(lr=1e-2, micro_tokens=16, kl=0.1))
    table = demos(run)
    valid = table.known.copy()
    valid[1] = False
    now = run.logprobs(table.steps)
    seen = {}

    def loss(inputs):
        for place in inputs.step.unique().tolist():
            at = inputs.step == place
            index = int(inputs.index[place])
            assert index not in seen and float(inputs.advantages[place]) == float(index)
            seen[index] = inputs.logprobs[at].detach(), inputs.reference[at]
        assert inputs.count == valid.sum() and inputs.behaviour is None
        return inputs.logprobs.sum() * 0.0

    run.update(table.steps, range(len(table.steps)), valid, loss=loss)
    assert sorted(seen) == [i for i in range(len(table.steps)) if valid[i]]
    for index, (logp, reference) in seen.items():
        assert logp.tolist() == pytest.approx(now[index], abs=1e-5)
        assert reference.tolist() == pytest.approx(now[index], abs=1e-5)


@pytest.mark.parametrize("name", ["kl", "loss", "tokens", "grad_norm"])
def test_figures_of_a_loss_have_names_of_their_own(name, tmp_path):
    run = run_of(tmp_path)
    table = demos(run)
    with pytest.raises(ConfigError, match=f"figure '{name}' of a loss"):
        run.update(table.steps, table.outcome, table.known, loss=lambda inputs: (inputs.logprobs.sum(), {name: 1.0}))


@pytest.mark.parametrize("result", [1.0, None, torch.ones(2), (torch.ones(1), {})])
def test_a_loss_that_returns_no_number_is_refused(result, tmp_path):
    run = run_of(tmp_path)
    table = demos(run)
    with pytest.raises(ConfigError, match="returns one number as a tensor"):
        run.update(table.steps, table.outcome, table.known, loss=lambda inputs: result)


def branching():
    """Two episodes with three actions at each of two states."""
    steps = []
    for episode in (0, 1):
        state = tuple(range(2, 14 + episode))
        for at in (state, (*state, 7, 6, 5)):
            steps += [TokenStep(at, (3 + k, 4, 2 + k), (), episode) for k in range(3)]
    return steps


def test_steps_that_branch_off_one_another_are_scored_alike_and_read_once():
    trainer, steps = Trainer(tiny(), TrainConfig(lr=1e-2)), branching()
    apart, together = trainer.logprobs(steps), trainer.logprobs(steps, branches=True)
    for one, two, step in zip(apart, together, steps, strict=True):
        assert list(two) == pytest.approx(list(one), abs=1e-5)
        assert list(one) == pytest.approx(plainly(trainer.model, step), abs=1e-5)
    read = [
        sum(len(segment.ids) for rows in trainer.scores.batches(steps, tree=tree) for row in rows for segment in row)
        for tree in (False, True)
    ]
    assert read == [sum(step.size for step in steps), 2 * (12 + 3) + 1 + 2 * 6 * 3]


def test_a_model_that_takes_no_trees_reads_every_step_by_itself(monkeypatch):
    tried = []

    def differs(scorer, **how):
        tried.append(how)
        raise ConfigError("trainer.tree changes this model's log-probs")

    monkeypatch.setattr("swirl_env.algos.policy.check_layouts", differs)
    trainer, steps = Trainer(tiny(), TrainConfig(lr=1e-2)), branching()
    assert trainer.logprobs(steps, branches=True) == trainer.logprobs(steps)
    trainer.logprobs(steps, branches=True)
    assert tried == [{"packed": False, "tree": True}]  # once per model
