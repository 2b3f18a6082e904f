"""Optimised masks are where the cause is, have the requested area, and their gradients are exact."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vtcav_jax as vtcav
from tests.support.typed import compile_count
from vtcav_jax.attribution import attribute, planned_passes, prepare_explanation
from vtcav_jax.attribution.removal import optimised_masks
from vtcav_jax.attribution.removal.optimised_masks import MASK_METHODS, interpolate, mask_loss
from vtcav_jax.stats import intervals

CLIP = np.ones((2, 8, 16, 16, 1), np.float32)
BLOCK = np.zeros((8, 16, 16), bool)
BLOCK[3:6, 4:12, 6:14] = True  # 3/32 of the clip


def block_network(video, tap=None):
    inside = video[:, 3:6, 4:12, 6:14].mean((1, 2, 3, 4))
    return jnp.stack([jnp.tanh(2 * inside), 0 * inside], 1)


def smooth_network(video, tap=None):
    pairs = (video[:, 1:] * jnp.roll(video[:, :-1], 1, 2)).mean((1, 2, 3))
    return jnp.sin(3 * pairs) + jnp.tanh(video[:, :, 2:7, 3:9].mean((1, 2, 3)))


def first_class(logits):
    return logits[:, 0]


@pytest.mark.parametrize("method", MASK_METHODS)
def test_the_mask_is_the_cause_with_the_requested_area(method):
    exact = attribute(block_network, CLIP, first_class, method, areas=(3 / 32,))
    np.testing.assert_allclose(exact.map.mean((1, 2, 3)), 3 / 32, atol=0.01)
    assert (exact.map[:, BLOCK].sum(1) > 0.8 * exact.map.sum((1, 2, 3))).all()
    assert exact.forward_passes == 500 and not exact.signed and exact.method == method
    half = attribute(block_network, CLIP, first_class, method, areas=(0.5,))
    np.testing.assert_allclose(half.map.mean((1, 2, 3)), 0.5, atol=0.01 if method == "extremal" else 0.1)
    both = attribute(block_network, CLIP, first_class, method, areas=(3 / 32, 0.5), steps=166)
    np.testing.assert_allclose(both.map, (exact.map + half.map) / 2, atol=1e-5)


def test_held_frames_show_which_changes_matter():
    def change(video, tap=None):
        difference = (video[:, 5] - video[:, 4]).mean((1, 2, 3))
        return jnp.stack([difference, 0 * difference], 1)

    clip = np.cumsum(np.ones((1, 8, 4, 4, 1), np.float32), 1)
    frames = attribute(change, clip, first_class, "extremal", cells=(8, 1, 1), areas=(1 / 8,), baseline="hold")
    profile = frames.map[0, :, 0, 0]
    assert profile.argmax() == 5 and profile[5] > 0.9 and np.delete(profile, 5).max() < 0.2


@pytest.mark.parametrize("holds", [False, True])
def test_gradients_equal_finite_differences(float64, holds):
    random = np.random.default_rng(0)
    video = jnp.asarray(random.normal(size=(2, 4, 12, 12, 3)))
    score_model = prepare_explanation(smooth_network, video, [1, 0]).score_model
    mask, direction = (jnp.asarray(random.uniform(0.2, 0.8, (2, 4, 3, 3))) for _ in range(2))
    low_and_unit, weights = jnp.asarray([[0.1, -0.2], [0.7, 0.02]]), jnp.asarray([0.2, 5.0, 2.0])
    loss = jax.jit(partial(mask_loss, holds=holds, has_tubes=True))
    arguments = score_model, video, jnp.zeros_like(video), low_and_unit, weights
    slope = (jax.grad(loss)(mask, *arguments) * direction).sum()
    eps = 1e-6
    up, down = (loss(mask + e * direction, *arguments) for e in (eps, -eps))
    np.testing.assert_allclose(slope, (up - down) / (2 * eps), rtol=1e-6)


def test_areas_and_clips_share_one_compiled_step():
    def run(clip, **options: Any):
        return attribute(block_network, clip, first_class, "extremal", steps=2, **options)

    run(CLIP)
    before = compile_count(optimised_masks._descend)
    run(2 * CLIP, areas=(0.3,))
    run(CLIP[::-1], areas=(0.01, 0.02))
    assert compile_count(optimised_masks._descend) == before


def test_interpolation_is_linear_between_the_centres_of_cells():
    mask = jnp.asarray(np.random.default_rng(0).random((1, 2, 3, 4)), jnp.float32)
    np.testing.assert_allclose(interpolate(mask, (2, 3, 4)), mask, rtol=1e-6)
    voxels = interpolate(mask, (2, 3, 12))
    np.testing.assert_allclose(voxels[..., 1::3], mask, rtol=1e-6)
    np.testing.assert_allclose(voxels[..., 2], mask[..., 0] + (mask[..., 1] - mask[..., 0]) / 3, rtol=1e-5)


def test_costs_are_known_and_limited():
    for method in MASK_METHODS:
        assert planned_passes(method, (32, 224, 224)) == 497
        assert planned_passes(method, (8, 32, 32), areas=(0.1,), steps=300) == 902
        assert planned_passes(method, (8, 32, 32), budget=50) == 47
        with pytest.raises(ValueError, match=r"at most the 5 for each of 3 areas .* budget of 50 .* got 6"):
            planned_passes(method, (8, 32, 32), budget=50, steps=6)
        with pytest.raises(ValueError, match="expected at least one step"):
            planned_passes(method, (8, 32, 32), budget=10)
        with pytest.raises(ValueError, match=r"areas between 0 and 1, .* got \(1.0,\)"):
            attribute(block_network, CLIP, first_class, method, areas=(1.0,))
        with pytest.raises(ValueError, match="cannot be cut into"):
            attribute(block_network, CLIP, first_class, method, cells=(9, 4, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "method", "ratio"),
    [("worlds_cnn", "step", 4), ("worlds_swin", "extremal", 2)],
)
def test_masks_of_trained_networks_are_on_the_key(network, method, ratio):
    clips = vtcav.worlds.make_clips("small", 8, seed=310)
    for question in ("direction", "shape"):
        values = attribute(vtcav.load(network), clips.frames, question, method).map
        on_key = (values * clips.masks["key_box"]).sum((1, 2, 3)) / values.sum((1, 2, 3))
        mean, low, _ = intervals.mean_ci(on_key / clips.masks["key_box"].mean((1, 2, 3)))
        assert mean > low > ratio, question
