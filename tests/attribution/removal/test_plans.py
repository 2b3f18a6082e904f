"""Numbers of forward passes, known before anything is computed."""

from pathlib import Path

import numpy as np
import pytest

from vtcav_jax.attribution import METHODS, planned_passes
from vtcav_jax.attribution.registry import PASSES, PERTURBATION_METHODS
from vtcav_jax.attribution.removal import plans

SHAPES = [(8, 32, 32), (16, 112, 112), (32, 224, 224), (1, 32, 32), (7, 33, 35), (17, 113, 129), (64, 112, 112)]


@pytest.mark.parametrize("clip_shape", SHAPES)
def test_no_default_takes_more_than_500_passes(clip_shape):
    for method in PERTURBATION_METHODS:
        assert 1 < planned_passes(method, clip_shape) <= 500, method


def test_every_method_has_a_known_cost():
    assert {*PASSES, *plans.PLANS} == set(METHODS) and set(plans.PLANS) == set(PERTURBATION_METHODS)


def test_windows_are_a_quarter_of_the_clip():
    def removed(clip_shape):
        plan = plans.occlusion_plan(clip_shape, None, None, None)
        keep, ids = plan.design.keep, plan.make_segments(np.zeros((1, *clip_shape, 1)))
        assert plan.passes == 344
        return {tuple(np.ptp(np.nonzero(~row[ids[0]]), axis=1) + 1) for row in keep[1:]}

    assert removed((8, 32, 32)) == {(2, 8, 8)} and removed((16, 56, 56)) == {(4, 14, 14)}


def test_the_published_windows_of_sos_fit_its_budget():
    shape, clip = (16, 112, 112), np.zeros((1, 16, 112, 112, 1))
    published = plans.sos_plan(shape, None, None, 1184)
    by_flags = plans.occlusion_plan(shape, (4, 16, 16), (2, 8, 8), None)
    np.testing.assert_array_equal(published.make_segments(clip), by_flags.make_segments(clip))
    np.testing.assert_array_equal(published.design.keep, by_flags.design.keep)
    assert published.passes == planned_passes("sos", shape, window=(4, 16, 16), stride=(2, 8, 8)) == 1184
    for clip_shape in SHAPES:
        removed = ~plans.sos_plan(clip_shape, None, None, None).design.keep[1:]
        assert removed.any(0).all() and removed.any(1).all()  # every voxel is in a window


def test_a_budget_chooses_masks_and_grids():
    shape = (16, 112, 112)
    for method in PERTURBATION_METHODS:
        assert 1 < planned_passes(method, shape, budget=100) <= 100, method
        assert planned_passes(method, shape, budget=2000) >= planned_passes(method, shape), method
    assert planned_passes("occlusion", shape, budget=100) == 28 and planned_passes("loco", shape, budget=100) == 65
    assert planned_passes("frame_shapley", shape, budget=100) == 64  # 6 groups, exact
    assert planned_passes("frame_shapley", shape, groups=10) == 1024  # exact, as requested
    assert planned_passes("frame_shapley", shape, groups=10, budget=1000) <= 1000
    assert planned_passes("frame_shapley", (64, 112, 112), groups=64) == 7 // 2 * 2 * 63 + 2


def test_explicit_settings_can_exceed_the_default_budget():
    assert planned_passes("occlusion", (16, 112, 112), window=(2, 8, 8), stride=(2, 8, 8)) == 8 * 14 * 14 + 1
    with pytest.raises(ValueError, match=r"takes 1569 forward passes .* more than the budget of 500"):
        planned_passes("occlusion", (16, 112, 112), window=(2, 8, 8), stride=(2, 8, 8), budget=500)
    with pytest.raises(ValueError, match="use a larger window or stride"):
        planned_passes("occlusion", (32, 224, 224), window=(2, 8, 8), stride=(1, 4, 4))
    with pytest.raises(ValueError, match="masks of at least 2"):
        planned_passes("rise", (8, 32, 32), masks=1)


def test_the_guide_has_the_costs_of_the_defaults():
    guide = (Path(__file__).parents[3] / "docs/guides/attribution.md").read_text(encoding="utf-8")
    for method in PERTURBATION_METHODS:
        (row,) = (line for line in guide.splitlines() if line.startswith(f"| `{method}` |"))
        assert int(row.split("|")[3]) == planned_passes(method, (8, 32, 32)) == planned_passes(method, (32, 224, 224))
    assert planned_passes("occlusion", (32, 224, 224), window=(8, 32, 32), stride=(4, 16, 16)) == 1184
