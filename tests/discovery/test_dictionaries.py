"""Dictionaries recover planted directions, and their codes obey the definitions of each method."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import ArrayLike
from scipy.optimize import linear_sum_assignment, nnls

from vtcav_jax.discovery.config import DECOMPOSITIONS
from vtcav_jax.discovery.dictionaries import (
    SPARSITY,
    TokenPairs,
    damping,
    encode_tokens,
    explained_share,
    first_sufficient,
    fit_dictionary,
    fit_smallest_sufficient,
)

pytestmark = pytest.mark.usefixtures("usual_promotion")
CHANNELS, CONCEPTS = 20, 6


def planted_tokens(n: int = 4000, *, active: int = 1) -> tuple[TokenPairs, np.ndarray]:
    """Return tokens that each are a positive sum of a few of six directions, with a little noise."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(CONCEPTS, CHANNELS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = np.zeros((n, CONCEPTS))
    for row in codes:
        row[random.choice(CONCEPTS, active, replace=False)] = random.uniform(1, 3, active)
    now, after = (codes @ directions + 0.02 * random.normal(size=(n, CHANNELS)) for _ in range(2))
    return TokenPairs(now.astype(np.float32), after.astype(np.float32)), directions


def best_cosines(ours: ArrayLike, planted: np.ndarray) -> np.ndarray:
    """Return the cosine of each planted direction with one of ours, matched one to one."""
    cosines = np.asarray(ours) @ planted.T
    rows, columns = linear_sum_assignment(-cosines)
    return cosines[rows, columns]


@pytest.mark.slow
@pytest.mark.parametrize("method", DECOMPOSITIONS)
def test_every_method_recovers_directions_that_occur_alone(method):
    tokens, planted = planted_tokens()
    dictionary = fit_dictionary(method, tokens, CONCEPTS, seed=0)
    np.testing.assert_allclose(np.linalg.norm(dictionary.directions, axis=1), 1, atol=1e-5)
    missed = 2 if method == "kmeans" else 0  # two centres can share a direction, and two directions a centre
    assert np.sort(best_cosines(dictionary.directions, planted))[missed] > 0.95


def test_nmf_recovers_directions_that_occur_together():
    tokens, planted = planted_tokens(active=2)
    dictionary = fit_dictionary("nmf", tokens, CONCEPTS, seed=0)
    assert best_cosines(dictionary.directions, planted).min() > 0.95


@pytest.mark.slow
def test_the_same_seed_gives_the_same_directions():
    tokens, _ = planted_tokens(1000)
    first, second = (fit_dictionary("topk_sae", tokens, 4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.directions, second.directions)


def test_nmf_codes_solve_the_penalised_problem():
    tokens, _ = planted_tokens(200, active=2)
    dictionary = fit_dictionary("nmf", tokens, CONCEPTS, seed=0)
    x = jnp.asarray(tokens.now[:20])
    codes = np.asarray(encode_tokens("nmf", dictionary, x))
    factor = np.asarray(damping(x, dictionary.scale))
    directions = np.asarray(dictionary.directions, np.float64)
    for row, f, ours in zip(np.asarray(x / factor, np.float64), factor[:, 0], codes, strict=True):
        # The penalty is one more row of a least squares problem: minimise |x - Dz|^2 + 2 penalty sum(z)
        shift = np.linalg.lstsq(directions, np.full(CONCEPTS, SPARSITY), rcond=None)[0]
        expected, _ = nnls(directions.T, row - shift)
        np.testing.assert_allclose(ours / f, expected, atol=2e-3)


@pytest.mark.slow
def test_codes_of_the_autoencoder_and_of_kmeans_are_sparse():
    tokens, _ = planted_tokens(1000)
    for method, active in (("topk_sae", 2), ("kmeans", 1)):
        codes = np.asarray(encode_tokens(method, fit_dictionary(method, tokens, 8, seed=0), jnp.asarray(tokens.now)))
        assert (codes >= 0).all() and (codes > 0).sum(1).max() <= active, method


@pytest.mark.slow
def test_explained_share_against_least_squares():
    tokens, _ = planted_tokens(500, active=2)
    x = np.asarray(tokens.now, np.float64)
    dictionary = fit_dictionary("nmf", tokens, CONCEPTS, seed=0)
    codes = np.asarray(encode_tokens("nmf", dictionary, jnp.asarray(tokens.now)), np.float64)
    directions = np.asarray(dictionary.directions, np.float64)
    share, added = explained_share(jnp.asarray(codes), jnp.asarray(x), jnp.asarray(directions))

    def residual(columns: list[int]) -> float:
        return float(((x - codes[:, columns] @ directions[columns]) ** 2).sum() / (x**2).sum())

    everything = list(range(CONCEPTS))
    np.testing.assert_allclose(share, 1 - residual(everything), rtol=1e-3)
    without = [residual([i for i in everything if i != j]) - residual(everything) for j in everything]
    np.testing.assert_allclose(added, without, rtol=1e-2, atol=1e-5)


@pytest.mark.slow
def test_the_smallest_sufficient_size():
    assert first_sufficient((0.5, 0.97, 1.0)) == 1
    assert first_sufficient((0.1, 0.9)) == 1
    assert first_sufficient((-0.2, -0.1)) == 0
    tokens, _ = planted_tokens(2000)
    assert len(fit_smallest_sufficient("nmf", tokens, tokens.after, seed=0).directions) == 8  # of 6 that are planted
