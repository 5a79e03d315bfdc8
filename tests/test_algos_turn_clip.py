"""PPO with one ratio per turn: against numbers by hand, and in the algorithms that use it."""

import math

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="the policy is a tiny Llama")

from test_algos_family_state import start  # noqa: E402
from test_algos_run import engine, taught, untrained, weights  # noqa: E402

from swirl_env.algos.objective import LossInputs  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.run_logs import read_log  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.algos.turn_clip import clipped_turns  # noqa: E402
from swirl_env.algos.turn_ppo import TurnPpo  # noqa: E402
from swirl_env.algos.vine import Vine  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402

__all__ = ["start", "taught"]  # fixtures


def part(differences, steps, advantages, behaviour=True):
    logprobs = torch.tensor([-1.0 + d for d in differences], dtype=torch.float64, requires_grad=True)
    return LossInputs(
        logprobs, torch.full_like(logprobs, -1.0).detach() if behaviour else None, None, torch.tensor(steps),
        torch.arange(len(advantages)), torch.tensor(advantages, dtype=torch.float64), 4.0, "sum",
    )  # fmt: skip


def test_turns_are_clipped_as_a_whole():
    # Turns of log-ratio .2 (two tokens), -.3, .4 and 0; the last of five has no token in this micro-batch.
    inputs = part([0.15, 0.05, -0.3, 0.4, 0.0], [0, 0, 1, 2, 3], [1.0, -2.0, -1.0, 3.0, 5.0])
    loss, figures = clipped_turns(inputs, 0.2)
    # exp(.2) = 1.22 is clipped to 1.2; exp(-.3) = .74 with a negative advantage to .8; exp(.4) with a negative one is not
    assert loss.item() == pytest.approx(-(1.2 * 1 + 0.8 * -2 + math.exp(0.4) * -1 + 3) / 4)
    assert figures["turns_clipped"].item() == pytest.approx(2 / 4)
    loss.backward()
    assert inputs.logprobs.grad.tolist() == pytest.approx([0, 0, 0, math.exp(0.4) / 4, -3 / 4])


def test_at_ratio_1_the_gradient_is_the_policy_gradient():
    inputs = part([0.0] * 4, [0, 0, 1, 2], [1.0, -2.0, 0.5])
    clipped_turns(inputs, 0.1)[0].backward()
    assert inputs.logprobs.grad.tolist() == pytest.approx([-1 / 4, -1 / 4, 2 / 4, -0.5 / 4])


def test_huge_ratios_stay_finite_and_unknown_ones_are_refused():
    loss, _ = clipped_turns(part([900.0, -900.0], [0, 1], [-1.0, 1.0]), 0.2)
    assert math.isfinite(loss.item())
    with pytest.raises(ConfigError, match="needs the log-probs at generation"):
        clipped_turns(part([0.0], [0], [1.0], behaviour=False), 0.2)


def run_of(folder, start, config, **agent_options):
    model, agent = untrained()
    model.load_state_dict(torch.load(start))
    for name, value in agent_options.items():
        setattr(agent, name, value)
    return Run(agent, engine(), Trainer(model, config), folder, Limits(updates=3), slots=16, seed=5)


ALGORITHMS = {
    "turn_ppo": lambda clip: TurnPpo(episodes_per_update=8, clip=clip),
    "vine": lambda clip: Vine(episodes_per_update=6, samples=2, clip=clip),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_several_optimizer_steps_clip_turns(name, start, tmp_path):
    ends, shares = {}, {}
    for clip in (0.0, 0.05, 0.9):
        run = run_of(tmp_path / str(clip), start, TrainConfig(lr=2e-3, epochs=4))
        ALGORITHMS[name](clip).train(run)
        ends[clip], shares[clip] = weights(run), [row.get("turns_clipped") for row in read_log(run.folder)]
    assert shares[0.0] == [None] * 3 and max(shares[0.05]) > max(shares[0.9]) >= 0
    assert not torch.equal(ends[0.0], ends[0.05]) and not torch.equal(ends[0.05], ends[0.9])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_optimizer_step_is_the_same_with_and_without_a_clip(name, start, tmp_path):
    one, two = (run_of(tmp_path / str(clip), start, TrainConfig(lr=1e-2)) for clip in (0.0, 0.2))
    ALGORITHMS[name](0.0).train(one)
    ALGORITHMS[name](0.2).train(two)
    assert torch.equal(weights(one), weights(two))


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({"loss": "ppo_clip"}, {}, r"trainer\.ppo_clip is about those of tokens"),
        ({"importance_cap": 2.0}, {}, r"trainer\.importance_cap is about those of tokens"),
        ({}, {"top_p": 0.9}, "sample with top_p=1"),
        ({}, {"temperature": 0.7}, "temperatures 0.7 and 1.0"),
    ],
)
def test_two_clips_and_two_distributions_are_refused(config, options, message, start, tmp_path):
    run = run_of(tmp_path, start, TrainConfig(lr=1e-2, epochs=2, **config), **options)
    with pytest.raises(ConfigError, match=message):
        TurnPpo(episodes_per_update=4).train(run)


def test_the_range_of_a_clip_is_checked():
    for kind in (TurnPpo, Vine):
        with pytest.raises(ConfigError, match=r"clip is a finite number, at least 0, below 1; got 1\.0"):
            kind(clip=1.0)
