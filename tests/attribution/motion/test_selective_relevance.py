"""Motion parts of maps: scipy's correlation, static and moving blobs, and networks with and without use of motion."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vtcav_jax import attribution, tap
from vtcav_jax.attribution import targets
from vtcav_jax.attribution.motion import map_split
from vtcav_jax.attribution.motion.part_rows import part_values
from vtcav_jax.attribution.motion.selective_relevance import selective_relevance, selective_relevance_of_targets
from vtcav_jax.worlds import handwired_network


def blob(step, frames=16, size=48, sigma=4.0):
    """A Gaussian that moves `step` pixels to the right per frame."""
    y, x = np.mgrid[:size, :size]
    centre = size / 2 + step * (np.arange(frames) - frames / 2)
    return np.exp(-((x - centre[:, None, None]) ** 2 + (y - size / 2) ** 2) / (2 * sigma**2))[None].astype(np.float32)


@pytest.fixture(scope="module")
def dots():
    """Clips of the analytic world with only the moving dots."""
    clips, labels = handwired_network.binary_clips(3, 5, frames=6, size=12, dots=10, density=0.0)
    return clips, targets.Class(labels)


@pytest.mark.parametrize(("padding", "mode"), [("edge", "nearest"), ("zero", "constant")])
def test_time_derivative_equals_a_sobel_filter(padding, mode):
    maps = np.random.default_rng(0).normal(size=(2, 5, 7, 6)).astype(np.float32)
    kernel = np.einsum("t,y,x->tyx", [1, 0, -1], [1, 2, 1], [1, 2, 1])
    expected = [ndimage.correlate(x.astype(np.float64), kernel, mode=mode) for x in maps]
    np.testing.assert_allclose(map_split.time_derivative(maps, padding), expected, atol=1e-5)


def test_a_static_blob_has_motion_only_with_zero_padding():
    maps = blob(0)
    inside = maps[0, 0] > 0.5
    for n in (0.0, 1.0, 4.0):
        assert not map_split.split_by_motion(maps, n).mask.any()
    zero = map_split.split_by_motion(maps, 1.0, padding="zero").mask[0]
    assert zero[:, inside].mean() == pytest.approx(2 / 16) and zero[[0, -1]][:, inside].all() and not zero[1:-1].any()
    paper = map_split.split_by_motion(maps, 1.0, variant="paper2020").mask[0]
    assert paper[-1, inside].all() and not paper[:-1].any()  # the sign selects only relevance that fades


def test_a_moving_blob_is_motion_and_paper2020_selects_its_trailing_edge():
    maps = blob(1.5)
    x = np.arange(48) - (24 + 1.5 * (np.arange(16) - 8))[:, None]
    behind = {}
    for variant in ("absolute", "paper2020"):
        split = map_split.split_by_motion(maps, 1.0, variant=variant)
        behind[variant] = (split.mask[0, 1:-1] * x[1:-1, None]).sum() / split.mask[0, 1:-1].sum()
    assert abs(behind["absolute"]) < 0.5 and behind["paper2020"] < -2
    assert (
        map_split.split_by_motion(maps, 1.0).motion_share
        > 1.5 * map_split.split_by_motion(maps, 1.0, variant="paper2020").motion_share
    )


def test_parts_sum_to_the_map_and_define_the_shares():
    maps = np.random.default_rng(1).normal(size=(2, 4, 6, 6)).astype(np.float32)
    for n, split in zip((0, 1, 2, 3, 4), map_split.sweep(maps), strict=True):
        np.testing.assert_array_equal(split.motion + split.static, maps)
        share = [np.abs(m[k]).sum() / np.abs(m).sum() for m, k in zip(maps, split.mask)]
        np.testing.assert_allclose(split.motion_share, share, rtol=1e-5)
        np.testing.assert_allclose(split.area, [k.mean() for k in split.mask])
        assert split.threshold_sd == n
    shares = np.stack([split.motion_share for split in map_split.sweep(maps)])
    assert (np.diff(shares, axis=0) <= 0).all() and (shares[0] > 0.99).all()
    np.testing.assert_allclose(
        map_split.split_by_motion(maps * 1e-20, 1.0).mask, map_split.split_by_motion(maps, 1.0).mask
    )  # no scale
    empty = map_split.split_by_motion(np.zeros((1, 3, 2, 2), np.float32))
    assert np.isnan(empty.motion_share[0]) and np.isnan(empty.lift[0]) and empty.area[0] == 0


@pytest.mark.slow
def test_motion_share_of_a_network_that_needs_motion():
    """Check a square three pixels wide: only its two outer columns change, and none when frozen."""
    clips = np.zeros((2, 6, 16, 16, 1), np.float32)
    for t in range(6):
        clips[:, t, 6:9, 4 + t : 7 + t] = 1
    right = targets.Class(np.ones(2, int))
    motion = selective_relevance(handwired_network.MOTION_PAIRS, clips, right, "integrated_gradients", ig_steps=4)
    assert (motion.clip_split.motion_share > 0.5).all() and (motion.clip_split.lift > 2).all()
    inner = motion.clip_split.mask[0, 2:4, 7]  # at the ends, with half the relevance, everything changes
    assert not inner[[0, 1], [7, 8]].any() and inner[[0, 1, 0, 1], [6, 7, 8, 9]].all()
    assert (
        not motion.frozen_split.mask[:, 2:4].any() and (motion.frozen_split.motion_share > 0).all()
    )  # the ends, once more
    assert (motion.excess < motion.clip_split.motion_share).all()
    brightness = selective_relevance(mean_of_frames, clips[:, :1].repeat(6, 1), targets.Class(np.zeros(2, int)))
    np.testing.assert_allclose(brightness.clip_split.motion_share, 0)
    np.testing.assert_allclose(brightness.excess, 0)


def mean_of_frames(video, tap=tap.identity_tap):
    """Return a score that does not depend on the order of frames."""
    x = tap("x", video).mean((1, 2, 3, 4))
    return jnp.stack([x, -x], -1)


@pytest.mark.parametrize("variant", ["absolute", "paper2020", "d_dtd", "paper2019"])
def test_parts_of_a_networks_maps_sum_to_the_maps(dots, variant):
    clips, target = dots
    parts = selective_relevance(handwired_network.MOTION_PAIRS, clips, target, variant=variant, threshold_sd=0.5)
    full = parts.attribution.map
    np.testing.assert_allclose(
        full, attribution.attribute(handwired_network.MOTION_PAIRS, clips, target, "gradient_x_input").map
    )
    expected = full / np.abs(full).max((1, 2, 3), keepdims=True) if variant == "paper2019" else full
    for change in (parts.clip_change, parts.frozen_change):
        for threshold_sd in (0.0, 1.0, 3.0):
            split = change.split(threshold_sd)
            np.testing.assert_allclose(split.motion + split.static, change.maps, atol=1e-6 * np.abs(full).max())
            assert not split.motion[~split.mask].any()
    np.testing.assert_allclose(parts.clip_change.maps, expected, atol=1e-6 * np.abs(full).max())


def test_d_dtd_subtracts_the_map_of_each_frame_repeated(dots):
    """Check against a loop over frames: the same step of the repeated clip's map, or as published its first step."""
    clips, target = dots
    network = handwired_network.MOTION_PAIRS

    def relevance(video):
        return attribution.attribute(network, video, target, "lrp_z_plus").map

    full = relevance(clips)
    repeated = [relevance(np.repeat(clips[:, t : t + 1], clips.shape[1], 1)) for t in range(clips.shape[1])]

    def scaled(maps):
        return maps / np.maximum(np.abs(maps).max((1, 2, 3), keepdims=True), 1e-30)

    static = {
        "d_dtd": np.stack([maps[:, t] for t, maps in enumerate(repeated)], 1),
        "paper2019": np.stack([scaled(maps)[:, 0] for maps in repeated], 1),
    }
    size = np.abs(full).max()
    variants: tuple[tuple[map_split.SplitVariant, np.ndarray], ...] = (("d_dtd", full), ("paper2019", scaled(full)))
    for variant, maps in variants:
        parts = selective_relevance(network, clips, target, "lrp_z_plus", variant=variant, threshold_sd=0.0)
        np.testing.assert_allclose(parts.clip_split.motion, maps - static[variant], atol=2e-6 * size)
        np.testing.assert_allclose(parts.clip_split.static, static[variant], atol=2e-6 * size)
        assert (parts.clip_split.motion_share > 0.1).all()
    with pytest.raises(ValueError, match="variant absolute or paper2020"):
        map_split.split_by_motion(full, variant="d_dtd")


