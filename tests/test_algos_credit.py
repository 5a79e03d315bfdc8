"""Credit rules: literal numbers, and the mean of each estimator against the gradient enumerated exactly by other code."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enumerated import (
    STEP_REWARD,
    THETA,
    columns,
    expected_estimate,
    numeric_gradient,
    probabilities,
    score,
    value_of_outcomes,
    value_of_step_rewards,
)
from swirl_env.algos import credit

NAN = float("nan")


def test_step_rewards_by_hand():
    assert credit.step_reward([1, NAN, 0.5], [True, False, True]).tolist() == [1, 0, 0.5]
    # state 0: 1, 0, 0.5 -> others' means 0.25, 0.75, 0.5; state 1: a lone sample keeps its reward
    a = credit.leave_one_out([1, 0, 0.5, 0.7, NAN], [1, 1, 1, 1, 0], [0, 0, 0, 1, 1])
    assert a.tolist() == pytest.approx([0.75, -0.75, 0, 0.7, 0])


def test_outcomes_by_hand():
    # episodes: 0 (3 steps, won), 1 (1 step, lost), 2 (2 steps, won); means run over episodes, not over steps
    episode, won = [0, 0, 0, 1, 2, 2], [1, 1, 1, 0, 1, 1]
    valid = [True] * 6
    assert credit.outcome(won, valid, episode, baseline="mean").tolist() == pytest.approx([1 / 3] * 3 + [-2 / 3] + [1 / 3] * 2)
    assert credit.outcome(won, valid, episode).tolist() == pytest.approx([0.5] * 3 + [-1] + [0.5] * 2)
    assert credit.outcome(won, valid, episode, baseline="none").tolist() == won
    grouped = credit.outcome(won, valid, episode, group=[7, 7, 7, 7, 8, 8])
    assert grouped.tolist() == [1, 1, 1, -1, 1, 1]
    with pytest.raises(ValueError, match="got 'median'"):
        credit.outcome(won, valid, episode, baseline="median")


def test_episode_rewards_by_hand():
    # mean step rewards 0.5 and 1, outcomes 1 and 0, weight 2: 2.5 and 1, each minus the other
    rewards, episode, won = [1, 0, 1], [4, 4, 9], [1, 1, 0]
    yes = [True] * 3
    advantages, valid = credit.episode_reward(rewards, yes, won, yes, episode, weight=2)
    assert advantages.tolist() == pytest.approx([1.5, 1.5, -1.5])
    assert valid.all()
    none, _ = credit.episode_reward(rewards, yes, won, yes, episode, weight=2, baseline="none")
    assert none.tolist() == pytest.approx([2.5, 2.5, 1])


def test_an_episode_reward_with_an_unknown_part_is_unknown():
    rewards, episode, won = [1, NAN, 1, 0], [0, 0, 1, 2], [1, 1, 0, NAN]
    scored, known = [True, False, True, True], [True, True, True, False]
    advantages, valid = credit.episode_reward(rewards, scored, won, known, episode, weight=2)
    assert valid.tolist() == [False, False, True, False]
    assert advantages.tolist() == [0, 0, 1, 0]  # nobody is left to compare with
    advantages, valid = credit.episode_reward(rewards, scored, won, known, episode, weight=0)
    assert valid.tolist() == [False, False, True, True]
    assert advantages.tolist() == [0, 0, 1, -1]


def test_group_normalised_by_hand():
    a = credit.group_normalised([1, 1, 0, 0.5], [1, 1, 1, 1], [0, 0, 1, 2], [0, 0, 0, 0], eps=0)
    spread = np.sqrt(((1 - 0.5) ** 2 + 0.5**2) / 3)
    assert a.tolist() == pytest.approx([0.5 / spread, 0.5 / spread, -0.5 / spread, 0])
    assert credit.group_normalised([1, 1], [1, 1], [0, 1], [0, 0]).tolist() == [0, 0]


def test_return_to_go_by_hand():
    rewards, episode, position = [1, 2, 4, 8, 16], [0, 0, 0, 1, 1], [0, 1, 2, 0, 1]
    valid = [True] * 5
    assert credit.return_to_go(rewards, valid, episode, position).tolist() == [7, 6, 4, 24, 16]
    assert credit.return_to_go(rewards, valid, episode, position, gamma=0.5).tolist() == [3, 4, 4, 16, 16]
    assert credit.return_to_go(rewards, valid, episode, position, baseline="position").tolist() == [-17, -10, 4, 17, 10]
    holed = credit.return_to_go(rewards, [1, 0, 1, 1, 1], episode, position, gamma=0.5, missing="skip")
    assert holed.tolist() == [2, 0, 4, 16, 16]


def test_shaping_telescopes():
    phi = [0.1, 0.7, 0.4]
    shaped = credit.shaped([1, 2, 3], phi, [*phi[1:], 0.0])
    assert shaped.sum() == pytest.approx(6 - phi[0])


FLAT = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, -2.0]), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
    )
)


@given(FLAT)
def test_steps_without_a_verdict_change_nothing_for_the_others(data):
    rewards, valid, key, place = (np.asarray(column) for column in data)
    group = key % 2
    rules = [
        lambda r, v, k, p, g: credit.step_reward(r, v),
        lambda r, v, k, p, g: credit.leave_one_out(r, v, k),
        lambda r, v, k, p, g: credit.outcome(r, v, k),
        lambda r, v, k, p, g: credit.outcome(r, v, k, baseline="mean", group=g),
        lambda r, v, k, p, g: credit.group_normalised(r, v, k, g),
        lambda r, v, k, p, g: credit.return_to_go(r, v, k, p, gamma=0.9, missing="skip"),
    ]
    outcomes = np.array([rewards[np.flatnonzero(valid & (key == k))[0]] if (valid & (key == k)).any() else 0 for k in key])
    for i, rule in enumerate(rules):
        r = outcomes if i in (2, 3, 4) else rewards
        whole = rule(np.where(valid, r, NAN), valid, key, place, group)
        without = rule(r[valid], valid[valid], key[valid], place[valid], group[valid])
        assert (whole[~valid] == 0).all()
        np.testing.assert_allclose(whole[valid], without, atol=1e-12)


def test_a_valid_reward_must_be_a_number():
    with pytest.raises(ValueError, match="not finite"):
        credit.step_reward([NAN], [True])
    with pytest.raises(ValueError, match="one length"):
        credit.step_reward([1.0], [True, False])


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_reinforce_is_unbiased_with_episodes_of_any_length(baseline):
    def rule(batch, flat):
        valid, episode, _, _, outcomes = columns(batch, flat)
        return credit.outcome(outcomes, valid, episode, baseline=baseline)

    expected = numeric_gradient(value_of_outcomes, THETA)
    np.testing.assert_allclose(expected_estimate(rule, 3), expected, atol=1e-8)


def test_a_mean_over_the_own_episode_shrinks_the_gradient_by_1_minus_1_over_m():
    def rule(batch, flat):
        valid, episode, _, _, outcomes = columns(batch, flat)
        return credit.outcome(outcomes, valid, episode, baseline="mean")

    expected = numeric_gradient(value_of_outcomes, THETA) * (1 - 1 / 3)
    np.testing.assert_allclose(expected_estimate(rule, 3), expected, atol=1e-8)


@pytest.mark.parametrize("baseline", ["none", "position"])
def test_return_to_go_is_unbiased(baseline):
    def rule(batch, flat):
        valid, episode, position, rewards, _ = columns(batch, flat)
        return credit.return_to_go(rewards, valid, episode, position, baseline=baseline)

    expected = numeric_gradient(value_of_step_rewards, THETA)
    np.testing.assert_allclose(expected_estimate(rule, 3), expected, atol=1e-8)


@pytest.mark.parametrize("rule", ["plain", "leave_one_out"])
def test_step_rewards_at_frozen_states_are_unbiased(rule):
    """States 0, 1, 2 once each, n = 3 sampled actions a state; objective: mean over states of E[R(a | s)]."""

    def value(theta):
        p = probabilities(theta)
        return np.mean([sum(p[s, a] * STEP_REWARD[s, a] for a in (0, 1)) for s in range(3)])

    total = np.zeros_like(THETA)
    p = probabilities(THETA)
    for actions in itertools.product((0, 1), repeat=9):
        state = np.repeat(np.arange(3), 3)
        weight = np.prod([p[s, a] for s, a in zip(state, actions, strict=True)])
        rewards = [STEP_REWARD[s, a] for s, a in zip(state, actions, strict=True)]
        valid = np.ones(9, bool)
        if rule == "plain":
            advantages = credit.step_reward(rewards, valid)
        else:
            advantages = credit.leave_one_out(rewards, valid, state)
        gradient = sum(adv * score(THETA, s, a) for adv, s, a in zip(advantages, state, actions, strict=True))
        total += weight * gradient / 9
    np.testing.assert_allclose(total, numeric_gradient(value, THETA), atol=1e-8)
