"""Tests of trends over depth: the slope and its interval, and the level of the test by simulation."""

import numpy as np
import pytest

from vtcav_jax.tcav.features.gram import Gram
from vtcav_jax.tcav.stats.bootstrap import bootstrap
from vtcav_jax.tcav.stats.depth_trend import depth_trend
from vtcav_jax.tcav.stats.vectors import FitConfig, label_vector

CLIPS_PER_VIDEO, FEATURES, STAGES = 2, 12, 3
DRAWS = 150  # a level of 0.13 or more would be detected with a probability above 0.95


def test_the_slope_is_that_of_a_line():
    effects, noise = np.array([1.0, 3.5, 5.0, 7.5]), np.random.default_rng(0).normal(0, 0.1, (4, 5000))
    trend = depth_trend(effects, effects[:, None] + noise)
    assert trend.slope == pytest.approx(np.polyfit(range(4), effects, 1)[0])
    # The variance of a slope over 4 equidistant points is that of a point divided by 5
    assert trend.high - trend.low == pytest.approx(2 * 1.96 * 0.1 / 5**0.5, rel=0.05) and trend.p < 1e-10
    # What all stages share cancels
    shared = depth_trend(np.ones(4), 1 + np.tile(noise[:1], (4, 1)) + 0.01 * noise)
    assert shared.slope == pytest.approx(0) and shared.high < 0.02 and shared.p == pytest.approx(1)


def simulated_p(rng: np.random.Generator, shifts: tuple[float, ...], n_target_videos: int) -> float:
    """Return the p-value of one simulated comparison; videos differ alike at all stages, up to noise of each stage."""
    videos = np.repeat(np.arange(30), CLIPS_PER_VIDEO)
    target_videos = np.repeat(np.arange(n_target_videos), CLIPS_PER_VIDEO)
    count = len(videos)
    labels = label_vector(range(count // 2), range(count // 2, count), count)
    shared = rng.normal(size=(30, FEATURES))[videos]
    shared_gradient = rng.normal(size=(n_target_videos, FEATURES))[target_videos]
    effects, draws = [], []
    for shift in shifts:
        examples = (shared + rng.normal(size=shared.shape)) / 2**0.5
        examples[:, 0] += shift * (labels > 0)
        gradients = (shared_gradient + rng.normal(size=shared_gradient.shape)) / 2**0.5
        gradients[:, 0] += 1
        examples -= examples.mean(0)
        gram = Gram(examples @ examples.T, (gradients @ examples.T)[None], (gradients @ gradients.T)[None])
        (interval,) = bootstrap(
            [gram],
            labels,
            FitConfig("mean_difference"),
            units=videos,
            target_units=[target_videos],
            draws=300,
            seed=0,
        )
        effects.append(interval.step_effect)
        draws.append(interval.step_draws)
    return depth_trend(np.array(effects), np.stack(draws)).p


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "n_target_videos"), [(0.0, 20), (1.0, 20), (3.0, 5)])
def test_the_level_holds_for_effects_that_are_equal_at_all_stages(shift, n_target_videos):
    """The hypothesis is that the slope is 0, whether or not there is an effect."""
    rng = np.random.default_rng(1)
    p = np.array([simulated_p(rng, (shift,) * STAGES, n_target_videos) for _ in range(DRAWS)])
    assert (p <= 0.05).mean() <= 0.08


def test_a_rising_effect_is_detected():
    rng = np.random.default_rng(2)
    assert np.mean([simulated_p(rng, (0.5, 2.0, 3.5), 20) <= 0.05 for _ in range(30)]) >= 0.9
