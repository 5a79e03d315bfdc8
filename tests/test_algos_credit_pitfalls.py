"""What ports of published rules get wrong, each tried on every rule that it could happen to."""

import numpy as np
import pytest

from swirl_env.algos import credit

# Rules that compare outcomes between episodes: (outcome, known, episode, position, group) -> advantages.
BETWEEN_EPISODES = {
    "outcome": lambda o, k, e, p, g: credit.outcome(o, k, e, group=g),
    "group_normalised": lambda o, k, e, p, g: credit.group_normalised(o, k, e, g),
    "gigpo": lambda o, k, e, p, g: credit.gigpo(o, k, e, p, g, np.arange(len(o)), omega=1.0),
    "mt_grpo": lambda o, k, e, p, g: credit.mt_grpo(np.zeros(len(o)), k, o, k, e, p, g)[0],
    "mt_grpo_unbiased": lambda o, k, e, p, g: credit.mt_grpo_unbiased(np.zeros(len(o)), k, o, k, e, p, g)[0],
    "prime": lambda o, k, e, p, g: credit.implicit_prm(np.zeros(len(o)), o, k, e, p, g)[0],
    "istar": lambda o, k, e, p, g: credit.implicit_prm(np.zeros(len(o)), o, k, e, p, g, rule="istar")[0],
}


def columns(lengths, outcomes):
    episode = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate([np.arange(n) for n in lengths])
    n = len(episode)
    return np.array(outcomes, float)[episode], np.ones(n, bool), episode, position, np.zeros(n, int)


@pytest.mark.parametrize("name", BETWEEN_EPISODES)
def test_an_episode_counts_once_however_many_steps_it_has(name):
    rule, won = BETWEEN_EPISODES[name], [1, 0, 0, 1, 0]
    short, long = rule(*columns([1] * 5, won)), rule(*columns([1, 7, 2, 9, 3], won))
    firsts = np.cumsum([0, 1, 7, 2, 9])
    assert long[firsts].tolist() == pytest.approx(short.tolist())
    assert all(len(set(part.round(9))) == 1 for part in np.split(long, firsts[1:]))


# Rules that take a reward per step: (reward, scored, episode, position) -> advantages, one question, one state per position.
PER_STEP = {
    "step_reward": lambda r, s, e, p: credit.step_reward(r, s),
    "leave_one_out": lambda r, s, e, p: credit.leave_one_out(r, s, p),
    "siblings": lambda r, s, e, p: credit.siblings(r, s, p),
    "return_to_go": lambda r, s, e, p: credit.return_to_go(r, s, e, p, baseline="position"),
    "accumulated": lambda r, s, e, p: credit.accumulated(r, s, e, p, np.zeros(len(r), int))[0],
    "gae": lambda r, s, e, p: credit.gae(r, np.zeros(len(r)), s, e, p)[0],
    "mt_grpo": lambda r, s, e, p: credit.mt_grpo(*_with_outcomes(r, s, e, p))[0],
    "mt_grpo_unbiased": lambda r, s, e, p: credit.mt_grpo_unbiased(*_with_outcomes(r, s, e, p))[0],
}


def _with_outcomes(r, s, e, p):
    won, every = np.asarray(e) % 2, np.ones(len(r), bool)
    return r, s, won, every, e, p, np.zeros(len(r), int)


@pytest.mark.parametrize("hidden", [1e9, -3.0, 0.0, np.nan, np.inf])
@pytest.mark.parametrize("name", PER_STEP)
def test_a_missing_reward_is_not_zero_nor_anything_else(name, hidden):
    """Whatever stands where a verdict is missing, nobody's advantage depends on it, and the step itself has none."""
    episode, position = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    reward, scored = np.array([0.5, np.nan, 1, 0, 1, 0, 1, 0.25, 0]), np.ones(9, bool)
    scored[1] = False
    reward[1] = hidden
    advantages = PER_STEP[name](reward, scored, episode, position)
    reward[1] = 12345.0
    again = PER_STEP[name](reward, scored, episode, position)
    assert np.isfinite(advantages).all() and advantages[1] == 0
    np.testing.assert_array_equal(advantages, again)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -0.3, 1e-12, 1e6 / 3])
def test_groups_of_equal_rewards_teach_nothing(value):
    """A standard deviation of 0 divides nothing: rounding errors are not blown up to advantages of 1."""
    lengths = [2, 1, 3, 2]
    episode = np.repeat(np.arange(4), lengths)
    position, n = np.concatenate([np.arange(k) for k in lengths]), 8
    rewards, every, one = np.full(n, value), np.ones(n, bool), np.zeros(n, int)
    small = 1e-3 * max(abs(value), 1e-3)
    assert np.abs(credit.siblings(rewards, every, one)).max() < small
    assert np.abs(credit.group_normalised(rewards, every, episode, one)).max() < small
    assert np.abs(credit.tree_grpo(rewards, every, one, one)).max() < small
    assert np.abs(credit.accumulated(rewards, every, episode, position, one)[0]).max() < small
    assert np.abs(credit.mt_grpo(rewards, every, rewards, every, episode, position, one)[0]).max() < small
    assert np.abs(credit.gigpo(rewards, every, episode, position, one, np.arange(n))).max() < small
    assert np.abs(credit.implicit_prm(rewards, rewards, every, episode, position, one, rule="istar")[0]).max() < small


def test_a_gain_of_exactly_zero_is_a_turn_like_any_other():
    """IGPO's code takes it for "no turn here" and leaves it out of the mean."""
    rewards, every = [0.0, 0.0, 1.0, 0.5, 0.5, 0.0], np.ones(6, bool)
    a, valid = credit.accumulated(rewards, every, [0, 0, 0, 1, 1, 1], [0, 1, 2] * 2, np.zeros(6, int), scale=False)
    centred = np.array(rewards) - 2 / 6
    assert a.tolist() == pytest.approx([*np.cumsum(centred[:3][::-1])[::-1], *np.cumsum(centred[3:][::-1])[::-1]]) and valid.all()


def test_a_lone_episode_has_nothing_to_be_compared_with():
    columns_ = columns([3], [1])
    for name in ("group_normalised", "gigpo", "mt_grpo", "istar"):
        assert BETWEEN_EPISODES[name](*columns_).tolist() == [0.0] * 3
    for name in ("outcome", "mt_grpo_unbiased", "prime"):  # no baseline, then: unbiased, and as large as the outcome
        assert BETWEEN_EPISODES[name](*columns_).tolist() == [1.0] * 3
