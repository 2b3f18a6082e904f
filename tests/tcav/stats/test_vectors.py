"""Tests of concept vectors from K alone: golden values, primal solutions, weights, sets of different sizes, solvers."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from vtcav_jax.tcav.features.gram import center_kernel
from vtcav_jax.tcav.stats import kernel_lbfgs, vectors
from vtcav_jax.tcav.stats.vectors import FitConfig, classifier_scores, cosines, fit, label_vector

ORACLE = {
    "0.01": ([2.5610057, -0.0920465, 0.3668467, -0.0279665, -0.2244402], -0.1950887, 0.3451876409),
    "0.1": ([1.2089933, -0.0015925, 0.1468116, 0.0462273, -0.0905534], -0.1039587, 0.4715593776),
    "1.0": ([0.3059581, 0.0109129, 0.0354233, 0.0155237, -0.0216951], -0.025863, 0.6320468839),
}
DIFFERENCE = [1.565341124, 0.071501226, 0.178119483, 0.085752707, -0.11267645]
RIDGE = {0.1: [0.343741547, -0.016930168, 0.045413034, -0.113410708, -0.14636255]}
RIDGE[1.0] = [0.330857945, -0.013052631, 0.044157682, -0.019945163, -0.05258925]


@pytest.fixture
def probe():
    i, j = np.arange(20)[:, None], np.arange(5)[None]
    x = np.sin(0.7 * (i + 1) * (j + 1))
    y = np.where(np.arange(20) < 10, 1.0, -1.0)
    x[:, 0] += 0.8 * y
    return x, y


def clips(m, d, seed, shift=0.3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, d))
    x[: m // 2, 0] += shift * d**0.5
    return x


@pytest.mark.parametrize("lam", ORACLE)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_logistic_oracle(probe, lam, offset):
    x, y = probe
    x = x + offset
    fitted = fit(x @ x.T, y[None], FitConfig(l2=float(lam), relative_l2=False))
    w, b, objective = ORACLE[lam]
    np.testing.assert_allclose((fitted.a @ x)[0], w, atol=1e-7)
    np.testing.assert_allclose(fitted.intercept + offset * (fitted.a @ x).sum(1), b, atol=3e-6 if offset else 1e-7)
    f = classifier_scores(x @ x.T, fitted)[0]
    ours = np.logaddexp(0, -y * f).mean() + fitted.l2[0] / 2 * fitted.norm[0] ** 2
    np.testing.assert_allclose(ours, objective, atol=1e-9)
    assert fitted.converged.all() and fitted.residual.max() < 1e-7 and fitted.iterations.max() < 30


def test_other_estimators_oracle(probe):
    x, y = probe
    difference = fit(x @ x.T, y[None], FitConfig("mean_difference"))
    np.testing.assert_allclose((difference.a @ x)[0], DIFFERENCE, atol=1e-8)
    middle = (x[:10].mean(0) + x[10:].mean(0)) / 2 @ (difference.a @ x)[0]
    np.testing.assert_allclose(difference.intercept, -middle)
    for (
        alpha,
        w,
    ) in RIDGE.items():  # golden values have a sum of squares and labels 0 and 1: ours with l2 = alpha / n, halved
        ridge = fit(x @ x.T, y[None], FitConfig("ridge", l2=alpha / 20, relative_l2=False))
        np.testing.assert_allclose((ridge.a @ x)[0] / 2, w, atol=1e-7)


def primal(x, signed, lam):
    """Solve the logistic problem in feature space by Newton's method, to machine precision."""
    used, weights = signed != 0, np.abs(signed) / np.abs(signed).sum()
    x1 = np.c_[x, np.ones(len(x))][used]
    y, weights = np.sign(signed)[used], weights[used]
    penalty = lam * np.r_[np.ones(x.shape[1]), 0]

    def loss(w):
        wrong = -weights * y / (1 + np.exp(y * (x1 @ w)))
        return weights @ np.logaddexp(0, -y * (x1 @ w)) + penalty @ w**2 / 2, x1.T @ wrong + penalty * w

    w = minimize(loss, np.zeros(x1.shape[1]), jac=True, method="L-BFGS-B").x
    for _ in range(20):
        p = 1 / (1 + np.exp(x1 @ w))
        hessian = (x1 * (weights * p * (1 - p))[:, None]).T @ x1 + np.diag(penalty)
        w -= np.linalg.solve(hessian, loss(w)[1])
    return w


