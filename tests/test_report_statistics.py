"""Statistics of the report against computations by hand: loops over draws, scipy's own tests, literal numbers."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

scipy_stats = pytest.importorskip("scipy.stats")

from swirl_env.view.report import statistics as s  # noqa: E402

PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def draws(rng, *samples, statistic, count=10_000):
    """Returns the percentile interval by a plain loop over bootstrap draws."""
    drawn = [statistic(*[rng.choice(sample, len(sample)) for sample in samples]) for _ in range(count)]
    return np.percentile(drawn, [2.5, 97.5])


def test_interquartile_mean_of_literal_numbers():
    assert s.interquartile_mean([0, 1, 2, 100]) == 1.5
    assert s.interquartile_mean([9, 1, 2, 3, 4, 5, 6, -50]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert s.interquartile_mean([1, 5, 0]) == 2.0  # nothing to leave out


@PATIENT
@given(VALUES)
def test_interquartile_mean_leaves_out_a_quarter_on_either_side(values):
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    assert s.interquartile_mean(values) == pytest.approx(sum(middle) / len(middle), abs=1e-12)


def test_stratified_interval_is_that_of_draws_within_each_stratum():
    rng = np.random.default_rng(5)
    low, high = rng.normal(0.2, 0.05, 7), rng.normal(0.8, 0.02, 5)
    ours = s.stratified_interval([low, high], s.mean)
    by_hand = draws(rng, low, high, statistic=lambda a, b: np.concatenate([a, b]).mean())
    assert ours == pytest.approx(by_hand, abs=0.004)
    mixed = draws(rng, np.concatenate([low, high]), statistic=np.mean)
    assert ours.high - ours.low < 0.5 * (mixed[1] - mixed[0]), "strata were mixed"
    assert s.stratified_interval([low, high], s.mean) == ours, "the same data give the same interval"


def test_stratified_interval_of_the_interquartile_mean():
    rng = np.random.default_rng(6)
    values = rng.normal(0.5, 0.1, 9)
    by_hand = draws(rng, values, statistic=lambda a: np.sort(a)[2:-2].mean())
    assert s.stratified_interval([values]) == pytest.approx(by_hand, abs=0.006)


@pytest.mark.parametrize("strata", [[], [[0.1, 0.2]], [[0.1, 0.2, 0.3], [0.4]]])
def test_too_few_values_have_no_interval(strata):
    assert s.stratified_interval(strata) is None
    assert s.improvement_interval(strata, strata) is None


def test_equal_values_have_an_interval_without_width():
    assert s.stratified_interval([[0.5] * 4]) == (0.5, 0.5)
    assert s.paired_interval([0.0] * 5) == (0.0, 0.0)


@PATIENT
@given(VALUES, VALUES)
def test_probability_of_improvement_is_mann_whitneys_u(new, old):
    u = scipy_stats.mannwhitneyu(new, old).statistic
    assert s.probability_of_improvement([new], [old]) == pytest.approx(u / (len(new) * len(old)))


def test_probability_of_improvement_over_strata_and_its_interval():
    new, old = [[0.3, 0.4, 0.5], [0.1, 0.1, 0.2]], [[0.1, 0.2, 0.3], [0.1, 0.3, 0.2]]
    by_hand = np.mean([(8 + 0.5) / 9, (0.5 + 0.5 + 1 + 0.5) / 9])
    assert s.probability_of_improvement(new, old) == pytest.approx(by_hand)
    rng = np.random.default_rng(1)

    def of_draws(a, b, c, d):
        return np.mean([scipy_stats.mannwhitneyu(x, y).statistic / 9 for x, y in ((a, c), (b, d))])

    assert s.improvement_interval(new, old) == pytest.approx(draws(rng, *new, *old, statistic=of_draws, count=2_000), abs=0.03)


def test_paired_interval_is_narrower_than_that_of_the_cells_by_themselves():
    rng = np.random.default_rng(2)
    seeds = rng.normal(0, 0.2, 8)
    new, old = seeds + 0.05 + rng.normal(0, 0.01, 8), seeds
    ours = s.paired_interval(new - old)
    assert ours == pytest.approx(draws(rng, new - old, statistic=np.mean), abs=0.002)
    assert 0 < ours.low < ours.high < 0.1
    assert s.paired_interval([0.1, 0.2]) is None


def test_many_pairs_need_little_memory():
    values = np.random.default_rng(3).choice([-1, 0, 1], 20_000)
    low, high = s.paired_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
