"""What the step-credit family keeps next to the policy: resumed runs end with the same bits, two processes as one does."""

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="the policy is a tiny Llama")

from test_algos_run import engine, taught, untrained, weights  # noqa: E402

from swirl_env.algos.critic import Critic  # noqa: E402
from swirl_env.algos.implicit_prm import ImplicitPrm, log_sums  # noqa: E402
from swirl_env.algos.pivot import Pivot, pivots_of  # noqa: E402
from swirl_env.algos.run import Limits, Run  # noqa: E402
from swirl_env.algos.slate import Slate  # noqa: E402
from swirl_env.algos.step_dpo import StepDpo  # noqa: E402
from swirl_env.algos.steps import tabulate  # noqa: E402
from swirl_env.algos.trace import Trace  # noqa: E402
from swirl_env.algos.train_config import TrainConfig  # noqa: E402
from swirl_env.algos.trainer import Trainer  # noqa: E402
from swirl_env.algos.tree_grpo import TreeGrpo  # noqa: E402
from swirl_env.algos.turn_ppo import TurnPpo  # noqa: E402
from swirl_env.algos.vine import Vine  # noqa: E402
from swirl_env.errors import TrainingError  # noqa: E402
from two_processes import run_script  # noqa: E402

__all__ = ["taught"]  # a fixture

WITH_STATE = {
    "turn_ppo": (TurnPpo, {"episodes_per_update": 8, "critic_steps": 3, "reward_weight": 0.5}),
    "implicit_prm": (ImplicitPrm, {"questions_per_update": 2, "samples": 4, "beta": 0.5}),
    "istar": (ImplicitPrm, {"questions_per_update": 2, "samples": 4, "rule": "istar", "objective": "preference"}),
    "pivot": (Pivot, {"questions": 12, "states_per_update": 4, "samples": 4}),
    "trace": (Trace, {"questions_per_update": 2, "samples": 4}),
    "step_dpo": (StepDpo, {"episodes_per_update": 6}),
}


@pytest.fixture(scope="module")
def start(taught, tmp_path_factory):
    """A file with the weights of a policy that is sometimes right: outcomes and verdicts differ."""
    file = tmp_path_factory.mktemp("start") / "start.pt"
    torch.save(taught[0], file)
    return file


def started(folder, start, updates=6, accelerator=None, **options):
    model, agent = untrained()
    model.load_state_dict(torch.load(start))
    trainer = Trainer(model, TrainConfig(lr=1e-2, micro_tokens=200), accelerator)
    return Run(agent, engine(), trainer, folder, Limits(updates=updates), slots=16, seed=5, save_every=2, **options)


