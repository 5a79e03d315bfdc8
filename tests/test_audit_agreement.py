"""Agreement with a truth: hand-computed numbers, scipy as an independent oracle, and weights as copies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swirl_env.audit import agreement

ONES = np.ones((1, 10))


def test_kappa_by_hand():
    # Cohen's own kind of table: 20 both GOOD, 15 both BAD, 5 and 10 apart: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5.
    truth = [True] * 25 + [False] * 25
    rated = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    counts = agreement.confusion(np.ones((1, 50)), truth, rated)
    assert counts.tolist() == [[[15, 10], [5, 20]]]
    assert agreement.kappa(counts).tolist() == pytest.approx([0.4])


@pytest.mark.parametrize(("rated", "value"), [([1, 1, 0, 0], 1.0), ([0, 0, 1, 1], -1.0), ([1, 0, 1, 0], 0.0)])
def test_kappa_of_perfect_opposite_and_independent_ratings(rated, value):
    counts = agreement.confusion(np.ones((1, 4)), [1, 1, 0, 0], rated)
    assert agreement.kappa(counts)[0] == pytest.approx(value)


def test_kappa_is_undefined_if_chance_agreement_is_certain():
    assert np.isnan(agreement.kappa(agreement.confusion(np.ones((1, 3)), [1, 1, 1], [1, 1, 1]))[0])


def test_auc_by_hand():
    # Pairs (GOOD, BAD): 3 over 1, 3 over 2, 2 over 1 are right, 2 against 2 is a tie: 3.5 of 4.
    assert agreement.auc(np.ones((1, 4)), [1, 1, 0, 0], [3, 2, 1, 2])[0] == 3.5 / 4
    assert np.isnan(agreement.auc(np.ones((1, 2)), [1, 1], [3, 2])[0])


values = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9) | st.floats(0, 1)), min_size=2, max_size=30)


@settings(deadline=None, max_examples=60)
@given(values)
def test_rank_correlations_agree_with_scipy(pairs):
    stats = pytest.importorskip("scipy.stats")
    x, y = (np.array(side, float) for side in zip(*pairs, strict=True))
    ones = np.ones((1, len(x)))
    rho, tau = agreement.spearman(ones, x, y)[0], agreement.kendall(ones, x, y)[0]
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert np.isnan(rho) and np.isnan(tau)
    else:
        assert rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
        assert tau == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)
        assert tau == pytest.approx(agreement.kendall(ones, y, x)[0], abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(values, st.randoms())
def test_a_weight_of_k_is_k_copies(pairs, rng):
    x, y = (np.array(side, float) for side in zip(*pairs, strict=True))
    weights = np.array([rng.randrange(3) for _ in x], float)
    copies = np.repeat(np.arange(len(x)), weights.astype(int))
    truth = x > 1
    for measure in (agreement.spearman, agreement.kendall, lambda w, a, b: agreement.auc(w, a > 1, b)):
        weighted, copied = measure(weights[None], x, y), measure(np.ones((1, len(copies))), x[copies], y[copies])
        np.testing.assert_allclose(weighted, copied, atol=1e-9)
    counted = agreement.confusion(np.ones((1, len(copies))), truth[copies], (y > 2)[copies])
    assert (agreement.confusion(weights[None], truth, y > 2) == counted).all()


def test_replicates_draw_whole_questions():
    clusters = np.repeat(["a", "b", "c"], [5, 1, 2])
    weights = agreement.bootstrap_weights(clusters, 200, seed=3)
    assert weights.shape == (201, 8) and (weights[0] == 1).all()
    for name in "abc":
        own = weights[:, clusters == name]
        assert (own == own[:, :1]).all()
    questions = weights[1:, [0, 5, 6]]
    assert (questions.sum(1) == 3).all() and len(np.unique(questions, axis=0)) > 5
    assert (weights == agreement.bootstrap_weights(clusters, 200, seed=3)).all()


def test_the_interval_widens_with_correlation_within_questions():
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.5
    rated = truth ^ (np.repeat(rng.random(40), 10) < 0.3)  # whole questions are rated wrong

    def width(clusters):
        weights = agreement.bootstrap_weights(clusters, 400)
        result = agreement.estimate(agreement.kappa(agreement.confusion(weights, truth, rated)), 400, 40)
        assert result.low < result.value < result.high
        return result.high - result.low

    assert width(np.repeat(np.arange(40), 10)) > 2 * width(np.arange(400))


def test_an_interval_needs_two_questions_and_a_figure_needs_both_classes():
    weights = agreement.bootstrap_weights([0, 0, 0], 50)
    one = agreement.estimate(agreement.spearman(weights, [1, 2, 3], [1, 3, 2]), 3, 1)
    assert one.value == pytest.approx(0.5) and one.low is None and one.high is None
    assert agreement.estimate(np.array([np.nan, 1.0, 2.0]), 3, 2).value is None
