"""Matching of columns: planted pairs are matched, and unrelated columns seldom pass the test."""

import numpy as np
from scipy.stats import spearmanr

from vtcav_jax.stats.matching import match_columns


def test_planted_pairs_are_matched_with_their_rank_correlation():
    random = np.random.default_rng(0)
    left = random.normal(size=(60, 5))
    right = np.exp(left[:, [3, 0, 4]]) + 0.1 * random.normal(size=(60, 3))
    pairs = match_columns(left, right, seed=0)
    assert {(pair.left, pair.right) for pair in pairs} == {(3, 0), (0, 1), (4, 2)}
    for pair in pairs:
        expected = np.asarray(spearmanr(left[:, pair.left], right[:, pair.right]))[0]
        assert np.isclose(pair.correlation, expected) and pair.p < 0.01


def test_unrelated_columns_have_a_small_p_in_few_runs():
    """At level .05, 200 runs have at most 18 false ones with probability .99 or more (binomial)."""
    random = np.random.default_rng(1)
    runs = [match_columns(random.normal(size=(25, 4)), random.normal(size=(25, 6)), seed) for seed in range(200)]
    assert sum(min(pair.p for pair in pairs) <= 0.05 for pairs in runs) <= 18
