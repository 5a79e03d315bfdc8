"""What an update does and leaves alone: schedule, dropout, norm, accumulation, precision, and what it refuses."""

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
transformers = pytest.importorskip("transformers", reason="the tests run a tiny Llama")
accelerate = pytest.importorskip("accelerate", reason="the trainer stands on accelerate")

from test_algos_run import ColourJudge, ColourTasks, EchoTool, untrained  # noqa: E402
from test_algos_trainer import some_steps, tiny, weights  # noqa: E402

from fakes import Evens  # noqa: E402
from swirl_env.algos.batch import TokenStep  # noqa: E402
from swirl_env.algos.grpo import Grpo  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.run_logs import read_log  # noqa: E402
from swirl_env.algos.steps import action_step, tabulate, token_step  # noqa: E402
from swirl_env.algos.swirl import Swirl  # noqa: E402
from swirl_env.algos.train_config import TrainConfig, default_lr, learning_rate  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.env import build_engine  # noqa: E402
from swirl_env.episodes.transcript import subtrajectories  # noqa: E402
from swirl_env.errors import ConfigError, TrainingError  # noqa: E402
from swirl_env.types import Action, Outcome, Step, SubTrajectory, Trajectory  # noqa: E402

ONE = ([TokenStep((1, 2, 3), (4, 5))], [1.0], [True])


def flat(number=1):
    return [TokenStep((1, 2, 3), (4, 5))] * number, [0.0] * number, [True] * number


def test_updates_without_signal_advance_the_schedule():
    config = TrainConfig(lr=1.0, schedule="linear", updates=4)
    trainer = Trainer(tiny(), config)
    rates = [trainer.update(*(flat() if u % 2 else ONE))["lr"] for u in range(4)]
    assert rates == pytest.approx([learning_rate(config, u) for u in range(4)])
    skipping = Trainer(tiny(), config)
    rates = [skipping.update([ONE[0][0]], [gain], [True])["lr"] for gain in (3e38, 1.0, 0.0, 3e38)]
    assert rates == pytest.approx([learning_rate(config, u) for u in range(4)])


@pytest.mark.parametrize("gain", [3e38, float("inf"), 1e300])
def test_a_loss_that_is_not_finite_changes_nothing_and_is_counted(gain):
    model = tiny()
    trainer = Trainer(model, TrainConfig(lr=1e-2, max_skipped=2))
    before = weights(model)
    metrics = [trainer.update(ONE[0], [gain], [True]) for _ in range(2)]
    assert [m["skipped"] for m in metrics] == [1, 1] and [m["stepped"] for m in metrics] == [0, 0]
    assert torch.equal(weights(model), before) and not trainer.optimizer.adamw.state
    assert trainer.update(*ONE)["stepped"] == 1  # a sound one starts the count over
    assert torch.isfinite(weights(model)).all() and not torch.equal(weights(model), before)
    with pytest.raises(TrainingError, match="not finite in 3 updates in a row"):
        for _ in range(3):
            trainer.update(ONE[0], [gain], [True])


@pytest.mark.parametrize("mode", [True, False])
def test_dropout_is_on_in_an_update_and_afterwards_as_before(mode):
    model = tiny()
    modes = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    model.model.register_forward_hook(lambda module, *_: modes.append(module.training))
    trainer = Trainer(model, TrainConfig(lr=1e-2))
    model.train(mode)
    modes.clear()
    trainer.update(*ONE)
    assert modes and all(modes)
    assert all(module.training is mode for module in model.modules())
    with pytest.raises(TrainingError):
        for _ in range(9):
            trainer.update(ONE[0], [float("inf")], [True])
    assert model.training is mode


def colours(judge=None, history="full"):
    options = {"tools": [EchoTool()], "judge": judge or ColourJudge(), "prompt": "question", "max_steps": 3}
    return build_engine(ColourTasks(), history=history, **options)


def prepared(folder, config=None, judge=None, limits=None, accelerator=None, **kwargs):
    torch.manual_seed(0)
    model, agent = untrained()
    for key, value in kwargs.items():
        setattr(agent, key, value)
    trainer = Trainer(model, config or TrainConfig(lr=1e-2), accelerator)
    return Run(agent, colours(judge), trainer, folder, limits or Limits(updates=2), slots=8)