def test_a_static_clip_has_no_motion_part_beyond_the_ends_of_the_clip(dots):
    """Check that D-DTD of a static clip is exactly 0, also where the network treats the ends of a clip differently."""
    clips, target = dots
    static = np.repeat(clips[:, 2:3], clips.shape[1], 1)
    for method in ("gradient_x_input", "lrp_z_plus"):
        parts = selective_relevance(handwired_network.MOTION_PAIRS, static, target, method, variant="d_dtd")
        assert np.abs(parts.attribution.map).max() > 0 and not parts.clip_split.mask.any()
        assert not parts.clip_change.moving.any() and not parts.frozen_change.moving.any()
        derivative = selective_relevance(handwired_network.MOTION_PAIRS, static, target, method)
        np.testing.assert_allclose(derivative.excess, 0)


def test_maps_of_fewer_steps_than_frames_take_the_middle_frame_of_each_step():
    clips = np.random.default_rng(0).normal(size=(2, 8, 4, 4, 3)).astype(np.float32)

    def network(video, tap=tap.identity_tap):
        pairs = tap("pairs", video.reshape(len(video), 4, 2, 4, 4, 3).mean(2))
        x = (pairs**2).mean((1, 2, 3, 4))
        return jnp.stack([x, -x], -1)

    zero = targets.Class(np.zeros(2, int))
    parts = selective_relevance(network, clips, zero, "gradient_x_input", "pairs", variant="d_dtd", threshold_sd=0.0)
    assert parts.attribution.map.shape == (2, 4, 4, 4)
    middle = clips[:, 1::2]  # of the frames of a step, the later of the two in its middle
    pairs = clips.reshape(2, 4, 2, 4, 4, 3).mean(2)
    expected = 2 * (pairs**2 - middle**2).sum(-1) / (4 * 4 * 4 * 3)
    np.testing.assert_allclose(parts.clip_change.moving, expected, atol=1e-7)


