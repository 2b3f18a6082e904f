"""Tests of effects by depth beyond the tests of an experiment: random sets, clip types and trends."""

import pytest

from tests.support.planted_experiment import NETWORK, QUICK, Planted
from vtcav_jax.concepts import read_concepts
from vtcav_jax.data import open_source
from vtcav_jax.runs.tables import read_rows
from vtcav_jax.runs.tcav_depth_rows import DEPTH_TRENDS_CSV, GROUP_EFFECTS_CSV, DepthTrendRow, GroupEffectRow
from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.experiment import depth_effects
from vtcav_jax.tcav.experiment.plan import plan_experiment
from vtcav_jax.tcav.experiment.stage_grams import StageGrams
from vtcav_jax.tcav.features.cache import Cache


def test_random_sets_and_clip_types_have_effects_without_tests(finished):
    rows = read_rows(finished.folder / GROUP_EFFECTS_CSV, GroupEffectRow)
    for stage in Planted.stages:
        sets = [row for row in rows if (row.target, row.stage, row.group) == ("red", stage, "random sets")]
        names = [(f"random_{i}", kind) for kind in ("static", "dynamic") for i in range(3)]
        assert sorted((row.concept, row.clip_type) for row in sets) == sorted(names)
        assert all((row.n_concept, row.n_negatives, row.n_clips) == (6, 12, 6) for row in sets)
        largest = max(abs(row.step_effect) for row in sets)
        test = next(
            r
            for r in finished.rows
            if (r.target, r.stage, r.concept, r.comparison) == ("red", stage, "red", "absolute")
        )
        assert abs(test.step_effect) > largest
        types = {
            row.concept: row for row in rows if (row.target, row.stage, row.group) == ("moves", stage, "clip types")
        }
        assert set(types) == {"red", "blue", "random"}
        # Dynamic clips of red change most
        assert types["red"].step_effect > types["random"].step_effect > 0
        assert types["red"].step_effect_low <= types["red"].step_effect <= types["red"].step_effect_high
        assert (types["random"].n_concept, types["random"].n_negatives, types["random"].tcav_score) == (18, 18, 1)
    assert not (finished.folder / DEPTH_TRENDS_CSV).exists()  # of two stages


def test_trends_over_depth_have_a_corrected_p_for_motion(clip_folder, finished, tmp_path, monkeypatch):
    """Check against the tests of the same run: with two stages, the slope is the difference of the step effects."""
    monkeypatch.setattr(depth_effects, "MIN_TREND_STAGES", 2)
    sets, source = read_concepts(clip_folder / "concepts"), open_source(clip_folder / "targets")
    cache = Cache(finished.folder.parent / "cache")
    plan = plan_experiment(NETWORK, ["moves", "deaf"], source, sets, QUICK, cache)
    grams = StageGrams(plan, Runtime.local())
    for stage in plan.stages:
        grams.gram(stage)
    depth_effects.write_depth_effects(tmp_path, plan, grams.cached_gram)
    rows = read_rows(tmp_path / DEPTH_TRENDS_CSV, DepthTrendRow)
    assert {row.target for row in rows} == {"moves"}  # the other class has no effects
    assert {row.comparison for row in rows} == {"absolute", "motion"}
    rounding = 1e-6 * max(abs(r.step_effect) for r in finished.rows if r.step_effect == r.step_effect)
    for row in rows:
        key = row.target, row.concept, row.clip_type, row.negatives
        effects = [r.step_effect for r in finished.rows if (r.target, r.concept, r.clip_type, r.negatives) == key]
        # Products are float32: differences of equal clips are 0 only up to rounding
        assert row.slope == pytest.approx(effects[1] - effects[0], abs=rounding)
        assert row.slope_low <= row.slope <= row.slope_high and row.n_target_videos == 6
        assert (row.p == row.p) == (row.comparison == "motion")
    motion = [row for row in rows if row.comparison == "motion"]
    assert len(motion) == 2 and all(row.p_adjusted >= row.p for row in motion)
