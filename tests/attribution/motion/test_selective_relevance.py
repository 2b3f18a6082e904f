"""Motion parts of maps: scipy's correlation, static and moving blobs, and networks with and without use of motion."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vtcav_jax import tap
from vtcav_jax.attribution import targets
from vtcav_jax.attribution.motion import selective_relevance as sr
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
    np.testing.assert_allclose(sr.time_derivative(maps, padding), expected, atol=1e-5)


def test_a_static_blob_has_motion_only_with_zero_padding():
    maps = blob(0)
    inside = maps[0, 0] > 0.5
    for n in (0.0, 1.0, 4.0):
        assert not sr.split_by_motion(maps, n).mask.any()
    zero = sr.split_by_motion(maps, 1.0, padding="zero").mask[0]
    assert zero[:, inside].mean() == pytest.approx(2 / 16) and zero[[0, -1]][:, inside].all() and not zero[1:-1].any()
    paper = sr.split_by_motion(maps, 1.0, variant="paper2020").mask[0]
    assert paper[-1, inside].all() and not paper[:-1].any()  # the sign selects only relevance that fades


def test_a_moving_blob_is_motion_and_paper2020_selects_its_trailing_edge():
    maps = blob(1.5)
    x = np.arange(48) - (24 + 1.5 * (np.arange(16) - 8))[:, None]
    behind = {}
    for variant in ("absolute", "paper2020"):
        split = sr.split_by_motion(maps, 1.0, variant=variant)
        behind[variant] = (split.mask[0, 1:-1] * x[1:-1, None]).sum() / split.mask[0, 1:-1].sum()
    assert abs(behind["absolute"]) < 0.5 and behind["paper2020"] < -2
    assert (
        sr.split_by_motion(maps, 1.0).motion_share
        > 1.5 * sr.split_by_motion(maps, 1.0, variant="paper2020").motion_share
    )


def test_parts_sum_to_the_map_and_define_the_shares():
    maps = np.random.default_rng(1).normal(size=(2, 4, 6, 6)).astype(np.float32)
    for n, split in zip((0, 1, 2, 3, 4), sr.sweep(maps), strict=True):
        np.testing.assert_array_equal(split.motion + split.static, maps)
        share = [np.abs(m[k]).sum() / np.abs(m).sum() for m, k in zip(maps, split.mask)]
        np.testing.assert_allclose(split.motion_share, share, rtol=1e-5)
        np.testing.assert_allclose(split.area, [k.mean() for k in split.mask])
        assert split.threshold_sd == n
    shares = np.stack([split.motion_share for split in sr.sweep(maps)])
    assert (np.diff(shares, axis=0) <= 0).all() and (shares[0] > 0.99).all()
    np.testing.assert_allclose(
        sr.split_by_motion(maps * 1e-20, 1.0).mask, sr.split_by_motion(maps, 1.0).mask
    )  # no scale
    empty = sr.split_by_motion(np.zeros((1, 3, 2, 2), np.float32))
    assert np.isnan(empty.motion_share[0]) and np.isnan(empty.lift[0]) and empty.area[0] == 0


@pytest.mark.slow
def test_motion_share_of_a_network_that_needs_motion():
    """Check a square three pixels wide: only its two outer columns change, and none when frozen."""
    clips = np.zeros((2, 6, 16, 16, 1), np.float32)
    for t in range(6):
        clips[:, t, 6:9, 4 + t : 7 + t] = 1
    right = targets.Class(np.ones(2, int))
    shares_of_motion = sr.motion_share(handwired_network.MOTION_PAIRS, clips, right, "integrated_gradients", ig_steps=4)
    assert (shares_of_motion.clip_split.motion_share > 0.5).all() and (shares_of_motion.clip_split.lift > 2).all()
    inner = shares_of_motion.clip_split.mask[0, 2:4, 7]  # at the ends, with half the relevance, everything changes
    assert not inner[[0, 1], [7, 8]].any() and inner[[0, 1, 0, 1], [6, 7, 8, 9]].all()
    assert (
        not shares_of_motion.frozen_split.mask[:, 2:4].any() and (shares_of_motion.frozen_split.motion_share > 0).all()
    )  # the ends, once more
    assert (shares_of_motion.excess < shares_of_motion.clip_split.motion_share).all()
    brightness = sr.motion_share(mean_of_frames, clips[:, :1].repeat(6, 1), targets.Class(np.zeros(2, int)))
    np.testing.assert_allclose(brightness.clip_split.motion_share, 0)
    np.testing.assert_allclose(brightness.excess, 0)


def mean_of_frames(video, tap=tap.identity_tap):
    """Return a score that does not depend on the order of frames."""
    x = tap("x", video).mean((1, 2, 3, 4))
    return jnp.stack([x, -x], -1)


def test_errors_say_what_was_expected(dots):
    with pytest.raises(ValueError, match="threshold_sd of at least 0"):
        sr.split_by_motion(blob(0), -1.0)
    with pytest.raises(ValueError, match="1 time step has no change"):
        sr.split_by_motion(blob(0, frames=1))
