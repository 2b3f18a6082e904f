"""Benchmark of concept tests: synthetic features with a known effect, and a network of a world."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_ind

from vtcav_jax import models
from vtcav_jax.evaluation.tcav_benchmark import protocols
from vtcav_jax.evaluation.tcav_benchmark import run as tcav_benchmark
from vtcav_jax.evaluation.tcav_benchmark import table as tcav_benchmark_table
from vtcav_jax.evaluation.tcav_benchmark.protocols import BenchmarkCase, fit_hinge
from vtcav_jax.evaluation.tcav_benchmark.table import (
    CAUSE_ROLE,
    DISTRACTOR_ROLE,
    OTHER_HEAD_ROLE,
    RANDOM_ROLE,
    ConceptVerdicts,
)
from vtcav_jax.report.run_reader import RunFolder
from vtcav_jax.report.sections import tcav_benchmark as tcav_benchmark_sections
from vtcav_jax.runs.evaluation_rows import TcavBenchmarkRow
from vtcav_jax.runs.tables import write_rows
from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.permutation_test import permutation_tests
from vtcav_jax.tcav.stats.vectors import label_vector
from vtcav_jax.worlds.render import make_clips

EACH, SETS = 12, 6


def features(seed, shift=0.0, k=4, classes=3, width=20):
    """Return k concepts; the first is shifted along the first feature, the direction of the first class's gradients."""
    random = np.random.default_rng(seed)
    m = EACH * (SETS + 1)
    x = random.normal(size=(m, width))
    sets = random.permutation(m)[: EACH * k].reshape(k, EACH)
    x[sets[0], 0] += shift
    x -= x.mean(0)
    gradients = random.normal(size=(classes, 8, width))
    gradients[0, :, 0] += 3
    others = [random.permutation(np.setdiff1d(np.arange(m), s)).reshape(SETS, EACH) for s in sets]
    posing = random.permutation(m)[: EACH * SETS].reshape(SETS, EACH)
    slopes, lengths = [g @ x.T for g in gradients], [np.linalg.norm(g, axis=1) for g in gradients]
    groups = [tuple(range(start, min(start + 2, k))) for start in range(0, k, 2)]
    return x, BenchmarkCase(x @ x.T, slopes, lengths, sets, np.stack(others), posing, groups)


def objective(x, signs, w):
    """Return the objective with the best intercept, at which some example has a margin of 1."""
    value = x @ w
    losses = np.maximum(0, 1 - signs * (value + (signs - value)[:, None])).mean(1)
    return losses.min() + protocols.HINGE_ALPHA / 2 * w @ w


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_peers_objective_is_solved_to_its_optimum(scale):
    svm = pytest.importorskip("sklearn.svm", reason="scikit-learn comes with the extra test's captum and grad-cam")
    random = np.random.default_rng(0)
    x = scale * (random.normal(size=(6, 24, 5)) + 4)
    signs = np.where(random.random((6, 24)) < 0.4, 1.0, -1.0)
    x[3:, :, 0] += 20 * scale * signs[3:]  # these are separable
    a = fit_hinge(x @ x.swapaxes(1, 2), signs)
    np.testing.assert_allclose(a.sum(1), 0, atol=1e-6 * np.abs(a).max())
    for w, features_of_set, sign in zip(np.einsum("vs,vsf->vf", a, x), x, signs):
        # scikit-learn's C weights the sum of losses against 1/2 |w|^2
        peer_weights = (
            svm.SVC(kernel="linear", C=1 / (protocols.HINGE_ALPHA * len(sign)), tol=1e-9)
            .fit(features_of_set, sign)
            .coef_[0]
        )
        assert objective(features_of_set, sign, w) < objective(features_of_set, sign, peer_weights) * (1 + 1e-7)
        if scale <= 1:  # scikit-learn computes products in float32
            assert np.linalg.norm(w - peer_weights) < 1e-4 * np.linalg.norm(peer_weights)


