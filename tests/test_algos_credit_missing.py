"""A return that contains a failed or unscored step is unknown: it leaves the loss and every baseline."""

import itertools

import numpy as np
import pytest

from swirl_env.algos import credit

pytest.importorskip("torch", reason="the algorithms train with torch")

from swirl_env.algos.grpo import Grpo
from swirl_env.algos.reinforce import Reinforce
from swirl_env.algos.return_to_go import ReturnToGo
from swirl_env.algos.rft import Rft
from swirl_env.algos.swirl import Swirl
from swirl_env.algos.train_config import TrainConfig
from swirl_env.errors import ConfigError

EPISODE, POSITION = [0, 0, 0, 1, 1], [0, 1, 2, 0, 1]
REWARD = np.array([1.0, 2, 4, 8, 16])


def by_definition(valid, gamma):
    """Returns and their validity, from the definition: a sum over all later steps of the episode, each of them known."""
    returns, complete = np.zeros(5), np.zeros(5, dtype=bool)
    for i, j in itertools.product(range(5), range(5)):
        if EPISODE[i] == EPISODE[j] and POSITION[j] >= POSITION[i]:
            returns[i] += gamma ** (POSITION[j] - POSITION[i]) * REWARD[j]
    for i in range(5):
        later = [j for j in range(5) if EPISODE[j] == EPISODE[i] and POSITION[j] >= POSITION[i]]
        complete[i] = all(valid[j] for j in (later if gamma else [i]))
    return np.where(complete, returns, 0.0), complete


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_a_return_with_an_unknown_term_is_invalid(gamma):
    for valid in itertools.product([True, False], repeat=5):
        expected, complete = by_definition(valid, gamma)
        rewards = np.where(valid, REWARD, np.nan)
        assert credit.complete_returns(valid, EPISODE, POSITION, gamma=gamma).tolist() == complete.tolist()
        assert credit.return_to_go(rewards, valid, EPISODE, POSITION, gamma=gamma).tolist() == expected.tolist()


def test_a_failed_last_verdict_is_no_zero_for_the_steps_before_it():
    # The seen case: the last step of episode 0 failed. As a zero its steps would get 3 and 2.
    valid = [True, True, False, True, True]
    assert credit.return_to_go(REWARD, valid, EPISODE, POSITION).tolist() == [0, 0, 0, 24, 16]
    assert credit.return_to_go(REWARD, valid, EPISODE, POSITION, missing="skip").tolist() == [3, 2, 0, 24, 16]


def test_an_unknown_return_leaves_the_baseline_of_others():
    valid = [True, True, False, True, True]
    # Alone at its position, episode 1 has no others to be compared with.
    assert credit.return_to_go(REWARD, valid, EPISODE, POSITION, baseline="position").tolist() == [0, 0, 0, 24, 16]


def test_a_difference_with_an_unknown_term_is_unknown():
    shaped = credit.shaped([1.0, np.nan, 1.0], [0.5, 0.5, np.nan], [1.0, 1.0, 1.0])
    assert np.isfinite(shaped).tolist() == [True, False, False] and shaped[0] == 1.5


@pytest.mark.parametrize("gamma", [float("nan"), float("inf"), -0.1, 1.01])
def test_a_discount_out_of_range_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma is a number from 0 to 1"):
        credit.return_to_go(REWARD, [True] * 5, EPISODE, POSITION, gamma=gamma)
    with pytest.raises(ValueError, match="gamma is a number from 0 to 1"):
        credit.shaped([1.0], [0.0], [0.0], gamma=gamma)
    with pytest.raises(ConfigError, match="gamma is a finite number"):
        ReturnToGo(gamma=gamma)


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        (ReturnToGo, {"outcome_weight": float("nan")}, "outcome_weight is a finite number"),
        (ReturnToGo, {"missing": "zero"}, "missing is one of invalid, skip"),
        (ReturnToGo, {"episodes_per_update": 0}, "episodes_per_update is a whole number, 1 or more; got 0"),
        (Reinforce, {"episodes_per_update": -1}, "1 or more"),
        (Reinforce, {"baseline": "mode"}, "baseline is one of"),
        (Grpo, {"samples": 1}, "samples is a whole number, 2 or more"),
        (Rft, {"questions": 0}, "questions is a whole number"),
        (Rft, {"memory": -1}, "memory is a whole number, 0 or more"),
        (Swirl, {"samples_per_state": 0}, "samples_per_state"),
        (Swirl, {"updates_per_round": 0}, "updates_per_round"),
        (Swirl, {"filter": "good"}, "filter is one of"),
        (TrainConfig, {"lr": float("nan")}, "lr is a finite number, above 0; got nan"),
        (TrainConfig, {"lr": 0.0}, "lr is a finite number"),
        (TrainConfig, {"betas": (0.9, 1.0)}, r"betas\[1\] is a finite number, at least 0, below 1"),
        (TrainConfig, {"kl": float("inf")}, "kl is a finite number"),
        (TrainConfig, {"max_grad_norm": -1.0}, "max_grad_norm"),
        (TrainConfig, {"clip": float("nan")}, "clip"),
        (TrainConfig, {"temperature": 0.0}, "temperature"),
        (TrainConfig, {"micro_tokens": 0}, "micro_tokens"),
        (TrainConfig, {"loss": "ppo"}, "loss is one of policy_gradient, ppo_clip"),
    ],
)
def test_options_out_of_range_are_refused_in_one_sentence(make, options, match):
    with pytest.raises(ConfigError, match=match):
        make(**options)
