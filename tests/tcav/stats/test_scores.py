"""Tests of TCAV scores: an analytic network, networks with known scores, ties, and degenerate stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.support.typed import set_stages
from vtcav_jax.tap import identity_tap
from vtcav_jax.tcav.features import feature_store
from vtcav_jax.tcav.features.encode import EncodeConfig, encode
from vtcav_jax.tcav.features.gram import Gram, compute_gram
from vtcav_jax.tcav.features.microbatches import in_memory
from vtcav_jax.tcav.stats.scores import derivatives, gradient_stats, sign_counts, tcav_scores
from vtcav_jax.tcav.stats.vectors import FitConfig, fit, label_vector

LOGIT = [
    [-0.442840331, -0.4480387231, -0.3801946805, -0.4322831828, -0.4928899763, -0.5006386245],
    [-0.9528329889, -1.4775136589, -1.4550491252, -1.4479275811, -1.4878341284, -1.5031981401],
    [1.3647610122, 0.7501815133, 0.7206894638, 0.8371516991, 0.959440092, 1.0015724206],
    [0.2506722216, 1.418856908, 1.1851784247, 1.1288365836, 1.1343786636, 1.1215225247],
]
PROBABILITY = [0.2701449902, 0.1783510782, 0.1908745166, 0.222290875, 0.2575903061, 0.2710419522]  # class 2
INTEGRATED = [1.040788, 0.829866, 0.810597, 0.868398, 0.929419, 0.950357]  # class 2


def oracle(parameters, video, tap=identity_tap):
    h = tap("h", jnp.tanh(video.reshape(len(video), -1) @ parameters[0].T))
    z = h @ parameters[1].T + parameters[2][None]
    return jax.nn.gelu(z, approximate=True) @ parameters[3].T


set_stages(oracle, ("h",))


def oracle_gram(dtype, vector, **encoding):
    i, k, j, q, c = (np.arange(n)[:, None] for n in (6, 36, 12, 8, 4))
    x = np.sin(0.37 * (i + 1) * (k.T + 1) + 0.11 * i).reshape(6, 2, 3, 3, 2).astype(dtype)
    parameters = (
        np.cos(0.05 * (j + 1) * (k.T + 1)) / 6,
        np.sin(0.21 * (q + 1) * (j.T + 1)) / 2,
        0.1 * np.cos(q[:, 0]),
        np.cos(0.31 * (c + 1) * (q.T + 2)),
    )
    model = Partial(oracle, [jnp.asarray(p, dtype) for p in parameters])
    out = encode(model, in_memory(x), in_memory(x), range(4), "h", EncodeConfig(batch_size=4, **encoding))
    pair = feature_store.features_from_array(np.stack([vector, 0 * vector]).astype(dtype))
    return compute_gram(pair, out.gradients["h"], 4), out.scores


FIXED = np.array([[1.0, -1.0]])  # the mean difference of a vector and 0 is the vector


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-6), (np.float64, 1e-9)])
def test_oracle(dtype, atol):
    with jax.enable_x64(dtype == np.float64), jax.numpy_dtype_promotion("standard"):
        sines = np.sin(np.arange(12) + 1.0)
        gram, logits = oracle_gram(dtype, sines)
        vector = fit(gram.kernel, FIXED, FitConfig("mean_difference"))
        np.testing.assert_allclose(logits[0], [0.74283044, -1.30876302, -0.65997753, -3.41102132], atol=1e-6)
        np.testing.assert_allclose(derivatives(gram, vector.a)[:, :, 0], LOGIT, atol=atol)
        result = tcav_scores(gram, vector)
        np.testing.assert_array_equal(result.sign_count[:, 0], [0, 0, 1, 1])
        np.testing.assert_allclose(result.derivative[2, 0], 0.3744104683, atol=atol)
        log, log_probs = oracle_gram(dtype, sines, score_fn="log_prob")
        probability = derivatives(log, vector.a)[2, :, 0] * np.exp(log_probs[:, 2])
        np.testing.assert_allclose(probability, PROBABILITY, atol=atol)
        path, _ = oracle_gram(dtype, sines, sensitivity="integrated", integration_steps=12)
        np.testing.assert_allclose(derivatives(path, vector.a)[2, :, 0], INTEGRATED, atol=2e-6)


def test_logit_and_probability_may_disagree():
    cosines = np.cos(1.87 * (np.arange(12) + 1.0))
    for name, expected in {"logit": [1, 1 / 6, 5 / 6, 4 / 6], "log_prob": [1, 1 / 6, 2 / 6, 0]}.items():
        gram, _ = oracle_gram(np.float32, cosines, score_fn=name)
        vector = fit(gram.kernel, FIXED, FitConfig("mean_difference"))
        np.testing.assert_allclose(tcav_scores(gram, vector).sign_count[:, 0], expected, rtol=1e-6)


def planted(video, tap=identity_tap):
    """Return scores of three classes: the first channel raises class 0, lowers class 1 and does not affect class 2."""
    x = tap("x", video)
    brightness = x.mean((1, 2, 3))
    return jnp.stack([jnp.exp(brightness[:, 0]), -jnp.exp(brightness[:, 0]), jnp.tanh(brightness[:, 1])], -1)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["none", "space", "all"])
@pytest.mark.parametrize("estimator", ["logistic", "ridge", "mean_difference"])
def test_a_network_with_sign_counts_0_and_1(pool, estimator):
    rng = np.random.default_rng(0)
    examples, targets = (rng.normal(size=(n, 2, 3, 3, 2)).astype(np.float32) for n in (60, 20))
    examples[:30, ..., 0] += 1.5
    out = encode(planted, in_memory(examples), in_memory(targets), [0, 1, 2], "x", EncodeConfig(pool))
    gram = compute_gram(out.examples["x"], out.gradients["x"], 3)
    result = tcav_scores(gram, fit(gram.kernel, label_vector(range(30), range(30, 60), 60)[None], FitConfig(estimator)))
    np.testing.assert_array_equal(result.sign_count[:2, 0], [1, 0])
    assert (
        result.relative_derivative[0, 0] > 0.6
        and result.relative_derivative[1, 0] < -0.6
        and abs(result.relative_derivative[2, 0]) < 0.4
    )
    # Gradients with one direction and different norms: the sign count is 0 or 1 all the same
    assert (gradient_stats(gram).variation > 1e-3).all() and gradient_stats(gram).degenerate.all()


def random_gram(seed=0, m=24, n=13, d=200, classes=2):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=(m, d)), rng.normal(size=(classes * n, d)) + 0.3
    return (
        compute_gram(feature_store.features_from_array(x), feature_store.features_from_array(g), classes),
        x,
        g.reshape(classes, n, d),
    )


def test_scores_match_explicit_vectors(float64):
    gram, x, g = random_gram()
    signed = np.stack([label_vector(range(8), range(8, 24), 24), label_vector(range(0, 24, 3), range(1, 24, 3), 24)])
    vectors = fit(gram.kernel, signed)
    w = vectors.a @ (x - x.mean(0))
    along = np.einsum("cnd,vd->cnv", g, w / np.linalg.norm(w, axis=1, keepdims=True))
    result = tcav_scores(gram, vectors)
    np.testing.assert_allclose(result.derivative, along.mean(1), atol=1e-12)
    np.testing.assert_allclose(result.sign_count, (along > 0).mean(1))
    lengths = np.linalg.norm(g, axis=-1).mean(1, keepdims=True)
    np.testing.assert_allclose(result.relative_derivative, along.mean(1) / lengths, atol=1e-12)


def test_opposite_concepts_have_opposite_scores():
    gram, _, _ = random_gram()
    vectors = fit(
        gram.kernel, np.stack([label_vector(range(8), range(8, 24), 24), label_vector(range(8, 24), range(8), 24)])
    )
    result = tcav_scores(gram, vectors)
    np.testing.assert_allclose(result.sign_count[:, 0], 1 - result.sign_count[:, 1], rtol=1e-12)
    np.testing.assert_allclose(result.derivative[:, 0], -result.derivative[:, 1], atol=1e-7)


def test_a_tie_counts_half_and_a_vector_of_length_0_has_no_score():
    along = np.array([[[1.0, np.nan], [1e-9, np.nan], [-2.0, np.nan], [0.0, np.nan]]])
    np.testing.assert_array_equal(sign_counts(along, np.ones((1, 4))), [[0.5, np.nan]])
    still = Gram(np.eye(4), np.zeros((1, 3, 4)), np.zeros((1, 3, 3)))
    result = tcav_scores(still, fit(np.eye(4), np.array([[1.0, 1, -1, -1]])))
    assert result.sign_count[0, 0] == 0.5 and result.n_ties[0, 0] == 3 and np.isnan(result.relative_derivative[0, 0])
    assert (
        gradient_stats(still).zero_gradient[0]
        and gradient_stats(still).degenerate[0]
        and np.isnan(gradient_stats(still).variation[0])
    )


def linear_head(video, tap=identity_tap):
    x = jnp.tanh(3 * tap("deep", video))
    return tap("pool", x.mean((1, 2, 3))) @ jnp.asarray([[1.0, -2, 0.5], [0.3, 0.2, 1]], x.dtype)


def test_only_a_linear_head_is_degenerate():
    rng = np.random.default_rng(0)
    examples, targets = (rng.normal(size=(n, 2, 3, 3, 2)).astype(np.float32) for n in (30, 20))
    out = encode(linear_head, in_memory(examples), in_memory(targets), [0, 1], ("deep", "pool"))
    grams = {name: compute_gram(out.examples[name], out.gradients[name], 2) for name in ("deep", "pool")}
    assert gradient_stats(grams["pool"]).degenerate.all() and (gradient_stats(grams["pool"]).variation < 1e-6).all()
    assert (
        not gradient_stats(grams["deep"]).degenerate.any()
        and (gradient_stats(grams["deep"]).gradient_diversity > 0.1).all()
    )
    vectors = fit(grams["pool"].kernel, label_vector(range(15), range(15, 30), 30)[None])
    w = out.examples["pool"].linear_combination(vectors.unit)[0]
    result = tcav_scores(grams["pool"], vectors)
    weights = np.array([[1.0, 0.3], [-2, 0.2]])
    along = derivatives(grams["pool"], vectors.unit)[:, :, 0]
    np.testing.assert_allclose(along, np.tile((weights @ w)[:, None], 20), rtol=1e-4)
    np.testing.assert_allclose(
        result.relative_derivative[:, 0], weights @ w / np.linalg.norm(weights, axis=1), rtol=1e-4
    )
    assert set(result.sign_count.ravel()) <= {0.0, 1.0}
