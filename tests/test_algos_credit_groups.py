"""Rules over shared states, branches and pairs: literal numbers, and gradients enumerated or differentiated by other code."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enumerated import numeric_gradient, probabilities, score
from swirl_env.algos import credit
from two_turns import EPISODES, THETA, WON, chance, expectation, scores

NAN = float("nan")


def test_gigpo_by_hand():
    # one question, episodes: 0 won in 3 steps, 1 lost in 2, 2 won in 1; steps of two episodes meet in states 7 and 8
    episode, position, won = [0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0], [1, 1, 1, 0, 0, 1]
    anchor, group, every = [7, 8, 9, 7, 8, 7], [0] * 6, np.ones(6, bool)
    a = credit.gigpo(won, every, episode, position, group, anchor, omega=2.0, gamma=0.5, scale=False)
    # returns .25, .5, 1, 0, 0, 1; means: state 7: (.25 + 0 + 1) / 3, state 8: .25; outcomes minus 2/3 (of episodes, not steps)
    seven = 1.25 / 3
    expected = [
        1 / 3 + 2 * (0.25 - seven),
        1 / 3 + 2 * 0.25,
        1 / 3,
        -2 / 3 - 2 * seven,
        -2 / 3 - 2 * 0.25,
        1 / 3 + 2 * (1 - seven),
    ]
    assert a.tolist() == pytest.approx(expected)
    scaled = credit.gigpo(won, every, episode, position, group, anchor, omega=1.0, gamma=0.5, eps=0.0)
    z = np.array([1 / 3, -2 / 3, 1 / 3]) / np.sqrt(2 / 9)
    assert scaled[[1, 4]].tolist() == pytest.approx([z[0] + 1, z[1] - 1]) and scaled[2] == pytest.approx(z[0])
    # the same state under another question is another state
    apart = credit.gigpo(won, every, episode, position, [0, 0, 0, 1, 1, 2], anchor)
    assert apart.tolist() == [0] * 6
    assert credit.gigpo([1, 1, NAN], [1, 1, 0], [0, 0, 1], [0, 1, 0], [0] * 3, [4, 4, 4], gamma=1.0).tolist() == [0, 0, 0]


def test_hgpo_by_hand():
    # states of three episodes: A B, A B, C B; all of one question; outcomes 1, 0, 1; returns with gamma .5: .5 1 | 0 0 | .5 1
    episode, position, won = [0, 0, 1, 1, 2, 2], [0, 1] * 3, [1, 1, 0, 0, 1, 1]
    now, before = [0, 1, 0, 1, 2, 1], [-1, 5, -1, 5, -1, 6]  # state alone; with the one before it
    every = np.ones(6, bool)
    a = credit.hgpo(won, every, episode, position, [0] * 6, [now, before], gamma=0.5, scale=False)
    # level 0: A: +-.25, C alone, B: 1, 0, 1 minus 2/3; level 1: AB: +-.5, CB alone; weights 1 and 2
    b = [(1 / 3 + 2 * 0.5) / 3, (-2 / 3 - 2 * 0.5) / 3, 1 / 3]
    assert a.tolist() == pytest.approx([0.25, b[0], -0.25, b[1], 0, b[2]])
    flat = credit.hgpo(won, every, episode, position, [0] * 6, [now, before], gamma=0.5, scale=False, alpha=0.0)
    assert flat[1] == pytest.approx((1 / 3 + 0.5) / 2)
    # with a single level it is the second part of GiGPO
    level = credit.hgpo(won, every, episode, position, [0] * 6, [now], gamma=0.5)
    whole = credit.gigpo(won, every, episode, position, [0] * 6, now, gamma=0.5)
    assert (whole - credit.group_normalised(won, every, episode, [0] * 6)).tolist() == pytest.approx(level.tolist())


def test_siblings_and_trees_by_hand():
    a = credit.siblings([1, 0, 0, 0.5, 0.5, NAN, 3], [1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1, 2], eps=0.0, scale=False)
    assert a.tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3, 0, 0, 0, 0])
    assert credit.siblings([1, 0], [1, 1], [0, 0]).tolist() == pytest.approx([1, -1], abs=1e-5)
    # two trees of one question: leaves 1 0 and 0 0 0; a third tree of another question
    a = credit.tree_grpo([1, 0, 0, 0, 0, 1], np.ones(6, bool), [0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 1], eps=1e-12)
    z = np.array([0.8, -0.2]) / 0.4
    assert a.tolist() == pytest.approx([1 + z[0], -1 + z[1], z[1], z[1], z[1], 0])


def test_values_by_hand():
    table = [[1, 0, 0, NAN], [NAN] * 4, [0, 0, 0, 0], [1, 1, NAN, NAN]]
    np.testing.assert_allclose(credit.monte_carlo(table), [1 / 3, NAN, 0, 1])
    np.testing.assert_allclose(credit.step_values(table), [1 / 3, NAN, 0, 1])
    np.testing.assert_allclose(credit.step_values(table, estimate="hard"), [1, NAN, 0, 1])
    a, valid = credit.vine([0, 0, 1, NAN], [0.2, NAN, 0.5, 0.5], [0.4, 0.5, 0, 0])
    assert a.tolist() == pytest.approx([0.2, 0, 0.5, 0]) and valid.tolist() == [True, False, True, False]


def test_vine_has_the_true_gradient_with_one_continuation_per_state():
    """V(s_0) and V(s_1) from a single other episode each: everything that can happen is enumerated."""
    truth = numeric_gradient(lambda theta: expectation(theta, lambda a, b: WON[a, b]), THETA)
    p, total = probabilities(THETA), np.zeros_like(THETA)
    for (a, b), start, other in itertools.product(EPISODES, EPISODES, (0, 1)):
        weight = chance(THETA, a, b) * chance(THETA, *start) * p[1 + a, other]
        values = credit.monte_carlo([[WON[start]], [WON[a, other]]])
        advantages, valid = credit.vine([0, WON[a, b]], values, [values[1], 0])
        assert valid.all()
        total += weight * sum(x * part for x, part in zip(advantages, scores(a, b), strict=True))
    np.testing.assert_allclose(total, truth, atol=1e-8)


REFERENCE = np.array([[0.1, 0.4], [-0.3, 0.2], [0.0, 0.0]])


def ratio(theta, state, action):
    return np.log(probabilities(theta)[state, action]) - np.log(probabilities(REFERENCE)[state, action])


def test_dpo_weights_give_the_gradient_of_the_dpo_loss():
    pairs = [(0, 0, 1), (1, 1, 0), (2, 0, 1), (0, 1, 0)]  # state, better action, worse action
    beta = 0.4

    def loss(theta):
        margins = [beta * (ratio(theta, s, good) - ratio(theta, s, bad)) for s, good, bad in pairs]
        return float(np.mean(np.log1p(np.exp(-np.array(margins)))))

    better = [ratio(THETA, s, good) for s, good, _ in pairs]
    worse = [ratio(THETA, s, bad) for s, _, bad in pairs]
    weights = credit.dpo_weights(better, worse, beta)
    step = sum(w * (score(THETA, s, good) - score(THETA, s, bad)) for w, (s, good, bad) in zip(weights, pairs, strict=True))
    np.testing.assert_allclose(step / len(pairs), -numeric_gradient(loss, THETA), atol=1e-8)
    assert credit.dpo_weights([0], [0], 0.5).tolist() == [0.25]
    assert credit.dpo_weights([9000], [-9000], 1.0).tolist() == [0] and credit.dpo_weights([-9000], [9000], 1.0).tolist() == [1]


def test_the_weights_of_a_reward_model_give_the_gradients_of_its_losses():
    episodes, beta = [(0, 1), (1, 0), (0, 0), (1, 1)], 0.6
    won = np.array([1.0, 0.0, 0.0, 1.0])

    def total(theta, e):
        return ratio(theta, 0, e[0]) + ratio(theta, 1 + e[0], e[1])

    def step(weights):
        return sum(w * sum(scores(*e)) for w, e in zip(weights, episodes, strict=True))

    def entropy(theta):
        p = 1 / (1 + np.exp(-beta * np.array([total(theta, e) for e in episodes])))
        return float(-(won * np.log(p) + (1 - won) * np.log(1 - p)).mean())

    ratios = [total(THETA, e) for e in episodes]
    weights = credit.outcome_weights(ratios, won, beta)
    np.testing.assert_allclose(step(weights) / 4, -numeric_gradient(entropy, THETA), atol=1e-8)

    known, group = np.array([True, True, True, False]), np.array([0, 0, 0, 0])

    def preference(theta):
        z = [total(theta, e) for e in episodes]
        return float(np.mean([np.log1p(np.exp(-beta * (z[0] - z[i]))) for i in (1, 2)]))

    weights, pairs = credit.outcome_dpo_weights(ratios, won, known, group, beta)
    assert pairs == 2 and weights[3] == 0
    np.testing.assert_allclose(step(weights) / pairs, -numeric_gradient(preference, THETA), atol=1e-8)


def test_implicit_rewards_by_hand():
    # question 0: episodes 0 (won; rewards .4, .2) and 1 (lost; -.2); question 1: episode 2 alone
    rewards, won, episode, position, group = [0.4, 0.2, -0.2, 1.0], [1, 1, 0, 1], [0, 0, 1, 2], [0, 1, 0, 0], [0, 0, 0, 1]
    every = np.ones(4, bool)
    a, valid = credit.implicit_prm(rewards, won, every, episode, position, group)
    # the others' mean step reward: -.2 for episode 0, .3 for episode 1, none for the last, which keeps reward and outcome
    assert a.tolist() == pytest.approx([0.6 + 0.4 + 1, 0.4 + 1, -0.5 - 1, 1 + 1]) and valid.all()
    a, _ = credit.implicit_prm(rewards, won, every, episode, position, group, rule="istar", alpha=2.0)
    z = (np.array([0.4, 0.2, -0.2]) - 0.4 / 3) / np.std([0.4, 0.2, -0.2])
    assert a.tolist() == pytest.approx([1 + 2 * z[0], 1 + 2 * z[1], -1 + 2 * z[2], 0], abs=1e-4)
    with pytest.raises(ValueError, match="got 'other'"):
        credit.implicit_prm(rewards, won, every, episode, position, group, rule="other")


def test_best_and_worst_by_hand():
    rewards, valid = [0, 1, 1, 5, 2, 2, NAN, 0.5, 0.25], [1, 1, 1, 1, 1, 1, 0, 1, 1]
    best, worst = credit.best_and_worst(rewards, valid, [0, 0, 0, 1, 2, 2, 3, 3, 3])
    assert best.tolist() == [1, 7] and worst.tolist() == [0, 8]  # states 1 and 2 have no two different rewards
    assert [len(part) for part in credit.best_and_worst([], [], [])] == [0, 0]


STEPS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, -2.0]), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=4, max_size=4),
    )
)


@given(STEPS)
def test_episodes_of_unknown_outcome_change_nothing_for_the_others(data):
    rewards, episode, state, known = (np.asarray(column) for column in data)
    position = np.array([list(episode[:i]).count(e) for i, e in enumerate(episode)])
    won, group, valid = np.array([1.0, 0.0, 1.0, 0.0])[episode], episode % 2, known[episode]
    rules = {
        "gigpo": lambda k: credit.gigpo(won[k], valid[k], episode[k], position[k], group[k], state[k]),
        "hgpo": lambda k: credit.hgpo(won[k], valid[k], episode[k], position[k], group[k], [state[k], state[k] - position[k]]),
        "siblings": lambda k: credit.siblings(rewards[k], valid[k], state[k]),
        "mt_grpo": lambda k: credit.mt_grpo(rewards[k], valid[k], won[k], valid[k], episode[k], position[k], group[k])[0],
        "unbiased": lambda k: credit.mt_grpo_unbiased(rewards[k], valid[k], won[k], valid[k], episode[k], position[k], group[k])[
            0
        ],
        "accumulated": lambda k: credit.accumulated(rewards[k], valid[k], episode[k], position[k], group[k])[0],
        "implicit_prm": lambda k: credit.implicit_prm(rewards[k], won[k], valid[k], episode[k], position[k], group[k])[0],
        "istar": lambda k: credit.implicit_prm(rewards[k], won[k], valid[k], episode[k], position[k], group[k], rule="istar")[0],
    }
    for name, rule in rules.items():
        whole = rule(slice(None))
        assert not whole[~valid].any(), name
        np.testing.assert_allclose(whole[valid], rule(valid), atol=1e-9, err_msg=name)
