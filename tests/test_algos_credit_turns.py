"""Rules with a reward per turn: literal numbers, and exact gradients on a two-turn decision problem enumerated in full."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enumerated import THETA as LINE
from enumerated import columns, expected_estimate, numeric_gradient
from swirl_env.algos import credit
from two_turns import EPISODES, FIRST, LAMBDA, SECOND, THETA, WON, chance, expectation, scores

NAN = float("nan")


def mean_gradient(rule, size=3):
    """Returns E of 1/M sum over episodes and turns of A grad log pi, over all batches of M episodes on one question."""
    total = np.zeros_like(THETA)
    for batch in itertools.product(EPISODES, repeat=size):
        weight = np.prod([chance(THETA, *e) for e in batch])
        rewards = [x for a, b in batch for x in (FIRST[a], SECOND[a, b])]
        won = [WON[e] for e in batch for _ in e]
        episode, position = np.repeat(np.arange(size), 2), np.tile([0, 1], size)
        n = 2 * size
        advantages, valid = rule(rewards, np.ones(n, bool), won, np.ones(n, bool), episode, position, np.zeros(n, int))
        assert valid.all()
        parts = [part for e in batch for part in scores(*e)]
        total += weight * sum(a * part for a, part in zip(advantages, parts, strict=True)) / size
    return total


EVERY_TURN = np.ones(6, bool)


def test_published_mt_grpo_misses_what_a_turn_does_for_later_turn_rewards():
    """The bias in closed form: -lambda E[r_2 grad log pi(a_1)], in the first state alone, times 1 - 1/M."""

    def published(*columns):
        return credit.mt_grpo(*columns, weight=LAMBDA, scale=False, rated=EVERY_TURN)

    truth = numeric_gradient(lambda t: expectation(t, lambda a, b: WON[a, b] + LAMBDA * (FIRST[a] + SECOND[a, b])), THETA)
    missing = -LAMBDA * sum(chance(THETA, *e) * SECOND[e] * scores(*e)[0] for e in EPISODES)
    assert np.abs(missing[0]).max() > 0.05 and not missing[1:].any()
    np.testing.assert_allclose(mean_gradient(published), (1 - 1 / 3) * (truth + missing), atol=1e-8)
    # Here the bias is not a matter of size: it turns the gradient of the first decision round.
    assert np.sign((truth + missing)[0, 0]) != np.sign(truth[0, 0])


def test_published_mt_grpo_is_right_in_the_two_turns_of_its_paper():
    """One tool turn with a reward, then the answer: nothing comes after the rewarded turn but the outcome."""

    def published(*columns):
        return credit.mt_grpo(*columns, weight=LAMBDA, scale=False)

    truth = numeric_gradient(lambda t: expectation(t, lambda a, b: WON[a, b] + LAMBDA * FIRST[a]), THETA)
    np.testing.assert_allclose(mean_gradient(published), (1 - 1 / 3) * truth, atol=1e-8)


@pytest.mark.parametrize(("rated", "last"), [(EVERY_TURN, 1.0), (None, 0.0)])
def test_unbiased_mt_grpo_has_the_true_gradient(rated, last):
    def unbiased(*columns):
        return credit.mt_grpo_unbiased(*columns, weight=LAMBDA, rated=rated)

    def value(a, b):
        return WON[a, b] + LAMBDA * (FIRST[a] + last * SECOND[a, b])

    np.testing.assert_allclose(mean_gradient(unbiased), numeric_gradient(lambda t: expectation(t, value), THETA), atol=1e-8)


@pytest.mark.parametrize("every", [True, False])
def test_unbiased_mt_grpo_has_the_true_gradient_with_episodes_of_any_length(every):
    from enumerated import OUTCOME, STEP_REWARD, chance

    def value(theta):
        def total(e):
            return OUTCOME[e] + LAMBDA * sum(STEP_REWARD[i, a] for i, a in enumerate(e if every else e[:-1]))

        return sum(chance(theta, e) * total(e) for e in OUTCOME)

    def rule(batch, flat):
        valid, episode, position, rewards, outcomes = columns(batch, flat)
        rated = valid if every else None
        same = np.zeros(len(flat), int)
        return credit.mt_grpo_unbiased(
            rewards, valid, outcomes, valid, episode, position, same, weight=LAMBDA, rated=rated
        ).advantages

    np.testing.assert_allclose(expected_estimate(rule, 3), numeric_gradient(value, LINE), atol=1e-8)


def test_mt_grpo_by_hand():
    # two questions; question 0: episodes 0 (won, 2 turns) and 1 (lost, 3 turns); question 1: one episode, no comparison
    episode, position = [0, 0, 1, 1, 1, 2, 2], [0, 1, 0, 1, 2, 0, 1]
    group, won = [0, 0, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 1, 1]
    rewards = [1, NAN, 0, 1, NAN, 1, NAN]
    every = np.ones(7, bool)
    scored = np.isfinite(rewards)
    a, valid = credit.mt_grpo(rewards, scored, won, every, episode, position, group, weight=0.5, eps=0.0, scale=False)
    # outcome part +-.5; turn part +-.5 at position 0, 0 at position 1, where only episode 1 has one
    assert a.tolist() == pytest.approx([0.75, 0.5, -0.75, -0.5, -0.5, 0, 0]) and valid.all()
    a, _ = credit.mt_grpo(rewards, scored, won, every, episode, position, group)
    assert a.tolist() == pytest.approx([2, 1, -2, -1, -1, 0, 0], abs=1e-5)
    a, valid = credit.mt_grpo_unbiased(rewards, scored, won, every, episode, position, group, weight=0.5)
    # G: 1.5, 1 | .5, .5, 0 | 1.5, 1; an ended episode has its outcome left, the lone one no baseline
    assert a.tolist() == pytest.approx([1, 0.5, -1, -0.5, -1, 1.5, 1]) and valid.all()


def test_a_missing_turn_reward_is_no_zero():
    episode, position, group, won = [0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [0] * 5, [1, 1, 1, 0, 0]
    rewards, every = [1, NAN, NAN, 0, NAN], np.ones(5, bool)
    scored = np.isfinite(rewards)
    a, valid = credit.mt_grpo(rewards, scored, won, every, episode, position, group, scale=False)
    assert valid.tolist() == [True, False, True, True, True] and a[1] == 0
    a, valid = credit.mt_grpo_unbiased(rewards, scored, won, every, episode, position, group)
    # the first turn's return contains the missing one; it is unknown, and no baseline for the other episode either
    assert valid.tolist() == [False, False, True, True, True]
    assert a.tolist() == pytest.approx([0, 0, 1, 0, 0])


def test_an_unknown_outcome_counts_nowhere():
    episode, position, group = [0, 0, 1, 1, 2, 2], [0, 1] * 3, [0] * 6
    rewards, won = [1, 0, 0, 0, 7, 7], [1, 1, 0, 0, NAN, NAN]
    known = np.isfinite(won)
    for rule in (credit.mt_grpo, credit.mt_grpo_unbiased):
        a, valid = rule(rewards, np.ones(6, bool), won, known, episode, position, group)
        alone, _ = rule(rewards[:4], known[:4], won[:4], known[:4], episode[:4], position[:4], group[:4])
        assert a[:4].tolist() == pytest.approx(alone.tolist()) and not valid[4:].any() and not a[4:].any()


def test_accumulated_by_hand():
    # one question; rewards of episode 0: .2, .6, 1 (outcome); of episode 1: -.2, 0 (outcome)
    rewards, episode, position, group = [0.2, 0.6, 1, -0.2, 0], [0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [0] * 5
    every = np.ones(5, bool)
    centred = np.array(rewards) - 0.32
    a, valid = credit.accumulated(rewards, every, episode, position, group, scale=False)
    assert a.tolist() == pytest.approx([centred[:3].sum(), centred[1:3].sum(), centred[2], centred[3:].sum(), centred[4]])
    a, _ = credit.accumulated(rewards, every, episode, position, group, eps=0.0, gamma=0.5)
    z = centred / np.sqrt((centred**2).mean())
    assert a.tolist() == pytest.approx([z[0] + z[1] / 2 + z[2] / 4, z[1] + z[2] / 2, z[2], z[3] + z[4] / 2, z[4]])
    a, _ = credit.accumulated(rewards, every, episode, position, group, norm="separate", scale=False)
    gains = np.array([0.2, 0.6, -0.2]) - 0.2
    assert a.tolist() == pytest.approx([gains[0] + gains[1] + 0.5, gains[1] + 0.5, 0.5, gains[2] - 0.5, -0.5])
    _, valid = credit.accumulated([0.2, NAN, 1, -0.2, 0], [1, 0, 1, 1, 1], episode, position, group)
    assert valid.tolist() == [False, False, True, True, True]
    with pytest.raises(ValueError, match="got 'both'"):
        credit.accumulated(rewards, every, episode, position, group, norm="both")


def test_gae_by_hand():
    rewards, values, episode, position = [0, 0, 1, 0.5], [0.5, 0.6, 0.8, 0.1], [0, 0, 0, 1], [0, 1, 2, 0]
    every = np.ones(4, bool)
    a, returns, valid = credit.gae(rewards, values, every, episode, position, gamma=0.9, lam=0.5)
    last = 1 - 0.8
    middle = 0.9 * 0.8 - 0.6 + 0.45 * last
    first = 0.9 * 0.6 - 0.5 + 0.45 * middle
    assert a.tolist() == pytest.approx([first, middle, last, 0.4])
    assert returns.tolist() == pytest.approx([first + 0.5, middle + 0.6, 1.0, 0.5]) and valid.all()
    # the order of the rows is no matter
    order = [2, 3, 0, 1]
    shuffled, _, _ = credit.gae(
        np.array(rewards)[order], np.array(values)[order], every, np.array(episode)[order], np.array(position)[order],
        gamma=0.9, lam=0.5,
    )  # fmt: skip
    assert shuffled.tolist() == pytest.approx(a[order].tolist())
    _, _, valid = credit.gae([0, NAN, 1, 0.5], values, [1, 0, 1, 1], episode, position)
    assert valid.tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match="lam is a number from 0 to 1"):
        credit.gae(rewards, values, every, episode, position, lam=1.5)


@given(st.lists(st.tuples(st.floats(-2, 2), st.integers(0, 3)), min_size=1, max_size=12))
def test_gae_without_a_critic_is_return_to_go(steps):
    rewards, episode = [r for r, _ in steps], [e for _, e in steps]
    position = [episode[:i].count(e) for i, e in enumerate(episode)]
    every = np.ones(len(steps), bool)
    a, _, _ = credit.gae(rewards, np.zeros(len(steps)), every, episode, position, gamma=0.9, lam=1.0)
    np.testing.assert_allclose(a, credit.return_to_go(rewards, every, episode, position, gamma=0.9), atol=1e-9)


def test_gae_with_lambda_1_is_unbiased_whatever_the_critic_says():
    def value(theta):
        return expectation(theta, lambda a, b: FIRST[a] + SECOND[a, b])

    critic = np.array([0.3, -1.0, 2.0])
    total = np.zeros_like(THETA)
    for a, b in EPISODES:
        advantages, _, _ = credit.gae(
            [FIRST[a], SECOND[a, b]], critic[[0, 1 + a]], [True, True], [0, 0], [0, 1], gamma=1.0, lam=1.0
        )
        total += chance(THETA, a, b) * sum(x * part for x, part in zip(advantages, scores(a, b), strict=True))
    np.testing.assert_allclose(total, numeric_gradient(value, THETA), atol=1e-8)