def test_a_count_divides_the_loss_and_is_no_metric(tmp_path):
    losses = {}
    for count in (None, 1.0, 4.0):
        run = prepared(tmp_path / str(count))
        run.update(
            [TokenStep((1, 2, 3), (4, 5)), TokenStep((1, 2), (3,), (), 1)], [1.0, 1.0], [True, True], count=count, extra=7.0
        )
        (row,) = read_log(tmp_path / str(count))
        assert "count" not in row and row["extra"] == 7.0
        losses[count] = row["loss"]
    assert losses[1.0] == pytest.approx(2 * losses[None]) and losses[4.0] == pytest.approx(losses[None] / 2)


def test_skipping_flat_states_leaves_the_gradient_as_it_was(tmp_path):
    rows = {}
    for skip in (False, True):
        options = {"questions": 16, "filter": "none", "states_per_update": 24, "samples_per_state": 3}
        run = prepared(tmp_path / str(skip), judge=Evens(), limits=Limits(updates=3))
        Swirl(**options, skip_flat=skip).train(run)
        rows[skip] = read_log(tmp_path / str(skip)), weights(run.agent.model)
    assert 0 < rows[False][0][0]["signal"] < 1  # some states are flat, and some are not
    for plain, skipped in zip(rows[False][0], rows[True][0], strict=True):
        assert skipped["loss"] == pytest.approx(plain["loss"], rel=1e-5)
        assert skipped["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-4)
    torch.testing.assert_close(rows[True][1], rows[False][1], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="with baseline='none' they are not 0"):
        Swirl(skip_flat=True, baseline="none")


def trajectory_with(text, history="full"):
    """One step of an episode whose action is `text`, sampled with its ids."""
    torch.manual_seed(0)
    _, agent = untrained()
    episodes = colours(history=history)
    state = episodes.begin(ColourTasks()[0])
    ids = agent.renderer.text_ids(text)
    decoded = agent.renderer.decode(ids)
    action = Action(decoded, ids, tuple(-0.1 * (i + 1) for i in range(len(ids))), agent.renderer.ids(state))
    (moved,) = episodes.step([state], [action])
    assert moved.step is not None
    return agent.renderer, state, moved.step, action


@pytest.mark.parametrize(
    ("text", "trained"),
    [
        ("<echo> red </echo> blue blue", "<echo> red </echo>"),
        ("<answer> red </answer> <echo> blue </echo>", "<answer> red </answer>"),
        ("green <echo> red </echo>", "green <echo> red </echo>"),
        ("red blue green", "red blue green"),
    ],
)
@pytest.mark.parametrize("history", ["full", "calls"])
def test_text_after_the_first_complete_call_carries_no_loss(text, trained, history):
    renderer, state, step, action = trajectory_with(text, history)
    sub = SubTrajectory(state, step.action, step.call, step.result)
    for made in (token_step(sub, renderer), action_step(sub, renderer)):
        assert renderer.decode(made.token_ids) == renderer.decode(renderer.text_ids(trained))
        assert made.token_ids == action.token_ids[: len(made.token_ids)]
        assert made.behaviour == action.logprobs[: len(made.token_ids)]
    # The same for an action without ids, such as a demonstration.
    bare = SubTrajectory(state, Action(step.action.text), step.call, step.result)
    assert renderer.decode(token_step(bare, renderer).token_ids) == renderer.decode(renderer.text_ids(trained))


def test_trained_tokens_are_those_that_the_next_state_begins_with():
    renderer, state, step, _ = trajectory_with("<echo> red </echo> blue blue")
    settings = state.settings
    last = Step(Action("<answer> red </answer>"), step.call, None, "", step.verdict)
    trajectory = Trajectory(state.task, settings, state.turns[0].text, (step, last), "answer", Outcome())
    first, second = tabulate([trajectory], renderer).steps
    assert second.prompt_ids[: len(first.prompt_ids + first.token_ids)] == first.prompt_ids + first.token_ids
    assert len(list(subtrajectories(trajectory))) == 2


def test_ratios_use_the_distribution_that_was_sampled_from():
    renderer, state, step, action = trajectory_with("<echo> red </echo>")
    sampled = tuple(-0.2 * (i + 1) for i in range(len(action.token_ids)))
    tempered = Action(action.text, action.token_ids, action.logprobs, action.prompt_ids, behaviour_logprobs=sampled)
    assert token_step(SubTrajectory(state, tempered, step.call), renderer).behaviour == sampled
    assert token_step(SubTrajectory(state, action, step.call), renderer).behaviour == action.logprobs


@pytest.mark.parametrize(
    ("sampling", "match"),
    [
        ({"top_p": 0.9}, "sampling with top_p=0.9 cuts some off"),
        ({"temperature": 0.7}, "the agent samples at temperature 0.7, the trainer scores at 1.0"),
        ({"temperature": 0.0}, "samples at temperature 0.0"),
    ],
)
def test_ratios_of_two_distributions_are_refused(sampling, match, tmp_path):
    with pytest.raises(ConfigError, match=match):
        prepared(tmp_path, TrainConfig(loss="ppo_clip"), **sampling)
    prepared(tmp_path, TrainConfig(), **sampling)  # without ratios nothing is compared


def test_ratios_of_tempered_rollouts_are_one(tmp_path):
    run = prepared(tmp_path, TrainConfig(lr=1e-2, loss="ppo_clip", temperature=0.6), temperature=0.6, limits=Limits(updates=1))
    table = tabulate(run.rollouts(6), run.agent.renderer)
    for step, now in zip(table.steps, run.trainer.logprobs(table.steps), strict=True):
        assert step.behaviour == pytest.approx(now, abs=1e-4)
    assert Grpo(samples=2).samples == 2


def test_gradient_accumulation_of_the_launcher_does_not_divide_the_gradient(monkeypatch, caplog):
    plain = Trainer(tiny(), TrainConfig(lr=1e-2)).update(*some_steps(1))
    for steps in ("4", "7"):
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", steps)
        metrics = Trainer(tiny(), TrainConfig(lr=1e-2), accelerate.Accelerator(cpu=True)).update(*some_steps(1))
        assert metrics["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-6)
    assert "gradient_accumulation_steps=7" in caplog.text


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_splitting_the_weights_is_refused_at_the_start(kind, monkeypatch):
    kinds = accelerate.utils.DistributedType
    monkeypatch.setattr(accelerate.Accelerator, "distributed_type", property(lambda self: getattr(kinds, kind)))
    with pytest.raises(ConfigError, match=f"{kind} is asked for, which splits the weights"):
        Trainer(tiny(), TrainConfig())


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_splitting_the_weights_is_refused_on_cpus_too_where_accelerate_is_silent(kind, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(ConfigError, match=f"{kind} is asked for"):
        Trainer(tiny(), TrainConfig())


# bfloat16 weights.


def test_small_steps_of_bfloat16_weights_add_up():
    plain, model = tiny().bfloat16(), tiny().bfloat16()
    start = weights(model)
    trainer = Trainer(model, TrainConfig(lr=1e-6))
    # What happens without float32 copies: nearly every step is rounded away.
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0)
    for u in range(20):
        trainer.update(*some_steps(u))
        for ours, other in zip(model.parameters(), plain.parameters(), strict=True):
            other.grad = torch.ones_like(ours)
        adamw.step()
    lost = (weights(plain) == weights(tiny().bfloat16())).float().mean().item()
    copies = torch.cat([master.detach().flatten() for _, _, master in trainer.optimizer.copies])
    assert copies.dtype == torch.float32 and lost > 0.5
    moved = (copies - start.float()).abs() > 0
    assert moved.float().mean() > 0.95
    # The policy is the rounded copy, whatever way it came.
    assert torch.equal(weights(model), copies.bfloat16())


def test_weights_of_float16_are_refused():
    with pytest.raises(ConfigError, match="float16 weights cannot be trained"):
        Trainer(tiny().half(), TrainConfig())


def test_a_model_without_trainable_weights_is_refused():
    with pytest.raises(ConfigError, match="No weight of this model is trainable"):
        Trainer(tiny().requires_grad_(False), TrainConfig())


def test_learning_rates_by_kind_of_policy():
    peft = pytest.importorskip("peft", reason="LoRA comes from peft")
    assert Trainer(tiny(), TrainConfig()).lr == 1e-3
    assert Trainer(peft.get_peft_model(tiny(), peft.LoraConfig(target_modules=["q_proj"])), TrainConfig()).lr == 1e-4
    assert default_lr(adapters=False, parameters=135_000_000) == 1e-6
    assert Trainer(tiny(), TrainConfig(lr=0.5)).lr == 0.5


@pytest.fixture
def fresh_accelerate():
    """accelerate keeps one configuration per process; a test of another begins and ends without any."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def test_mixed_precision_reaches_rollouts(tmp_path, fresh_accelerate):
    run = prepared(tmp_path, accelerator=accelerate.Accelerator(cpu=True, mixed_precision="bf16"))
    seen = []
    run.agent.model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    trajectories = run.rollouts(4)
    assert seen and set(seen) == {torch.bfloat16}
    run.resample([sub.state for sub in subtrajectories(trajectories[0])], 2)
    assert set(seen) == {torch.bfloat16}