def test_scikit_learns_classifier_has_the_same_objective():
    """It stops early, so its objective is slightly above the optimum and never below."""
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn comes with the extra test's captum")
    random = np.random.default_rng(1)
    x, signs = random.normal(size=(40, 8)), np.repeat([1.0, -1.0], 20)
    x[:, 0] += signs

    w = fit_hinge((x @ x.T)[None], signs[None])[0] @ x
    best = objective(x, signs, w)
    classifier = linear.SGDClassifier(alpha=0.01, max_iter=5000, tol=None, average=True, random_state=0).fit(x, signs)
    assert best * (1 - 1e-7) < objective(x, signs, classifier.coef_[0]) < 1.02 * best


def test_one_sided():
    with pytest.raises(ValueError, match="both sides"):
        fit_hinge(np.eye(4)[None], np.ones((1, 4)))


@pytest.mark.parametrize("name", tcav_benchmark.PROTOCOLS)
def test_each_method_detects_the_known_effect(name):
    _, case = features(0, shift=4.0)
    verdicts = tcav_benchmark.PROTOCOLS[name](case, [0])
    assert verdicts.score.shape == verdicts.significant.shape == (4, 3)
    assert verdicts.significant[0, 0] and verdicts.raises_score[0, 0]
    # Reversed gradients reverse the sign
    opposite = tcav_benchmark.PROTOCOLS[name](replace(case, slopes=[-case.slopes[0], *case.slopes[1:]]), [0])
    assert opposite.significant[0, 0] and not opposite.raises_score[0, 0]


@pytest.mark.slow
def test_our_p_is_that_of_the_packages_test():
    """The effect is equal; p-values come from different permutations."""
    _, case = features(3, shift=1.0)
    verdicts = tcav_benchmark.vtcav_protocol(case, [0])
    m = len(case.kernel)
    for k, rows in enumerate(case.concepts):
        signed = label_vector(rows, np.setdiff1d(np.arange(m), rows), m)
        for c, slopes in enumerate(case.slopes):
            gram = Gram(case.kernel, slopes[None], np.diag(case.gradient_norms[c] ** 2)[None])
            test = permutation_tests([gram], signed, permutations=999, seed=5)[0]
            size = abs(test.step_effect[0]) / np.sqrt((test.null_step_effects**2).mean())
            assert verdicts.score[k, c] == pytest.approx(size, rel=0.1)
            assert verdicts.raises_score[k, c] == (test.step_effect[0] > 0)
            if abs(test.p_step_effect[0] - 0.05) > 0.03:
                assert verdicts.significant[k, c] == (test.p_step_effect[0] <= 0.05)


@pytest.mark.slow
def test_without_effect_our_test_keeps_its_level_and_the_others_do_not():
    """False-positive rates on random features: 100 concepts and 3 classes."""
    rates = {}
    for name, judge in tcav_benchmark.PROTOCOLS.items():
        rates[name] = np.mean([judge(features(seed)[1], [seed]).significant for seed in range(100, 125)])
    assert 0.01 < rates["ours"] < 0.085
    assert rates["tensorflow/tcav"] > 0.08 and rates["captum"] > 0.25 and rates["Saha et al."] > 0.4


def test_t_tests_of_constant_runs_are_certain():
    runs, null = np.array([[0.5], [0.75], [0.6], [0.9]]), np.array([[0.4], [0.5], [0.45], [0.6], [0.3]])
    t, p = protocols._certain_where_constant(*protocols._t_test(null, runs), np.ones(1))
    assert (t[0], p[0]) == pytest.approx(tuple(ttest_ind(null[:, 0], runs[:, 0])))
    same, half = np.ones((4, 1)), np.full((4, 1), 0.5)
    for test in (protocols.t_test_against_half, protocols.published_t_test):
        assert [x[0] for x in protocols._certain_where_constant(*test(same), np.full(1, 0.5))] == [np.inf, 0]
        assert [x[0] for x in protocols._certain_where_constant(*test(half), np.zeros(1))] == [0, 1]


def pairs(score, causal, neutral, up=None, concept=None):
    n = len(score)
    role = np.where(causal, CAUSE_ROLE, np.where(neutral, RANDOM_ROLE, OTHER_HEAD_ROLE))
    up = np.ones(n, bool) if up is None else up
    return ConceptVerdicts(
        role, np.arange(n) if concept is None else concept, np.asarray(score, float), np.asarray(score) > 1, None, up
    )


