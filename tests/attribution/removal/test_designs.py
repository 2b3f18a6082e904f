"""Linear maps from scores to values of players, compared with definitions, numpy, scikit-learn and repeated seeds."""

import itertools
import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from tests.support.typed import present
from vtcav_jax.attribution.removal import designs, engine


def game(players, seed=3):
    """Return a game with interactions of all orders: a smooth part, products of pairs and rectified sums."""
    random = np.random.default_rng(seed)
    single, scale = random.normal(size=players), 2 / math.sqrt(players)
    pairs = np.triu(random.normal(size=(players, players)), 1) * 2 / players
    sums, weights = random.normal(size=(players, 8)) * scale, random.normal(size=8)

    def play(keep):
        z = np.asarray(keep, np.float64)
        smooth = np.tanh(z @ single * scale) + np.einsum("mi,ij,mj->m", z, pairs, z)
        return smooth + np.maximum(z @ sums - 0.3, 0) @ weights

    return play


def solution(design):
    return design.solve(np.ones(len(design.keep), bool))


def values(design, play):
    return solution(design) @ play(design.keep)


def shapley_by_orders(play, players):
    """Average each player's gain over all orders."""
    total = np.zeros(players)
    for order in itertools.permutations(range(players)):
        keep = np.zeros((players + 1, players), bool)
        for i, player in enumerate(order):
            keep[i + 1 :, player] = True
        total[list(order)] += np.diff(play(keep))
    return total / math.factorial(players)


@pytest.mark.parametrize("players", [2, 5, 6])
def test_kernel_shap_and_exact_values_follow_the_definition(players):
    play = game(players)
    expected = shapley_by_orders(play, players)
    np.testing.assert_allclose(values(designs.exact_shapley(players), play), expected, atol=1e-12)
    exact = designs.kernel_shap(players, 1 << players, 0)
    assert exact.groups is None and len(exact.keep) == 1 << players
    np.testing.assert_allclose(values(exact, play), expected, atol=1e-10)


def test_sampled_kernel_shap_is_the_constrained_regression_and_close_to_exact_values():
    play, players = game(10), 10
    design = designs.kernel_shap(players, 300, 1)
    full, empty = play(np.ones((1, players)))[0], play(np.zeros((1, players)))[0]
    sampled = present(design.groups) >= 0
    z, y = design.keep[sampled].astype(float), play(design.keep[sampled]) - empty
    # The last value is what the others leave of the whole difference
    others = np.linalg.lstsq(z[:, :-1] - z[:, -1:], y - z[:, -1] * (full - empty), rcond=None)[0]
    expected = np.append(others, full - empty - others.sum())
    np.testing.assert_allclose(values(design, play), expected, atol=1e-10)
    exact = values(designs.exact_shapley(players), play)
    errors = engine._standard_errors(design, solution(design), play(design.keep)[:, None, None])
    assert np.abs((values(design, play) - exact) / present(errors)[:, 0, 0]).max() < 4
    size = z.sum(1)
    shares = np.bincount(size.astype(int), minlength=players + 1)[1:players] / len(size)
    kernel = 1 / (np.arange(1, players) * np.arange(players - 1, 0, -1))
    np.testing.assert_allclose(shares, kernel / kernel.sum(), atol=0.01)


def test_coalitions_are_drawn_in_complements():
    for design in (designs.kernel_shap(12, 100, 0), designs.lime(12, 100, 0.25, 1.0, 0)):
        np.testing.assert_array_equal(design.keep[::2], ~design.keep[1::2])  # the first pair is all and none
        assert design.keep[0].all() and len(design.keep) == 100


def test_lime_is_a_weighted_ridge_regression():
    play, design = game(12), designs.lime(12, 80, 0.25, 1.0, 0)
    size = design.keep.mean(1)
    weights = np.exp(-((1 - np.sqrt(size)) ** 2) / 0.25**2) ** 0.5
    ridge = Ridge(alpha=1.0).fit(design.keep, play(design.keep), sample_weight=weights)
    np.testing.assert_allclose(values(design, play), ridge.coef_, atol=1e-10)


def test_single_removals_by_definition():
    play, everyone = game(7), np.ones((1, 7))
    alone = np.array([play(row[None])[0] for row in np.eye(7)]) - play(0 * everyone)[0]
    without = play(everyone)[0] - np.array([play(row[None])[0] for row in 1 - np.eye(7)])
    np.testing.assert_allclose(values(designs.one_at_a_time(7), play), alone, atol=1e-12)
    np.testing.assert_allclose(values(designs.leave_one_out(7), play), without, atol=1e-12)


