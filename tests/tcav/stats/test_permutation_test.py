"""Tests of p-values and intervals: golden values, enumeration, and uniform p-values under the null hypothesis."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.tcav.features import feature_store
from vtcav_jax.tcav.features.gram import Gram, compute_gram, contrast_gram
from vtcav_jax.tcav.saha2024 import published_t_test, t_test_against_half
from vtcav_jax.tcav.stats.bootstrap import bootstrap
from vtcav_jax.tcav.stats.multiple_testing import adjust_p, attainable
from vtcav_jax.tcav.stats.permutation_test import (
    calibrate,
    min_attainable_p,
    permutation_tests,
    permute_labels,
    set_permutation_tests,
)
from vtcav_jax.tcav.stats.scores import derivatives, tcav_scores
from vtcav_jax.tcav.stats.step_effect import cross_fitted_steps, step_folds
from vtcav_jax.tcav.stats.vector_validation import stratified_folds, validate_vector
from vtcav_jax.tcav.stats.vectors import FitConfig, fit, label_vector

DIFFERENCE = FitConfig("mean_difference")


@pytest.mark.parametrize(
    ("runs", "published", "correct"),
    [([39, 53, 55, 58], 0.0003811, 0.0150), ([7, 55, 59], 0.431, 0.599)],
)
def test_published_p_values_and_those_without_double_counting(runs, published, correct):
    shares = np.array(runs) / 60
    np.testing.assert_allclose(published_t_test(shares)[1], published, rtol=5e-4)
    np.testing.assert_allclose(t_test_against_half(shares)[1], correct, rtol=5e-3)
    assert np.isnan([*t_test_against_half(np.ones(4)), *published_t_test(np.ones(4))]).all()


P = np.array([0.001, 0.012, 0.03, 0.04, 0.2])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("bonferroni", [0.005, 0.06, 0.15, 0.2, 1]),
        ("holm", [0.005, 0.048, 0.09, 0.09, 0.2]),
        ("bh", [0.005, 0.03, 0.05, 0.05, 0.2]),
    ],
)
def test_corrections_oracle(method, expected):
    np.testing.assert_allclose(adjust_p(P, method), expected)
    order = np.array([3, 1, 4, 0, 2])
    np.testing.assert_allclose(adjust_p(P[order], method), np.array(expected)[order])
    holes = np.array([[np.nan, *P[:2]], [*P[2:]]])
    np.testing.assert_allclose(adjust_p(holes, method).ravel(), [np.nan, *expected])


def test_underpowered_families_are_rejected():
    refused = attainable(1 / 21, 144, 0.05, "bonferroni")
    message = r"144 tests, correction bonferroni.*0.0476, adjusted 1; .* 2879 sets are needed, or a family of at most 1"
    with pytest.raises(ValueError, match=message):
        refused.require("sets")
    assert attainable(1 / 2880, 144, 0.05, "bonferroni").possible and refused.n_needed == 2879
    assert not attainable(1 / 2879, 144, 0.05, "holm").possible
    only_together = attainable(1 / 1000, 144, 0.05, "bh")
    assert only_together.possible and not only_together.can_pass_alone
    only_together.require()


def toy(seed=0, m=16, n=9, d=60, classes=2, shift=0.0, tilt=0.0):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=(m, d)), rng.normal(size=(classes * n, d))
    x[: m // 2, 0] += shift
    g[:, 0] += tilt
    return compute_gram(feature_store.features_from_array(x), feature_store.features_from_array(g), classes)


def test_permutation_test_matches_enumeration():
    """Compare all 20 choices of 3 out of 6 clips with 4999 permutations."""
    gram = toy(m=6)
    signed = label_vector(range(3), range(3, 6), 6)
    rows = np.stack([label_vector(up, set(range(6)) - set(up), 6) for up in combinations(range(6), 3)])
    vectors = fit(gram.kernel, rows, DIFFERENCE)
    means = np.abs(derivatives(gram, vectors.unit).mean(1))
    exact = (means >= means[:, :1] - 1e-12).mean(1)
    result = permutation_tests([gram], signed, DIFFERENCE, permutations=4999)[0]
    np.testing.assert_allclose(result.p, exact, atol=0.02)
    assert result.p_min_attainable == 0.1 and (result.p >= 0.1).all()  # 2 of 20 choices: the observed and its opposite
    np.testing.assert_allclose(result.derivative, derivatives(gram, vectors.unit).mean(1)[:, 0])


def test_permuted_labels_stay_in_their_blocks():
    signed = np.array([1.0, -1, 2, -2, 0, 1, -1, 0])
    pairs = np.array([5, 5, 1, 1, 9, 3, 3, 9])
    drawn = permute_labels(signed, 200, np.random.default_rng(0), pairs)
    for pair in ([0, 1], [2, 3], [5, 6]):
        assert (np.sort(drawn[:, pair], 1) == np.sort(signed[pair])).all()
        assert 0.3 < (drawn[:, pair[0]] == signed[pair[0]]).mean() < 0.7
    assert (drawn[:, [4, 7]] == 0).all()
    free = permute_labels(signed, 200, np.random.default_rng(0))
    assert (np.sort(free, 1) == np.sort(signed)).all() and len(np.unique(free, axis=0)) > 50
    assert min_attainable_p(signed, 999, pairs) == 2 / 8
    assert min_attainable_p(label_vector([0], range(1, 8), 8), 999) == 1 / 8
    assert min_attainable_p(label_vector(range(20), range(20, 40), 40), 999) == 1e-3


@pytest.mark.parametrize("estimator", ["logistic", "mean_difference"])
def test_p_values_of_random_choices_are_uniform(estimator):
    """Test random clips as a concept for a network with a preferred direction, also by the (discrete) sign count."""
    p, sign_p = [], []
    for seed in range(60):
        gram = toy(seed, m=24, classes=1, tilt=1.0)
        result = permutation_tests(
            [gram], label_vector(range(8), range(8, 24), 24), FitConfig(estimator), permutations=99, seed=seed
        )[0]
        p.append(result.p[0])
        sign_p.append(result.p_sign_count[0])
        assert result.n_not_converged == 0
    p = np.array(p) - np.random.default_rng(0).uniform(0, 0.01, 60)  # p-values lie on a grid of 0.01
    assert stats.kstest(p, "uniform").pvalue > 0.05
    assert (np.array(sign_p) <= 0.1).mean() <= 0.25


def test_a_sequential_test_has_the_same_small_p_values():
    """Compute the sequential p-value by hand from the same permutations."""
    gram, signed = toy(4, m=30, n=12, tilt=0.6), label_vector(range(10), range(10, 30), 30)
    whole, early = (
        permutation_tests([gram], signed, DIFFERENCE, permutations=999, max_exceedances=e)[0] for e in (None, 20)
    )
    for name, values in (("p", whole.null_derivatives), ("p_step_effect", None)):
        for c, p in enumerate(getattr(whole, name)):
            if p <= 20 / 1000:
                assert getattr(early, name)[c] == p
            elif values is not None:
                further = np.flatnonzero(np.abs(values[:, c]) >= abs(whole.derivative[c]) * (1 - 1e-6))
                assert early.p[c] == 20 / (1 + further[19])
    assert (whole.p > 0.05).any() and len(early.null_derivatives) < 999
    strong = toy(m=60, shift=8.0, tilt=2.0)
    assert (
        permutation_tests([strong], label_vector(range(30), range(30, 60), 60), permutations=499, max_exceedances=20)[
            0
        ].p
        == 1 / 500
    ).all()


@pytest.mark.slow
@pytest.mark.parametrize("max_exceedances", [None, 8])
def test_false_positive_rate_is_alpha(max_exceedances):
    """Run 400 trials of logistic vectors; with 199 permutations p <= 0.05 has a probability of exactly 5 %."""
    p, step_p = np.empty(400), np.empty(400)
    for seed in range(400):
        gram = toy(1000 + seed, m=36, d=80, classes=1, tilt=1.0)
        test = permutation_tests(
            [gram],
            label_vector(range(12), range(12, 36), 36),
            permutations=199,
            seed=seed,
            max_exceedances=max_exceedances,
        )[0]
        p[seed], step_p[seed] = test.p[0], test.p_step_effect[0]
    for values in (p, step_p):
        assert stats.binomtest(int((values <= 0.05).sum()), 400, 0.05).pvalue > 0.01
        assert stats.binomtest(int((values <= 0.5).sum()), 400, 0.5).pvalue > 0.01


def test_a_known_cause_is_significant_by_labels_and_by_sets():
    gram = toy(m=120, shift=8.0, tilt=2.0)
    result = permutation_tests([gram], label_vector(range(60), range(60, 120), 120), permutations=199)[0]
    np.testing.assert_allclose(result.p, 1 / 200)
    sets = [np.arange(i, i + 6) for i in range(0, 120, 6)]
    by_set = set_permutation_tests([gram], [sets[0], *sets[10:]])[0]
    np.testing.assert_allclose(by_set.p, 1 / 11)
    assert by_set.p_min_attainable == 1 / 11 and (by_set.derivative > 0).all()


def test_calibration_detects_sets_that_are_not_exchangeable():
    sets = [np.arange(i, i + 5) for i in range(0, 60, 5)]
    fair = calibrate(toy(1, m=60, tilt=1.0), sets, DIFFERENCE, permutations=99)
    assert fair.n_trials == 24 and fair.rate < 0.2 and fair.interval[0] <= 0.05 <= fair.interval[1]
    rng = np.random.default_rng(0)  # clips of a set share a component that the class depends on
    x, g = rng.normal(size=(60, 40)), rng.normal(size=(20, 40))
    x[:, 0] += 3 * np.repeat(rng.normal(size=12), 5)
    g[:, 0] += 3
    clustered = compute_gram(feature_store.features_from_array(x), feature_store.features_from_array(g))
    assert calibrate(clustered, sets, DIFFERENCE, permutations=99).interval[0] > 0.05


def test_bootstrap_separates_the_sources_of_uncertainty():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(80, 30)), np.repeat(rng.normal(size=(1, 30)), 12, 0)
    x[:40, 0] += 5
    g[:, 0] += 5
    gram = compute_gram(feature_store.features_from_array(x), feature_store.features_from_array(g))
    signed = label_vector(range(40), range(40, 80), 80)
    result = bootstrap([gram], signed, draws=200)[0]
    estimate = tcav_scores(gram, fit(gram.kernel, signed[None]))
    width = {source: high - low for source, (low, high) in result.derivative.items()}
    assert width["targets"] < 1e-5 < 0.05 < min(width["concept"], width["negatives"]) < width["all"]  # one gradient
    for low, high in result.derivative.values():
        assert low - 1e-5 <= estimate.derivative[0, 0] <= high + 1e-5
    low, high = result.step_interval
    assert low < result.step_effect < high


def test_bootstrap_over_targets_matches_scipy():
    gram = toy(3, m=20, n=40, classes=1, tilt=1.0)
    signed = label_vector(range(10), range(10, 20), 20)
    along = derivatives(gram, fit(gram.kernel, signed[None]).unit)[0, :, 0]
    expected = stats.bootstrap((along,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    ours = np.array(bootstrap([gram], signed, draws=4000)[0].derivative["targets"]) - along.mean()
    factor = (40 / 39) ** 0.5 * stats.t.ppf(0.975, 39) / stats.norm.ppf(0.975)
    scaled = factor * (np.array([expected.low, expected.high]) - along.mean())
    np.testing.assert_allclose(ours, scaled, atol=0.08 * along.std())


def test_cross_fitted_steps_by_hand():
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=(12, 5)), rng.normal(size=(4, 5))
    x[:6] += 1
    gram = Gram(x @ x.T, (g @ x.T)[None], (g @ g.T)[None])
    signed, videos = label_vector(range(6), range(6, 12), 12), np.repeat(np.arange(6), 2)
    folds = step_folds(signed, videos, np.random.default_rng(0))
    assert folds is not None and all(len(set(folds[videos == v])) == 1 for v in range(6))
    expected = np.zeros(4)
    for k in range(3):
        up, down = ((folds == k) & (sign * signed > 0) for sign in (1, -1))
        train = np.where(folds == k, 0, signed)
        w = x[train > 0].mean(0) - x[train < 0].mean(0)
        unit = w / np.linalg.norm(w)
        expected += (g @ unit) * ((x[up].mean(0) - x[down].mean(0)) @ unit) / 3
    steps = cross_fitted_steps([gram], signed[None], folds, DIFFERENCE)[0]
    np.testing.assert_allclose(steps[0, :, 0], expected)


@pytest.mark.slow
def test_a_cross_fitted_step_is_0_on_average_where_there_is_no_concept():
    in_sample, cross_fitted = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, g = rng.normal(size=(60, 100)), rng.normal(size=(3, 100))
        gram = Gram(x @ x.T, (g @ x.T)[None], (g @ g.T)[None])
        signed = label_vector(range(20), range(20, 60), 60)
        cross_fitted.append(bootstrap([gram], signed, draws=2, seed=seed)[0].step_effect)
        in_sample.append(permutation_tests([gram], signed, permutations=1)[0].step_effect[0])
    assert np.std(cross_fitted) < 0.3 * np.std(in_sample)  # the distance between the means is 0, not that of training


def test_videos_are_exchanged_as_wholes():
    signed, videos = label_vector(range(6), range(6, 24), 24), np.repeat(np.arange(8), 3)
    rows = permute_labels(signed, 200, np.random.default_rng(0), units=videos)
    assert all((rows[:, videos == v] == rows[:, videos == v][:, :1]).all() for v in range(8))
    assert set((rows > 0).sum(1)) == {6} and len(np.unique(rows, axis=0)) == 28  # of 8 videos 2 are the concept
    assert min_attainable_p(signed, 999, units=videos) == 1 / 28
    mixed = np.repeat(np.arange(6), 4)  # the first video has four concept clips, the second two and two negatives
    rows = permute_labels(signed, 200, np.random.default_rng(0), units=mixed)
    assert set((rows[:, mixed == 1] > 0).sum(1)) == {2} and set((rows > 0).sum(1)) == {6}
    assert min_attainable_p(signed, 999, units=mixed) == pytest.approx(1 / (5 * 6))
    strata = np.arange(24) % 2
    rows = permute_labels(signed, 50, np.random.default_rng(0), strata=strata)
    assert set((rows[:, strata == 0] > 0).sum(1)) == {3}


def test_pairs_of_one_video_are_swapped_together():
    signed, pairs = label_vector(range(6), range(6, 12), 12), np.r_[np.arange(6), np.arange(6)]
    videos = pairs // 2
    rows = permute_labels(signed, 100, np.random.default_rng(0), pairs, videos)
    assert (rows[:, :6] == -rows[:, 6:]).all() and (rows[:, 0:6:2] == rows[:, 1:6:2]).all()
    assert min_attainable_p(signed, 999, pairs, videos) == 2 / 2**3 and min_attainable_p(signed, 999, pairs) == 2 / 2**6


@pytest.mark.slow
def test_the_level_holds_for_clips_of_few_videos():
    """Five concept videos of five clips each, with correlated clips: videos are exchangeable, clips are not."""
    p = {"video": [], "clip": []}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        videos = np.repeat(np.arange(30), 5)
        x = 0.6**0.5 * rng.normal(size=(30, 40))[videos] + 0.4**0.5 * rng.normal(size=(150, 40))
        g = rng.normal(size=(5, 40)) + 1
        gram, signed = Gram(x @ x.T, (g @ x.T)[None], (g @ g.T)[None]), label_vector(range(25), range(25, 150), 150)
        for unit, units in (("video", videos), ("clip", None)):
            test = permutation_tests([gram], signed, DIFFERENCE, permutations=199, units=units, seed=seed)[0]
            p[unit].append(test.p_step_effect[0])
    rejected = {unit: int((np.array(values) <= 0.05).sum()) for unit, values in p.items()}
    assert wilson_ci(rejected["video"], 60)[0] <= 0.05 and rejected["video"] <= 8
    assert wilson_ci(rejected["clip"], 60)[0] > 0.05


def test_a_contrast_cancels_what_a_control_does_to_every_clip():
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(40, 30))
    frozen = clips + 3.0  # freezing moves every clip alike
    clips[:20, 0] += 2  # only concept clips lose something when frozen
    x, g = np.concatenate([clips, frozen]), np.ones((3, 30))
    gram = Gram(x @ x.T, (g @ x.T)[None], (g @ g.T)[None])
    pairs = [(i, 40 + i) for i in range(40)]
    differences = contrast_gram(gram, pairs)
    d = clips - frozen
    np.testing.assert_allclose(differences.kernel, d @ d.T, atol=1e-9)
    np.testing.assert_allclose(differences.cross[0], g @ d.T, atol=1e-9)
    unit = fit(differences.kernel, label_vector(range(20), range(20, 40), 40)[None], DIFFERENCE).unit @ d
    assert abs(unit[0, 0]) > 0.99


def test_validation_separates_a_concept_from_random_clips():
    gram = toy(2, m=40, shift=6.0)
    concept = validate_vector(gram.kernel, label_vector(range(20), range(20, 40), 40), permutations=99)
    assert concept.auc > 0.95 and concept.p == 0.01 and concept.is_encoded() and concept.split_half > 0.4
    nothing = [
        validate_vector(toy(seed, m=40).kernel, label_vector(range(20), range(20, 40), 40), DIFFERENCE, permutations=39)
        for seed in range(30)
    ]
    assert abs(np.mean([q.auc for q in nothing]) - 0.5) < 0.06 and np.mean([q.is_encoded() for q in nothing]) <= 0.2
    assert abs(np.mean([q.split_half for q in nothing])) < 0.06


def test_clips_of_one_video_share_a_fold():
    """Give each video its own appearance on one side: recognising the video must not count as the concept."""
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(12), 4)
    x = 3 * rng.normal(size=(12, 200))[video] + rng.normal(size=(48, 200))
    signed = label_vector(range(24), range(24, 48), 48)
    grouped = validate_vector(x @ x.T, signed, DIFFERENCE, permutations=39, groups=video)
    mixed = validate_vector(x @ x.T, signed, DIFFERENCE, permutations=39)
    assert mixed.auc > 0.95 and mixed.split_half > 0.55 and mixed.p == 1 / 40
    assert grouped.auc < 0.85 and grouped.split_half < 0.5
    for seed in range(5):
        fold = stratified_folds(signed, 5, np.random.default_rng(seed), video)
        assert all(len(set(fold[video == v])) == 1 for v in range(12))
        assert all((np.bincount(fold[side], minlength=5) >= 4).all() for side in (signed > 0, signed < 0))
    pairs = np.r_[np.arange(24), np.arange(24)]  # each clip of one side has its matched control on the other
    both = validate_vector(
        x @ x.T, signed, DIFFERENCE, permutations=19, blocks=pairs, groups=np.arange(48) // 24 * 50 + video
    )
    assert both.n_folds == 5 and 0 <= both.auc <= 1
    with pytest.raises(ValueError, match=r"clips from 2 videos .* on each side, got \[1, 3\]"):
        stratified_folds(signed, 5, rng, np.r_[np.zeros(24, int), 1 + np.arange(24) % 3])


def test_held_out_auc_by_hand():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(20, 6))
    x[:8, 0] += 1
    signed = label_vector(range(8), range(8, 20), 20)
    fold = stratified_folds(signed, 4, np.random.default_rng(7))
    won = pairs = 0
    for f in range(4):
        w = fit(x @ x.T, np.where(fold == f, 0, signed)[None], DIFFERENCE).a[0] @ x
        up, down = x[(fold == f) & (signed > 0)] @ w, x[(fold == f) & (signed < 0)] @ w
        won, pairs = won + (up[:, None] > down[None]).sum(), pairs + up.size * down.size
    ours = validate_vector(x @ x.T, signed, DIFFERENCE, n_folds=4, permutations=1, splits=2, seed=7)
    np.testing.assert_allclose(ours.auc, won / pairs)
    assert ours.n_folds == 4


def test_a_zero_vector_has_no_p():
    same = Gram(np.ones((8, 8)), np.ones((1, 3, 8)), np.ones((1, 3, 3)))
    result = permutation_tests([same], label_vector(range(4), range(4, 8), 8), DIFFERENCE, permutations=19)[0]
    assert np.isnan(result.p).all() and np.isnan(result.derivative).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adjust_p(np.array([0.1, 1.2])), "between 0 and 1"),
        (lambda: adjust_p(P, "sidak"), "one of holm, bh, bonferroni, got 'sidak'"),
        (lambda: attainable(0.0, 0, 2.0), "smallest p must be above 0.*at least one test.*alpha must be between"),
        (lambda: validate_vector(np.eye(4), label_vector([0], [1, 2, 3], 4)), r"2 clips on each side, got \[1, 3\]"),
        (lambda: set_permutation_tests([toy()], [np.arange(3)]), "at least one set in addition"),
        (
            lambda: bootstrap([toy()], label_vector([0], [1], 16), draws=1),
            r"at least 2 draws",
        ),
    ],
)
def test_errors_name_the_expected_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_intervals_cover_the_mean_over_other_clips(shift):
    """Check coverage with 300 features, 45 clips and a fixed network; 80 samples of clips give the true mean."""
    direction = np.random.default_rng(77).normal(size=300) / 300**0.5
    signed, estimates, low, high = label_vector(range(15), range(15, 45), 45), [], [], []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        x, g = rng.normal(size=(45, 300)), rng.normal(size=(20, 300)) / 300**0.5 + direction
        x[:15] += shift * direction
        gram = Gram(x @ x.T, (g @ x.T)[None], (g @ g.T)[None])
        estimates.append(tcav_scores(gram, fit(gram.kernel, signed[None])).derivative[0, 0])
        interval = bootstrap([gram], signed, draws=300)[0].derivative["all"]
        low.append(interval[0])
        high.append(interval[1])
    low, high, mean = np.array(low), np.array(high), np.mean(estimates)
    assert ((low <= mean) & (mean <= high)).mean() >= 0.92
    assert ((low < estimates) & (estimates < high)).all()
    assert (high - low).mean() < 6.5 * np.std(estimates)  # 3.9 would be exact
