"""Tests of intervals against SciPy and known results."""

import numpy as np
import pytest
from scipy.stats import binomtest

from vtcav_jax.stats.intervals import mean_ci, ratio_ci, row_mean_ci, wilson_ci


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (1, 1), (3, 7), (250, 256), (999, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_matches_scipy(right, n, level):
    expected = binomtest(right, n).proportion_ci(level, method="wilson")
    assert wilson_ci(right, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_trials_give_the_whole_range():
    assert wilson_ci(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson_ci(3, 2)


def test_means_and_ratios():
    random = np.random.default_rng(0)
    values = random.normal(3, 1, 200)
    estimate, low, high = mean_ci(np.append(values, np.nan))
    half = 1.96 * values.std() / 200**0.5
    assert estimate == pytest.approx(values.mean())
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.03)
    above = 2 * values + random.normal(0, 0.1, 200)
    estimate, low, high = ratio_ci(above, values)
    assert estimate == pytest.approx(above.sum() / values.sum()) and 1.98 < low < estimate < high < 2.02
    alone = ratio_ci(np.array([1.0]), np.array([4.0]))
    assert alone[0] == 0.25 and np.isnan(alone[1:]).all() and np.isnan(mean_ci(np.array([np.nan]))).all()


@pytest.mark.parametrize("n", [1, 2, 30])
def test_row_means_match_single_means(n):
    values = np.random.default_rng(1).normal(size=(5, n))
    estimate = np.array(row_mean_ci(values)).T
    np.testing.assert_allclose(estimate, [mean_ci(row) for row in values], rtol=1e-9)
    assert np.array(row_mean_ci(values[:0])).shape == (3, 0)
