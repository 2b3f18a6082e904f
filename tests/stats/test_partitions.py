"""Agreement of partitions, compared with scikit-learn and with pairs that are counted one by one."""

import itertools

import numpy as np
import pytest

from vtcav_jax.stats.partitions import adjusted_rand_ci, adjusted_rand_index, best_overlaps


@pytest.mark.parametrize("seed", range(4))
def test_the_adjusted_rand_index_is_that_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics", reason="the reference needs scikit-learn")
    random = np.random.default_rng(seed)
    a = random.integers(4, size=60)
    b = np.where(random.random(60) < 0.6, a, random.integers(5, size=60))
    assert adjusted_rand_index(a, b) == pytest.approx(metrics.adjusted_rand_score(a, b), abs=1e-12)


def test_the_adjusted_rand_index_counts_pairs_above_chance():
    a, b = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    pairs = list(itertools.combinations(range(6), 2))
    together = [(a[i] == a[j], b[i] == b[j]) for i, j in pairs]
    in_a, in_b, in_both = (sum(values) for values in zip(*((x, y, x and y) for x, y in together)))
    expected = in_a * in_b / len(pairs)
    assert adjusted_rand_index(a, b) == pytest.approx((in_both - expected) / ((in_a + in_b) / 2 - expected))
    assert adjusted_rand_index(a, (a + 1) % 2) == 1  # names of groups do not count
    assert adjusted_rand_index(np.zeros(5, int), np.zeros(5, int)) == 1


def test_unrelated_partitions_have_an_index_of_0_on_average():
    random = np.random.default_rng(0)
    values = [adjusted_rand_index(random.integers(3, size=90), random.integers(3, size=90)) for _ in range(200)]
    assert abs(np.mean(values)) < 0.005


def test_the_interval_is_over_units():
    random = np.random.default_rng(1)
    a = random.integers(3, size=120)
    units = [f"video {i // 10}" for i in range(120)]
    # Two of twelve videos are grouped at random
    b = np.where(np.arange(120) < 20, random.integers(3, size=120), a)
    estimate, low, high = adjusted_rand_ci(a, b, units)
    assert low < estimate < high <= 1 and estimate == adjusted_rand_index(a, b)
    by_clip = adjusted_rand_ci(a, b, [str(i) for i in range(120)])
    assert high - low > by_clip[2] - by_clip[1]  # clips of one video are not independent
    assert np.isnan(adjusted_rand_ci(a, b, ["one"] * 120)[1])


def test_the_best_overlap_of_each_group():
    a, b = np.array([0, 0, 0, 0, 1, 1, 3]), np.array([1, 1, 1, 0, 0, 0, 2])
    overlaps = best_overlaps(a, b, 4)
    np.testing.assert_allclose(overlaps, [3 / 4, 2 / 3, np.nan, 1.0])