@pytest.mark.parametrize("lam", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("d", [8, 150])
def test_gram_solution_is_the_primal_optimum(lam, d):
    """Compare with the primal solution for weights, unused examples, and separable and inseparable sides."""
    x = clips(40, d, 1) + 3
    rng = np.random.default_rng(0)
    signed = np.where(np.arange(40) < 20, 1.0, -1.0)
    signed = np.stack([signed, signed * rng.integers(0, 3, 40), signed * (rng.random(40) < 0.4)])
    fitted = fit(x @ x.T, signed, FitConfig(l2=lam))
    assert fitted.converged.all()
    for i, row in enumerate(signed):
        used = x[row != 0]
        share = np.abs(row[row != 0]) / np.abs(row).sum()
        spread = (share * ((used - share @ used) ** 2).sum(1)).sum()
        np.testing.assert_allclose(fitted.l2[i], lam * spread)
        w = primal(x, row, fitted.l2[i])
        ours = fitted.a[i] @ x
        assert np.linalg.norm(ours - w[:-1]) < 1e-6 * np.linalg.norm(w[:-1])
        np.testing.assert_allclose(fitted.intercept[i], w[-1], atol=1e-5 * max(1, abs(w[-1])))
        np.testing.assert_allclose(fitted.norm[i], np.linalg.norm(ours))
        assert (fitted.a[i][row == 0] == 0).all() and abs(fitted.a[i].sum()) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["logistic", "ridge", "mean_difference"])
def test_many_small_sets_equal_one_at_a_time(estimator):
    """Compare vectors fitted with one K per vector, with a common K, and one at a time."""
    x = clips(200, 300, 2)
    kernel, sets = x @ x.T, np.arange(200).reshape(20, 10)
    signed = np.stack([label_vector(a[: 5 + i], b, 200) for i, (a, b) in enumerate(zip(sets[:5], sets[10:]))])
    training = FitConfig(estimator)
    together = fit(kernel, signed, training)
    assert vectors._row_blocks(signed != 0)[0][1]
    whole = fit(kernel, np.concatenate([signed, label_vector(range(100), range(100, 200), 200)[None]]), training)
    for i, row in enumerate(signed):
        alone = fit(kernel, row[None], training)
        for other in (together, whole):
            np.testing.assert_allclose(other.a[i], alone.a[0], atol=1e-6 * np.abs(alone.a).max())
            np.testing.assert_allclose(other.intercept[i], alone.intercept[0], atol=1e-6)


@pytest.mark.parametrize("estimator", ["logistic", "ridge", "mean_difference"])
def test_properties(estimator):
    x = clips(30, 50, 3)
    kernel, training = x @ x.T, FitConfig(estimator)
    labels, opposite = label_vector(range(10), range(10, 30), 30), label_vector(range(10, 30), range(10), 30)
    fitted = fit(kernel, np.stack([labels, opposite]), training)
    np.testing.assert_allclose(fitted.unit[0], -fitted.unit[1], atol=1e-7)
    np.testing.assert_allclose(cosines(kernel, fitted), [[1, -1], [-1, 1]], atol=1e-9)
    order = np.random.default_rng(0).permutation(30)
    shuffled = fit(kernel[np.ix_(order, order)], labels[None, order], training)
    np.testing.assert_allclose(shuffled.unit[0], fitted.unit[0][order], atol=1e-7)
    scaled = fit(100 * kernel, labels[None], training)  # l2 is relative
    np.testing.assert_allclose(scaled.unit[0] * 10, fitted.unit[0], atol=1e-7)
    moved = fit(center_kernel(kernel, np.arange(30.0)), labels[None], training)
    np.testing.assert_allclose(moved.unit[0], fitted.unit[0], atol=1e-6)
    twice = fit(kernel, np.stack([labels * (1 + (np.arange(30) == 3))]), training)
    index = np.r_[np.arange(30), 3]
    repeated = fit(kernel[np.ix_(index, index)], labels[None, index], training)
    np.testing.assert_allclose(twice.a[0] @ x, repeated.a[0] @ x[index], atol=1e-7)


def test_equal_examples_give_a_zero_vector():
    fitted = fit(np.ones((4, 4)), np.array([[1.0, 1, -1, -1]]))
    assert fitted.norm[0] < 1e-12 and fitted.converged.all()
    zero = fit(np.zeros((4, 4)), np.array([[1.0, -1, -1, -1]]))
    assert zero.norm[0] == 0 and np.isnan(zero.unit).all()


def test_negative_eigenvalues_of_float32_kernels_are_harmless():
    """Fit sets with their own K and fewer features than clips: negative eigenvalues must have no effect."""
    x = np.random.default_rng(0).normal(size=(300, 12))
    x[:, 0] += 8
    exact = x @ x.T
    rough = exact + np.random.default_rng(1).normal(size=exact.shape) * 3e-7 * np.abs(exact).max()
    rough = (rough + rough.T) / 2
    signed = np.stack([label_vector(range(i, i + 6), range(i + 6, i + 24), 300) for i in range(0, 270, 30)])
    assert np.linalg.eigvalsh(rough)[0] < -1e-4
    from_rough, from_exact = fit(rough, signed), fit(exact, signed)
    assert from_rough.converged.all()
    both = np.einsum("vm,mn,vn->v", from_rough.unit, exact, from_exact.unit)
    assert np.all(both > 0.999)