def flat(state):
    """All tensors of a nested state, by their places in it."""
    if isinstance(state, torch.Tensor):
        return {"": state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {f"{key}/{rest}": tensor for key, value in items for rest, tensor in flat(value).items()}


def registered(run):
    return {name: flat(thing.state_dict()) for name, thing in run.files._things.items()}


@pytest.mark.parametrize("name", WITH_STATE)
def test_a_resumed_run_ends_with_the_same_bits_of_policy_critic_and_reward_model(name, start, tmp_path):
    kind, options = WITH_STATE[name]
    straight = started(tmp_path / "a", start)
    kind(**options).train(straight)
    killed = started(tmp_path / "b", start, updates=5)  # its last checkpoint is that of update 4
    kind(**options).train(killed)
    resumed = started(tmp_path / "b", start, resume=True)
    assert resumed.spent.updates == 4
    kind(**options).train(resumed)
    assert torch.equal(weights(straight), weights(resumed))
    one, two = registered(straight), registered(resumed)
    assert one.keys() == two.keys() and bool(one) == (name not in ("trace", "step_dpo"))
    for thing in one:
        assert one[thing].keys() == two[thing].keys()
        assert all(torch.equal(tensor, two[thing][key]) for key, tensor in one[thing].items()), thing
    assert (tmp_path / "a/metrics.jsonl").read_text() == (tmp_path / "b/metrics.jsonl").read_text()


@pytest.mark.parametrize("objective", ["entropy", "preference"])
def test_a_reward_model_learns_which_episodes_are_right(objective, start, tmp_path):
    run = started(tmp_path, start)
    algorithm = ImplicitPrm(beta=0.5, objective=objective, prm_lr=3e-3)
    prm = algorithm._reward_model(run)
    policy = weights(run).clone()
    table = tabulate(run.rollouts(4, 8), run.agent.renderer)
    first = log_sums(run.logprobs(table.steps, reference=True, trainer=prm))
    assert log_sums(run.logprobs(table.steps)).tolist() == pytest.approx(first.tolist(), abs=1e-5)  # it begins as the policy
    errors = [algorithm._fit(run, prm, table, log_sums(run.logprobs(table.steps, trainer=prm)) - first) for _ in range(45)]
    assert errors[0] > 0.2 and errors[-1] < errors[0] / 3, errors
    assert torch.equal(weights(run), policy)
    assert log_sums(run.logprobs(table.steps, reference=True, trainer=prm)).tolist() == pytest.approx(first.tolist(), abs=1e-6)


def test_a_critic_learns_what_features_tell():
    features = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    targets = (features[:, 0] > 0).float().numpy()
    critic = Critic(8, width=16, lr=1e-2)
    assert critic.values(features).tolist() == [0.0] * 64
    valid = [True] * 32 + [False] * 32
    before = critic.fit(features, [*targets[:32], *[float("nan")] * 32], valid, 1)
    for _ in range(30):
        after = critic.fit(features, targets, valid, 10)
    assert after < before / 10
    assert critic.fit(features, targets, [False] * 64, 5) == 0.0
    twin = Critic(8, width=16, lr=1e-2, seed=9)
    twin.load_state_dict(critic.state_dict())
    assert twin.values(features).tolist() == critic.values(features).tolist()


def test_pivots_are_states_whose_rewards_differ_and_are_not_high():
    import numpy as np

    nan = float("nan")
    rewards, state = np.array([1, 0, 1, 1, 1, 1, 0, nan, 0, 0, 1, 1, 1, 0]), np.array([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4])
    assert pivots_of(rewards, np.isfinite(rewards), state, 0.7) == [0, 2]
    assert pivots_of(rewards, np.isfinite(rewards), state, 1.0) == [0, 2, 4]


def test_no_pivots_end_the_run_with_a_reason(start, tmp_path):
    with pytest.raises(TrainingError, match="at no state did the actions of the first policy differ in reward"):
        Pivot(questions=4, most_mean=-1.0).train(started(tmp_path, start))


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[1])
import json, torch
from pathlib import Path
from accelerate import Accelerator
from test_algos_family_state import SHARED, flat, registered, started, weights

accelerator = Accelerator(cpu=True)
folder = Path(sys.argv[2])
for name, (kind, options) in SHARED.items():
    run = started(folder / name, sys.argv[3], updates=2, accelerator=accelerator)
    kind(**options).train(run)
    torch.save({"policy": weights(run), **registered(run)}, folder / f"{name}-{accelerator.process_index}.pt")
    (folder / f"{name}-{accelerator.process_index}.json").write_text(json.dumps([run.spent.sampled_tokens, run.spent.episodes]))
    run.trainer.scorer = run.trainer.bare
    for thing in run.files._things.values():
        if hasattr(thing, "scorer"):
            thing.scorer = thing.bare
    accelerator.free_memory()
accelerator.end_training()
"""

SHARED = {
    **WITH_STATE,
    "vine": (Vine, {"episodes_per_update": 4, "samples": 2}),
    "tree_grpo": (TreeGrpo, {"questions_per_update": 2, "trees": 2, "nodes": 2, "iterations": 2}),
    "slate": (Slate, {"episodes_per_update": 4}),
}
"""Algorithms that branch, resample, or keep a state."""


@pytest.mark.slow
def test_two_processes_end_as_one_does(start, tmp_path):
    run_script(tmp_path / "one", 1, SCRIPT, start)
    run_script(tmp_path / "two", 2, SCRIPT, start)
    for name in SHARED:
        alone = flat(torch.load(tmp_path / f"one/{name}-0.pt"))
        costs = {(tmp_path / f"{folder}-{rank}.json").read_text() for folder, rank in ((f"one/{name}", 0), (f"two/{name}", 0))}
        assert len(costs) == 1, (name, costs)
        both = [flat(torch.load(tmp_path / f"two/{name}-{rank}.pt")) for rank in (0, 1)]
        for tensors in both:
            assert tensors.keys() == alone.keys()
            for key, tensor in alone.items():
                torch.testing.assert_close(tensors[key], tensor, atol=1e-4, rtol=1e-3, msg=f"{name}: {key}")
