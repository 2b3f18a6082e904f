"""Trivial maps, compared with scipy's filters."""

import numpy as np
import pytest
from scipy import ndimage

from vtcav_jax.evaluation.trivial_maps import TRIVIAL_MAPS, clip_seeds, trivial_maps


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(0).normal(size=(3, 5, 6, 7, 3)).astype(np.float32)


def test_all_are_maps_of_the_clips(video):
    maps = trivial_maps(video, 0)
    assert tuple(maps) == TRIVIAL_MAPS
    for values in maps.values():
        assert values.shape == video.shape[:4] and values.dtype == np.float32 and (values >= 0).all()


def test_sobel_is_scipys(video):
    # One axis at a time: scipy smooths across all other axes
    frames = video.transpose(0, 1, 4, 2, 3).reshape(-1, 6, 7)
    parts = [np.stack([ndimage.sobel(f, axis, mode="nearest") for f in frames]) for axis in (0, 1)]
    expected = np.hypot(*parts).reshape(3, 5, 3, 6, 7).mean(2)
    np.testing.assert_allclose(trivial_maps(video, 0)["sobel"], expected, rtol=1e-4, atol=1e-5)


def test_differences(video):
    maps = trivial_maps(video, 0)
    np.testing.assert_allclose(
        maps["difference_to_mean"][1], np.abs(video[1] - video[1].mean((0, 1, 2))).mean(-1), rtol=1e-4, atol=1e-5
    )
    steps = np.abs(np.diff(video, axis=1)).mean(-1)
    np.testing.assert_allclose(maps["frame_difference"][:, 0], steps[:, 0], rtol=1e-5)
    np.testing.assert_allclose(maps["frame_difference"][:, 2], (steps[:, 1] + steps[:, 2]) / 2, rtol=1e-5)
    still = np.repeat(video[:, :1], 4, 1)
    assert not trivial_maps(still, 0)["frame_difference"].any()
    assert not trivial_maps(video[:, :1], 0)["frame_difference"].any()


def test_random_maps_depend_on_clip_and_seed_only(video):
    one, other = trivial_maps(video, 0)["random"], trivial_maps(video, 1)["random"]
    np.testing.assert_array_equal(trivial_maps(video[1:], 0)["random"], one[1:])
    assert (one != other).mean() > 0.9 and (one[0] != one[1]).mean() > 0.9
    five = trivial_maps(video, 0, n_random=5)
    assert [name for name in five if name not in TRIVIAL_MAPS] == [f"random_{i}" for i in range(2, 6)]
    np.testing.assert_array_equal(five["random"], one)
    assert len({five[name][0, 0, 0, 0] for name in five if name.startswith("random")}) == 5
    assert clip_seeds(video, 0)[0].spawn_key != clip_seeds(video, 0, 1)[0].spawn_key


def test_invalid_inputs_raise(video):
    with pytest.raises(ValueError, match="expected non-empty clips"):
        trivial_maps(video[0], 0)
    with pytest.raises(ValueError, match="at least one random map, got 0"):
        trivial_maps(video, 0, n_random=0)
