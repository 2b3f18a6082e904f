"""Tests of the simulations of statistics: shares and their intervals, drawn clips, adapters and tables."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.statistics import intervals, levels, library, table
from benchmarks.statistics.clips import CLASSES, CLIPS_PER_VIDEO, EncodedClips, class_grams, class_roles
from benchmarks.statistics.results import COVERAGE, LEVEL, Requirement, at_least, at_most, effective_number, share_row
from benchmarks.statistics.simulations import SIMULATIONS, SMALL, code_key
from vtcav_jax.stats.intervals import wilson_ci
from vtcav_jax.worlds.render import WORLDS, sample_factors


def toy_clips(n: int = 2000) -> EncodedClips:
    factors = sample_factors(WORLDS["small"], 3, np.arange(n))
    rng = np.random.default_rng(0)
    activations = {f"s/{edit}": rng.normal(size=(n, 6)).astype(np.float32) for edit in ("dynamic", "frozen")}
    gradients = {"s": rng.normal(size=(4, n, 6)).astype(np.float32)}
    return EncodedClips("toy", factors, factors, activations, gradients)


def test_independent_tests_have_the_plain_wilson_interval():
    hits = [[i < 3] for i in range(60)]
    row = share_row("s", "m", "w", hits, at_most(0.07), exact=True)
    assert (row.value, row.n, row.draws, row.holds) == (0.05, 60, 60, True)
    assert (row.low, row.high) == wilson_ci(3, 60)


def test_tests_that_always_agree_within_a_draw_count_once():
    parts = [np.full(16, i % 4 == 0) for i in range(40)]
    assert effective_number(parts) == 40
    row = share_row("s", "m", "w", parts, None, exact=True)
    assert row.n == 640 and (row.low, row.high) == wilson_ci(10, 40)
    assert row.holds is None and row.requirement == ""


def test_without_hits_the_draws_determine_the_interval():
    row = share_row("s", "m", "w", [np.zeros(16, bool)] * 30, at_most(0.07), exact=True)
    assert (row.low, row.high) == wilson_ci(0, 30)


def test_a_share_without_tests_is_not_measured():
    row = share_row("s", "m", "w", [np.zeros(0, bool)], at_most(0.07), exact=True)
    assert np.isnan(row.value) and row.holds is None and row.note == "not measured"


@pytest.mark.parametrize(
    ("requirement", "value", "low", "high", "exact", "small"),
    [
        (at_most(0.07), 0.08, 0.06, 0.1, False, True),
        (at_most(0.07), 0.2, 0.1, 0.3, False, False),
        (at_least(0.9), 0.85, 0.7, 0.95, False, True),
        (COVERAGE, 0.95, 0.9, 0.97, True, True),
        (COVERAGE, 0.99, 0.97, 1.0, False, True),
        (LEVEL, 0.06, 0.04, 0.09, True, True),
        (LEVEL, 0.09, 0.06, 0.12, False, False),
    ],
)
def test_requirements_apply_to_estimates_or_to_intervals(
    requirement: Requirement, value: float, low: float, high: float, exact: bool, small: bool
):
    assert requirement.holds(value, low, high, exact=True) is exact
    assert requirement.holds(value, low, high, exact=False) is small


def test_roles_of_a_concept_for_each_class():
    roles = dict(zip(CLASSES, class_roles("shape", 1)))
    assert roles["shape", 1] == "own factor" and roles["shape", 0] is None
    assert roles["direction", 2] == "other head's factor"
    assert set(class_roles("dis_shape", 1)) == {"distractor's factor"}


def test_clips_of_a_video_share_scene_and_distractor():
    clips, rng = toy_clips(), np.random.default_rng(1)
    ring = clips.has_value("shape", 1)
    rows = clips.draw_videos(rng, 4, ring)
    assert len(np.unique(rows)) == 4 * CLIPS_PER_VIDEO and ring[rows].all()
    for video in rows.reshape(4, CLIPS_PER_VIDEO):
        for factor in ("scene", "dis_shape", "dis_direction"):
            assert len(np.unique(clips.factors[factor][video])) == 1
    assert not np.isin(clips.draw_clips(rng, 100, clips.without(rows)), rows).any()


def test_target_clips_are_of_the_class():
    clips = toy_clips()
    targets = clips.draw_targets(np.random.default_rng(0), 7)
    assert list(targets) == list(CLASSES)
    assert all(
        (clips.factors[head][rows] == answer).all() and len(rows) == 7 for (head, answer), rows in targets.items()
    )


def test_grams_of_classes_share_the_kernel():
    clips = toy_clips()
    examples = clips.activations["s/dynamic"][:10]
    grams = clips.grams("s", examples, {("shape", 0): np.arange(3), ("scene", 1): np.arange(4, 9)})
    assert [gram.cross.shape for gram in grams] == [(1, 3, 10), (1, 5, 10)]
    centred = examples - examples.mean(0)
    np.testing.assert_allclose(grams[1].cross[0], clips.gradients["s"][3, 4:9] @ centred.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("motion", ["paired", "contrast"])
def test_a_planted_motion_is_found(motion: library.Motion):
    rng = np.random.default_rng(0)
    controls = rng.normal(size=(40, 6))
    moving = controls + 0.1 * rng.normal(size=controls.shape)
    moving[:15, 0] += 2
    gradients = np.eye(6)[0] + 0.1 * rng.normal(size=(8, 6))
    grams = class_grams(np.concatenate([moving, controls]), [gradients])
    tests = library.motion_tests(grams, 15, permutations=199, seed=[0], motion=motion)
    assert tests.p[0] <= 0.01 and tests.step[0] > 0


@pytest.mark.slow
def test_the_calibration_check_finds_clustered_sets():
    rng = np.random.default_rng(0)
    features, gradients = levels._video_features(rng, 0.9), [levels._gradients(rng) for _ in range(8)]
    grams = class_grams(features, gradients)
    sets = np.split(np.arange(len(features)), 6)
    units = library.video_units(len(features), CLIPS_PER_VIDEO)
    rate = {
        unit: (library.calibration_p(grams, sets, permutations=99, seed=[0], unit=unit, units=units) <= 0.05).mean()
        for unit in ("clip", "video")
    }
    assert rate["clip"] > 2 * rate["video"]


@pytest.mark.slow
def test_estimates_of_a_planted_effect():
    rng = np.random.default_rng(0)
    examples = rng.normal(size=(60, 5))
    examples[:20, 0] += 3
    gradients = np.eye(5)[0] + 0.05 * rng.normal(size=(12, 5))
    gram = class_grams(examples, [gradients])[0]
    estimates, vector = library.estimate(gram, library.concept_labels(20, 40), draws=100, seed=[0], unit="clip")
    assert set(estimates.values) == set(estimates.intervals) == set(intervals.ESTIMATES)
    assert 2 < estimates.values["step_effect"] < 4 and estimates.values["sign_count"] == 1
    assert all(low < estimates.values[name] <= high for name, (low, high) in estimates.intervals.items())
    assert abs(np.linalg.norm(vector @ (examples - examples.mean(0))) - 1) < 1e-5


def test_a_simulation_is_repeated_if_its_size_changes():
    assert code_key("planted", SMALL) == code_key("planted", SMALL)
    assert code_key("planted", SMALL) != code_key("planted", replace(SMALL, draws=SMALL.draws + 1))
    assert len({code_key(name, SMALL) for name in SIMULATIONS}) == len(SIMULATIONS)


def test_motion_shares_of_independent_videos_are_covered():
    rows = intervals.share_intervals(replace(SMALL, intervals=5))
    assert [row.n for row in rows] == [5] * 5 and all(row.value >= 0.6 for row in rows)


def test_accuracies_of_clustered_clips_are_covered():
    rows = intervals.accuracy_intervals(replace(SMALL, intervals=20))
    assert [row.n for row in rows] == [20] * 4 and all(row.value >= 0.75 and row.holds for row in rows)


def test_rows_of_one_measurement_are_one_line_of_the_table():
    rows = [
        share_row("level", "p ≤ .05", where, np.array(hits, bool)[:, None], at_most(0.07), exact=True).as_dict()
        for where, hits in (
            ("worlds_swin, layers.0", [0] * 20),
            ("worlds_swin, layers.1", [1] * 10 + [0] * 10),
            ("Gaussian", [0] * 30),
        )
    ]
    encoded, simulated = table.statistics_table(rows).split("\n\n")
    assert len(encoded.splitlines()) == len(simulated.splitlines()) == 3
    assert "| 0.00 (0.00 to 0.16) | **0.50 (0.30 to 0.70)** |" in encoded
    assert "| Gaussian | p ≤ .05 | at most 0.07 | 30 | 0.00 (0.00 to 0.11) |" in simulated
    assert table.describe(rows[1]).endswith("required: at most 0.07")