def test_unconverged_rows_are_reported():
    x = clips(30, 100, 4)
    fitted = fit(x @ x.T, label_vector(range(15), range(15, 30), 30)[None], FitConfig(l2=1e-3, max_iterations=3))
    assert not fitted.converged.any() and fitted.iterations[0] == 3 and fitted.residual[0] > 1e-7
    best = fit(x @ x.T, label_vector(range(15), range(15, 30), 30)[None], FitConfig(l2=1e-3))
    w, ours = best.a @ x, fitted.a @ x
    assert np.linalg.norm(w - ours) <= fitted.residual[0] * np.linalg.norm(ours)  # the bound given by the residual


def test_similar_sizes_share_a_program():
    solve_block: Any = kernel_lbfgs._solve_block
    solve_block.clear_cache()
    for size in (50, 57, 64):
        x = clips(size, 100, 4)
        assert fit(x @ x.T, label_vector(range(20), range(20, size), size)[None]).converged.all()
    assert solve_block._cache_size() == 1
    assert [kernel_lbfgs._padded(n) for n in (1, 32, 33, 48, 49, 64, 65, 97, 300)] == [
        32,
        32,
        48,
        48,
        64,
        64,
        96,
        128,
        384,
    ]


def test_kernels_without_cholesky_factor_are_solved():
    """Fit small sets with their own float32 K, for which Cholesky can fail."""
    x = clips(400, 3, 7)  # clips that differ in few directions, like frozen clips
    kernel = x @ x.T
    wrong = 1e-7 * np.abs(kernel).max() * np.random.default_rng(0).normal(size=kernel.shape)
    signed = np.stack([label_vector(range(i, i + 12), range(i + 200, i + 212), 400) for i in range(0, 180, 15)])
    clean, rounded = fit(kernel, signed), fit(kernel + (wrong + wrong.T) / 2, signed)
    assert rounded.converged.all()
    ours, other = (fitted.a @ x for fitted in (clean, rounded))
    assert (np.linalg.norm(ours - other, axis=1) <= 1e-3 * clean.norm).all()


@pytest.mark.parametrize("estimator", ["logistic", "ridge"])
@pytest.mark.parametrize("is_own_kernel", [False, True], ids=["one K", "each its own"])
def test_vectors_do_not_depend_on_those_fitted_with_them(estimator, is_own_kernel):
    x = clips(400 if is_own_kernel else 24, 60, 6, 0.3)
    rng = np.random.default_rng(1)
    samples = [rng.permutation(len(x))[:24] if is_own_kernel else rng.permutation(24) for _ in range(5)]
    signed = np.stack([label_vector(rows[:10], rows[10:], len(x), balanced=True) for rows in samples])
    together = fit(x @ x.T, signed, FitConfig(estimator))
    assert together.converged.all() and (together.residual <= 1e-7).all()
    for i, rows in enumerate(samples):
        alone = fit(x[rows] @ x[rows].T, signed[i : i + 1, rows], FitConfig(estimator))
        # Each solution is within its residual of the optimum
        assert np.linalg.norm(together.a[i] @ x - alone.a[0] @ x[rows]) <= 2e-7 * alone.norm[0]
        np.testing.assert_allclose(together.intercept[i], alone.intercept[0], atol=1e-6)


def test_balanced_labels_give_both_sides_the_same_weight():
    row = label_vector([0, 1], [2, 3, 4, 5, 6, 7], 9, balanced=True)
    np.testing.assert_allclose([row[row > 0].sum(), row[row < 0].sum(), row[8]], [4, -4, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: fit(k, np.ones((2, 4))), "both sides; rows 0, 1"),
        (lambda k: fit(k * np.nan, np.array([[1.0, -1, 0, 0]])), "not finite"),
        (lambda k: fit(k, np.array([[1.0, -1, 0, 0]]), FitConfig(l2=0.0)), "l2: expected more than 0, got 0"),
        (lambda k: FitConfig("svm"), "one of logistic, ridge, mean_difference, got 'svm'"),
        (lambda k: label_vector([0], [], 4), "negative needs at least one example"),
        (lambda k: label_vector([0, 7], [0, -1], 4), "there is no example 7, -1; an example must be listed only once"),
    ],
)
def test_errors_name_the_expected_values(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.eye(4))


def test_fits_with_the_same_examples_share_one_factor_of_the_kernel(monkeypatch):
    """Labels, permutations, resamples and folds of a comparison; other examples and other kernels have their own."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(40, 60))
    kernel, labels = x @ x.T, np.where(np.arange(40) < 20, 1.0, -1.0)
    weights = rng.integers(1, 4, 40)
    folds = np.stack([np.where(np.arange(40) % 4 == i, 0, labels) for i in range(4)])
    counts, eigh = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: counts.append(len(matrix)) or eigh(matrix))
    for rows in (labels[None], rng.permuted(np.tile(labels, (5, 1)), axis=1), (weights * labels)[None], folds):
        vectors.fit(kernel, rows)
    assert counts == [40]
    vectors.fit(kernel, folds[:1])
    vectors.fit(2 * kernel, labels[None])
    assert counts == [40, 30, 40]