def test_methods_and_targets_share_a_call_and_have_their_own_parts(dots):
    clips, target = dots
    other = targets.Class((np.asarray(target.classes) + 1) % 4)
    methods = [("gradient_x_input", None), ("lrp_z_plus", None)]
    results = list(selective_relevance_of_targets(handwired_network.MOTION_PAIRS, clips, [target, other], methods))
    for one_target, row in zip((target, other), results):
        for (method, _), parts in zip(methods, row):
            alone = selective_relevance(handwired_network.MOTION_PAIRS, clips, one_target, method)
            assert parts.attribution.method == method
            np.testing.assert_allclose(parts.clip_split.motion, alone.clip_split.motion, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(parts.excess, alone.excess, rtol=1e-4, atol=1e-6)
    thresholds, values = zip(*part_values(results[0][0], (0.0, 1.0, 2.0)))
    assert thresholds == (0.0, 1.0, 2.0) and list(values[0]) == ["motion_share", "frozen_share", "area"]
    np.testing.assert_allclose(values[1]["motion_share"], results[0][0].clip_split.motion_share)
    assert (np.diff([value["area"] for value in values], axis=0) <= 0).all()


def test_errors_say_what_was_expected(dots):
    with pytest.raises(ValueError, match="threshold_sd of at least 0"):
        map_split.split_by_motion(blob(0), -1.0)
    clips, target = dots
    with pytest.raises(ValueError, match="threshold_sd of at least 0, got -1"):
        selective_relevance(handwired_network.MOTION_PAIRS, clips, target, threshold_sd=-1.0)
    with pytest.raises(ValueError, match="1 time step has no change"):
        map_split.split_by_motion(blob(0, frames=1))
