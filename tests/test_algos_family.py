"""The step-credit family on the toy of `test_algos_run`: every algorithm improves the policy, and what it says is so."""

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="the policy is a tiny Llama")

from test_algos_run import prepared, success, taught  # noqa: E402

from swirl_env.algos.episode_reward import EpisodeReward  # noqa: E402
from swirl_env.algos.gigpo import Gigpo  # noqa: E402
from swirl_env.algos.hgpo import Hgpo  # noqa: E402
from swirl_env.algos.igpo import Igpo  # noqa: E402
from swirl_env.algos.implicit_prm import ImplicitPrm  # noqa: E402
from swirl_env.algos.mt_grpo import MtGrpo, MtGrpoUnbiased  # noqa: E402
from swirl_env.algos.pivot import Pivot  # noqa: E402
from swirl_env.algos.run import Limits  # noqa: E402
from swirl_env.algos.run_logs import read_log  # noqa: E402
from swirl_env.algos.slate import Slate  # noqa: E402
from swirl_env.algos.step_dpo import StepDpo  # noqa: E402
from swirl_env.algos.trace import Trace  # noqa: E402
from swirl_env.algos.tree_grpo import TreeGrpo  # noqa: E402
from swirl_env.algos.turn_ppo import TurnPpo  # noqa: E402
from swirl_env.algos.vine import Vine  # noqa: E402
from swirl_env.errors import ConfigError  # noqa: E402

__all__ = ["taught"]  # a fixture

GROUPS = {"questions_per_update": 4, "samples": 8}
ALGORITHMS = {
    "episode_reward": (EpisodeReward, {"episodes_per_update": 32}, 2e-3),
    "mt_grpo": (MtGrpo, GROUPS, 2e-3),
    "mt_grpo_unbiased": (MtGrpoUnbiased, GROUPS, 2e-3),
    "gigpo": (Gigpo, GROUPS, 2e-3),
    "gigpo-state": (Gigpo, {**GROUPS, "anchor": "state"}, 2e-3),
    "hgpo": (Hgpo, GROUPS, 2e-3),
    "igpo": (Igpo, GROUPS, 2e-3),
    "trace": (Trace, {**GROUPS, "norm": "joint"}, 2e-3),
    "vine": (Vine, {"episodes_per_update": 24, "samples": 3}, 2e-3),
    "vine-soft": (Vine, {"episodes_per_update": 16, "samples": 3, "values": "soft"}, 2e-3),
    "tree_grpo": (TreeGrpo, {"questions_per_update": 8, "trees": 2, "nodes": 2}, 1e-3),
    "slate": (Slate, {"episodes_per_update": 12}, 2e-3),
    "pivot": (Pivot, {"questions": 32}, 2e-3),
    "turn_ppo": (TurnPpo, {"episodes_per_update": 32}, 2e-3),
    "step_dpo": (StepDpo, {"episodes_per_update": 12, "beta": 0.5}, 2e-3),
    "implicit_prm": (ImplicitPrm, GROUPS, 2e-3),
}
UPDATES = dict.fromkeys(["episode_reward", "mt_grpo", "mt_grpo_unbiased", "gigpo", "hgpo", "pivot", "step_dpo"], 24)
"""Enough for a margin over what the test asks; the others get 40."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_improves_the_policy(name, taught, tmp_path):
    kind, options, lr = ALGORITHMS[name]
    updates = UPDATES.get(name, 40)
    run = prepared(taught, tmp_path, lr=lr, limits=Limits(updates=updates))
    kind(**options).train(run)
    after = success(run.agent)
    assert after > taught[1] + 0.1, (taught[1], after)
    rows = read_log(run.folder)
    assert [row["update"] for row in rows] == list(range(1, updates + 1))
    measure = "reward" if name == "pivot" else "success"  # pivots are states; no episode is played on from them
    assert rows[-1][measure] > rows[0][measure]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MtGrpo, {"samples": 1}, "samples is a whole number, 2 or more; got 1"),
        (MtGrpoUnbiased, {"weight": float("nan")}, "weight is a finite number"),
        (MtGrpo, {"questions_per_update": 0}, "questions_per_update is a whole number"),
        (Gigpo, {"anchor": "similar"}, "anchor is one of observation, state; got 'similar'"),
        (Gigpo, {"gamma": 1.5}, "gamma is a finite number, at least 0, at most 1"),
        (Gigpo, {"omega": -1.0}, "omega is a finite number"),
        (Hgpo, {"history": -1}, "history is a whole number, 0 or more"),
        (Hgpo, {"alpha": float("inf")}, "alpha is a finite number"),
        (Igpo, {"norm": "none"}, "norm is one of joint, separate; got 'none'"),
        (Trace, {"discount": 2.0}, "discount is a finite number, at least 0, at most 1"),
        (Vine, {"values": "medium"}, "values is one of advantage, soft, hard; got 'medium'"),
        (Vine, {"samples": 0}, "samples is a whole number, 1 or more; got 0"),
        (TreeGrpo, {"trees": 1, "iterations": 0}, "A single leaf per question has nothing to be compared with"),
        (TreeGrpo, {"iterations": -1}, "iterations is a whole number, 0 or more"),
        (Slate, {"samples": 1}, "samples is a whole number, 2 or more; got 1"),
        (Pivot, {"profile": 1}, "profile is a whole number, 2 or more"),
        (Pivot, {"most_mean": float("nan")}, "most_mean is a finite number"),
        (Pivot, {"filter": "best"}, "filter is one of"),
        (TurnPpo, {"critic_lr": 0.0}, "critic_lr is a finite number, above 0"),
        (TurnPpo, {"lam": -0.1}, "lam is a finite number"),
        (StepDpo, {"beta": 0.0}, "beta is a finite number, above 0"),
        (ImplicitPrm, {"rule": "other"}, "rule is one of prime, istar; got 'other'"),
        (ImplicitPrm, {"objective": "mse"}, "objective is one of entropy, preference; got 'mse'"),
        (ImplicitPrm, {"prm_lr": -1.0}, "prm_lr is a finite number"),
    ],
)
def test_options_are_checked(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        kind(**options)
