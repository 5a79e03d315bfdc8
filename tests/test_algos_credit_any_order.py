"""Every rule is a function of a set of steps: neither the order of rows nor the numbers of groups matter; none are fine too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl_env.algos import credit

RULES = {
    "step_reward": lambda c: credit.step_reward(c["reward"], c["scored"]),
    "leave_one_out": lambda c: credit.leave_one_out(c["reward"], c["scored"], c["state"]),
    "outcome": lambda c: credit.outcome(c["won"], c["known"], c["episode"], group=c["group"]),
    "group_normalised": lambda c: credit.group_normalised(c["won"], c["known"], c["episode"], c["group"]),
    "return_to_go": lambda c: credit.return_to_go(c["reward"], c["scored"], c["episode"], c["position"], gamma=0.9),
    "mt_grpo": lambda c: credit.mt_grpo(*_turns(c), weight=0.5).advantages,
    "mt_grpo_unbiased": lambda c: credit.mt_grpo_unbiased(*_turns(c), weight=0.5).advantages,
    "accumulated": lambda c: credit.accumulated(*_steps(c), c["group"], gamma=0.9).advantages,
    "accumulated-separate": lambda c: credit.accumulated(*_steps(c), c["group"], norm="separate").advantages,
    "gae": lambda c: credit.gae(c["reward"], c["value"], c["scored"], c["episode"], c["position"])[0],
    "gigpo": lambda c: credit.gigpo(*_outcomes(c), c["state"], omega=0.5),
    "hgpo": lambda c: credit.hgpo(*_outcomes(c), [c["state"], np.where(c["position"] > 0, c["state"], -1)]),
    "siblings": lambda c: credit.siblings(c["reward"], c["scored"], c["state"]),
    "tree_grpo": lambda c: credit.tree_grpo(c["reward"], c["scored"], c["state"], c["group"]),
    "prime": lambda c: credit.implicit_prm(c["value"], *_outcomes(c)).advantages,
    "istar": lambda c: credit.implicit_prm(c["value"], *_outcomes(c), rule="istar").advantages,
}


def _turns(c):
    return c["reward"], c["scored"], c["won"], c["known"], c["episode"], c["position"], c["group"]


def _steps(c):
    return c["reward"], c["scored"], c["episode"], c["position"]


def _outcomes(c):
    return c["won"], c["known"], c["episode"], c["position"], c["group"]


@st.composite
def batches(draw):
    """Columns of a batch: 0 to 5 episodes of 1 to 4 steps on up to 2 questions."""
    lengths = draw(st.lists(st.integers(1, 4), max_size=5))
    n = sum(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    question, won, known = (
        np.array(draw(st.lists(st.sampled_from(kind), min_size=len(lengths), max_size=len(lengths))), dtype=dtype)[episode]
        for kind, dtype in (((0, 1), int), ((0.0, 1.0), float), ((True, True, False), bool))
    )
    rows = [draw(st.lists(st.sampled_from(kind), min_size=n, max_size=n)) for kind in ((0.0, 0.5, -1.0), (1.0, 0.25), (0, 1, 2))]
    reward, value, state = np.array(rows[0], float), np.array(rows[1], float), np.array(rows[2], int)
    scored = np.array(draw(st.lists(st.sampled_from((True, True, False)), min_size=n, max_size=n)), dtype=bool)
    position = np.concatenate([np.arange(k) for k in lengths]).astype(int) if lengths else np.zeros(0, int)
    columns = {"reward": np.where(scored, reward, np.nan), "scored": scored, "won": np.where(known, won, np.nan), "known": known}
    return columns | {"value": value, "episode": episode, "position": position, "group": question, "state": state + 3 * question}


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=25)  # of every rule, each with a batch of its own
@given(batches(), st.randoms(use_true_random=False))
def test_rows_and_numbers_may_come_in_any_order(name, batch, random):
    rule, n = RULES[name], len(batch["reward"])
    advantages = rule(batch)
    assert advantages.shape == (n,) and np.isfinite(advantages).all()
    order = random.sample(range(n), n)
    np.testing.assert_allclose(rule({key: column[order] for key, column in batch.items()}), advantages[order], atol=1e-9)
    names = {key: 10 - 7 * batch[key] for key in ("episode", "group")}  # negative, with gaps
    np.testing.assert_allclose(rule({**batch, **names}), advantages, atol=1e-9)


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"prime", "accumulated", "accumulated-separate"}))
@settings(max_examples=25)
@given(batches())
def test_questions_do_not_weigh_on_one_another(name, batch):
    """Those of one question alone get what they get among others; rules without questions compare states or episodes."""
    if name in ("return_to_go", "gae", "leave_one_out", "siblings", "step_reward") or not len(batch["reward"]):
        batch = {**batch, "group": np.zeros_like(batch["group"])}
    whole = RULES[name](batch)
    for number in set(batch["group"].tolist()):
        mine = batch["group"] == number
        np.testing.assert_allclose(RULES[name]({key: column[mine] for key, column in batch.items()}), whole[mine], atol=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_no_steps_have_no_advantages(name):
    kinds = {"reward": float, "scored": bool, "won": float, "known": bool, "value": float}
    empty = {key: np.zeros(0, kinds.get(key, int)) for key in (*kinds, "episode", "position", "group", "state")}
    assert RULES[name](empty).tolist() == []


@pytest.mark.parametrize("name", RULES)
def test_steps_of_which_nothing_is_known_get_nothing(name):
    nan = np.full(4, np.nan)
    batch = {"reward": nan, "scored": np.zeros(4, bool), "won": nan, "known": np.zeros(4, bool), "value": np.ones(4)}
    batch |= {
        "episode": np.array([0, 0, 1, 1]),
        "position": np.array([0, 1, 0, 1]),
        "group": np.zeros(4, int),
        "state": np.zeros(4, int),
    }
    assert RULES[name](batch).tolist() == [0.0] * 4
