"""Intervals against scipy's."""

import pytest
from scipy.stats import binomtest

from vtcav_jax.intervals import wilson


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (1, 1), (3, 7), (250, 256), (999, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_scipys(right, n, level):
    expected = binomtest(right, n).proportion_ci(level, method="wilson")
    assert wilson(right, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_seen_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)