def test_measures_by_hand():
    score = np.array([3.0, 2.0, 1.0, 2.0, 0.5, 0.1, np.inf])
    causal = np.array([1, 1, 0, 0, 0, 0, 1], bool)
    rows = {
        r.measure: r
        for r in tcav_benchmark_table.protocol_rows(pairs(score, causal, ~causal), ("a", "n", "p", "s", "k"), "")
    }
    assert rows["AUROC"].value == pytest.approx(11.5 / 12)  # one tie among 3 x 4 pairs
    assert rows["POWER"].value == 1 and rows["FALSE_POSITIVES"].value == 0.25 == rows["NULL"].value
    # 5 % of 4 neutral pairs is 0.2: the threshold is the highest neutral score, 2, and 0.2 of the ties pass it
    assert rows["POWER_AT_5"].value == pytest.approx((2 + 0.2) / 3)
    wrong = pairs(score, causal, ~causal, up=np.array([0, 1, 1, 1, 1, 1, 1], bool))
    rows = {r.measure: r for r in tcav_benchmark_table.protocol_rows(wrong, ("a", "n", "p", "s", "k"), "")}
    assert rows["POWER"].value == pytest.approx(2 / 3) and rows["POWER_AT_5"].value == pytest.approx(1.2 / 3)
    for row in rows.values():
        assert row.low <= row.value <= row.high


def test_power_for_separated_and_for_equal_scores():
    causal = np.arange(50) < 10
    apart = np.where(causal, 2.0, 1.0)
    up = np.ones(50, bool)
    assert tcav_benchmark_table.power_at_fpr(apart, causal, ~causal, up, np.arange(50))[0] == pytest.approx(1)
    assert tcav_benchmark_table.power_at_fpr(-apart, causal, ~causal, up, np.arange(50))[0] == pytest.approx(0)
    assert tcav_benchmark_table.power_at_fpr(np.ones(50), causal, ~causal, up, np.arange(50))[0] == pytest.approx(0.05)
    assert tcav_benchmark_table.pair_auroc(np.ones(50), causal, ~causal, np.arange(50)) == pytest.approx(
        (0.5, 0.5, 0.5)
    )


def test_shared_clips_widen_an_interval():
    significant, clip_ids = np.repeat(np.arange(40) % 4 == 0, 16), np.arange(640)
    narrow, wide = (
        tcav_benchmark_table.clustered_rate(significant, clip_ids),
        tcav_benchmark_table.clustered_rate(significant, clip_ids // 16),
    )
    assert narrow[0] == wide[0] == 0.25
    assert wide[2] - wide[1] > 3 * (narrow[2] - narrow[1])
    assert tcav_benchmark_table.clustered_rate(np.zeros(20, bool), np.arange(20))[:2] == (0, 0)


@pytest.mark.parametrize("kind", tcav_benchmark.FACTORS_BY_CLIP_TYPE)
def test_sets_have_their_value_and_groups_share_no_clip(kind):
    clips = make_clips("small", 330, 4)
    about, sets, groups = tcav_benchmark.draw_concept_sets(clips, kind, 30, 0)
    assert sets.shape == (len(about), 30) and sorted(sum(groups, ())) == list(range(len(about)))
    for concept, rows in zip(about, sets):
        assert len(set(rows)) == 30 and (
            not concept.factor or (clips.factors[concept.factor][rows] == concept.value).all()
        )
    for group in groups:
        assert len(np.unique(sets[list(group)])) == 30 * len(group)
    with pytest.raises(ValueError, match="expected 120 clips with shape=0"):
        tcav_benchmark.draw_concept_sets(clips, kind, 120, 0)


def test_roles_of_a_value_for_a_class():
    value = tcav_benchmark.FactorConcept("shape", 2)
    assert [value.role("shape", 2), value.role("shape", 1), value.role("scene", 2)] == [
        CAUSE_ROLE,
        None,
        OTHER_HEAD_ROLE,
    ]
    assert tcav_benchmark.FactorConcept("dis_shape", 2).role("shape", 2) == DISTRACTOR_ROLE
    assert tcav_benchmark.FactorConcept("", 2).role("shape", 2) == RANDOM_ROLE


def test_pairs_of_the_same_head_with_another_value_are_left_out():
    about, classes = (
        [tcav_benchmark.FactorConcept("shape", 0), tcav_benchmark.FactorConcept("", 0)],
        [("shape", 0), ("shape", 1), ("scene", 0)],
    )
    score = np.arange(6.0).reshape(2, 3)
    verdicts = tcav_benchmark.to_verdicts(protocols.ProtocolVerdicts(score, score > 2, None, score > 0), about, classes)
    assert verdicts.role.tolist() == [
        CAUSE_ROLE,
        OTHER_HEAD_ROLE,
        RANDOM_ROLE,
        RANDOM_ROLE,
        RANDOM_ROLE,
    ] and verdicts.score.tolist() == [0, 2, 3, 4, 5]
    both = tcav_benchmark_table.merge_verdicts([verdicts, verdicts])
    assert both.concept.tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]