def test_sampled_orders_are_exact_for_additive_games_and_complete():
    weights = np.random.default_rng(0).normal(size=64)
    design = designs.sampled_shapley(64, 6, 0)
    np.testing.assert_allclose(values(design, lambda keep: keep @ weights), weights, atol=1e-12)
    play = game(64)
    assert values(design, play).sum() == pytest.approx(play(np.ones((1, 64)))[0] - play(np.zeros((1, 64)))[0])


def test_gains_are_less_noisy_than_differences_of_means_over_other_sets():
    """The published approximation, with as many passes: at each size, the mean with a player minus that without it."""
    random, players, n_sets = np.random.default_rng(0), 64, 7
    weights = random.normal(size=players)
    place = np.stack([random.permutation(players) for _ in range(n_sets)])
    with_player, without = np.zeros((2, players, players + 1))
    for size in range(players + 1):
        keep = place < size
        scores = keep @ weights
        with np.errstate(invalid="ignore", divide="ignore"):
            with_player[:, size], without[:, size] = (scores @ k / k.sum(0) for k in (keep, ~keep))
    published = np.nanmean(with_player[:, 1:], 1) - np.nanmean(without[:, :-1], 1)
    assert np.sqrt(((published - weights) ** 2).mean() / (weights**2).mean()) > 1
    np.testing.assert_allclose(values(designs.sampled_shapley(64, 6, 0), lambda keep: keep @ weights), weights)


@pytest.mark.parametrize("players", [8, 9, 10])
def test_sampled_orders_approach_exact_values_within_their_errors(players):
    play, design = game(players), designs.sampled_shapley(players, 40, 0)
    error = values(design, play) - values(designs.exact_shapley(players), play)
    errors = present(engine._standard_errors(design, solution(design), play(design.keep)[:, None, None]))[:, 0, 0]
    assert np.abs(error / errors).max() < 4 and 0.5 < np.sqrt((error**2).mean() / (errors**2).mean()) < 2


DRAWS = {
    "kernel_shap": lambda seed: designs.kernel_shap(16, 500, seed),
    "lime": lambda seed: designs.lime(16, 500, 0.25, 1.0, seed),
    "orders": lambda seed: designs.sampled_shapley(16, 32, seed),
    "few orders of many players": lambda seed: designs.sampled_shapley(64, 6, seed),
}


@pytest.mark.parametrize("name", DRAWS)
def test_standard_errors_are_the_spread_over_seeds(name):
    results, errors = [], []
    for seed in range(40):
        design = DRAWS[name](seed)
        scores = game(design.keep.shape[1])(design.keep)[:, None, None]
        results.append(values(design, lambda keep, y=scores: y[:, 0, 0]))
        errors.append(present(engine._standard_errors(design, solution(design), scores))[:, 0, 0])
    spread = np.std(results, 0, ddof=1)
    assert 0.85 < np.sqrt((np.square(errors)).mean() / (spread**2).mean()) < 1.2


@pytest.mark.slow
def test_errors_of_few_masks_per_segment_are_too_large_rather_than_too_small():
    results, errors = [], []
    for seed in range(30):
        design = designs.kernel_shap(40, 160, seed)
        scores = game(40)(design.keep)
        results.append(solution(design) @ scores)
        errors.append(present(engine._standard_errors(design, solution(design), scores[:, None, None]))[:, 0, 0])
    assert 1.2 < np.sqrt(np.square(errors).mean() / np.var(results, 0, ddof=1).mean()) < 3


def test_few_players_and_masks():
    with pytest.raises(ValueError, match="at least 2 segments, got 1"):
        designs.kernel_shap(1, 100, 0)
    for seed in range(20):  # 5 random pairs of 4 players may not determine all values
        estimates = values(designs.kernel_shap(4, 12, seed), game(4))
        assert np.isfinite(estimates).all() and np.abs(estimates).max() < 10


def test_equal_coalitions_are_scored_once():
    design = designs.sampled_shapley(5, 8, 0)
    keep, inverse = design.distinct
    np.testing.assert_array_equal(keep[inverse], design.keep)
    assert len(np.unique(keep, axis=0)) == len(keep) < len(design.keep)