def test_invalid_inputs_raise():
    loaded = models.load("worlds_swin")
    with pytest.raises(ValueError, match="got none; expected at least 5 clips per set, got 2"):
        tcav_benchmark.tcav_benchmark_rows(loaded, seeds=(), clips_per_set=2)
    with pytest.raises(ValueError, match="got label"):
        tcav_benchmark.tcav_benchmark_rows(replace(loaded, heads={"label": ("a",)}))


def made(network, stage, kind, procedure, values):
    return [
        TcavBenchmarkRow(procedure, network, "space", stage, kind, m, v, v / 2, (1 + v) / 2, 40)
        for m, v in values.items()
    ]


def test_the_page(tmp_path):
    values = {"AUROC": 0.9, "POWER_AT_5": 0.8, "POWER": 0.85, "FALSE_POSITIVES": 0.05, "NULL": 0.04}
    rows = []
    for kind in tcav_benchmark_table.BENCHMARK_CLIP_TYPES:
        for stage in ("early", "late"):
            rows += made("n<1>", stage, kind, "ours", values | {"AUROC": 0.97 if stage == "late" else 0.7})
            rows += made("n<1>", stage, kind, "ours, Holm", {"POWER": 0.5, "FALSE_POSITIVES": 0.0, "NULL": 0.0})
            rows += made("n<1>", stage, kind, "captum", values | {"FALSE_POSITIVES": 0.62})
    write_rows(tmp_path / tcav_benchmark_table.TCAV_BENCHMARK_CSV, TcavBenchmarkRow, rows)
    (section,) = tcav_benchmark_sections.tcav_benchmark_sections(RunFolder(tmp_path, ()))
    assert "n&lt;1&gt; at late: our test detects 85 % (42 % to 92 %) of the causes, with 5 % (" in section.html
    assert "captum: 85 % (42 % to 92 %) of the causes, with 62 % (31 % to 81 %) false positives" in section.html
    assert section.html.count("<tr>") == 1 + 18
    (figure,) = section.figures
    assert figure.svg.count("<circle") == 6 + 2 and "small: Holm" in figure.svg
    assert tcav_benchmark_sections.tcav_benchmark_sections(RunFolder(tmp_path / "nothing", ())) == []


@pytest.mark.slow
def test_known_causes_are_detected_in_a_shipped_network():
    """With one seed and one stage, causes are detected, and random sets at the nominal rate."""
    network = models.load("worlds_swin")
    rows = tcav_benchmark.tcav_benchmark_rows(network, seeds=(1,), stages=("layers.1",), network_name="worlds_swin")
    rows_by_measure = {(r.protocol, r.clip_type, r.measure): r for r in rows}
    assert (
        rows_by_measure["ours", "dynamic", "AUROC"].value > 0.97
        and rows_by_measure["ours", "dynamic", "POWER"].value > 0.9
    )
    assert rows_by_measure["ours", "both", "POWER_AT_5"].value > 0.8
    assert rows_by_measure["ours", "both", "NULL"].low < 0.05 and rows_by_measure["ours", "both", "NULL"].value < 0.12
    assert rows_by_measure["captum", "both", "NULL"].low > 0.15
    assert rows_by_measure["ours", "both", "FALSE_POSITIVES"].n_pairs >= 400
