"""The comparison of importance with random directions, and networks with shuffled weights."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from vtcav_jax import models
from vtcav_jax.attribution.sanity_checks import shuffle_parameters
from vtcav_jax.data.clip import DEFAULT_SAMPLING
from vtcav_jax.data.open import open_source
from vtcav_jax.discovery import DiscoveryConfig
from vtcav_jax.discovery import run as discovery_run
from vtcav_jax.discovery.activation_grids import GridReader
from vtcav_jax.discovery.importance import measure_importance, random_direction_p
from vtcav_jax.discovery.passes import VideoPasses
from vtcav_jax.runtime import Runtime
from vtcav_jax.stats.intervals import mean_ci
from vtcav_jax.tcav.stats.multiple_testing import adjust_p


def unit_rows(random, n, channels):
    rows = random.standard_normal((n, channels))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("channels", [3, 48])
def test_p_of_random_directions_is_uniform(channels):
    random = np.random.default_rng(0)
    p = random_direction_p(random.standard_normal((2000, channels)), unit_rows(random, 2000, channels))
    assert kstest(p, "uniform").pvalue > 0.01


def test_p_is_the_share_of_random_directions_with_at_least_this_importance():
    random = np.random.default_rng(1)
    gradient = random.standard_normal((1, 12))
    direction = unit_rows(random, 1, 12) + 0.15 * gradient
    direction /= np.linalg.norm(direction)
    others = unit_rows(random, 100_000, 12) @ gradient[0]
    share = (others >= float(direction[0] @ gradient[0])).mean()
    assert 0.001 < share < 0.5
    np.testing.assert_allclose(random_direction_p(gradient, direction), share, rtol=0.05)
    assert np.isnan(random_direction_p(np.ones((1, 1)), np.ones((1, 1)))[0])


def importance_in(network, seed, folder):
    """Return the importance of 16 concepts at each of two stages, in 12 clips."""
    source, stages = open_source("worlds:small:60:3"), ("convs.1", "convs.2")
    config = DiscoveryConfig(num_concepts=16, max_tokens=4000, seed=seed)
    passes = VideoPasses(source, GridReader(network, stages, False, Runtime.local()), config, DEFAULT_SAMPLING, folder)
    fit_half, clip_half = discovery_run.split_videos(source, seed)
    fitted, _ = discovery_run._fit_stages(passes, fit_half)
    dictionaries = {stage: concepts.dictionary for stage, concepts in fitted.items()}
    means = {stage: concepts.mean for stage, concepts in fitted.items()}
    return measure_importance(passes, clip_half, dictionaries, means).values()


@pytest.mark.slow
def test_intervals_exclude_0_in_networks_with_shuffled_weights_and_adjusted_p_do_not(tmp_path):
    """Any direction changes the scores of any network, so only the comparison with random directions is a finding."""
    network = models.load("worlds_cnn")
    excluded, alarms = [], []
    for seed in range(20):
        (tmp_path / str(seed)).mkdir()
        shuffled = replace(network, model=shuffle_parameters(network.model, seed))
        by_stage = importance_in(shuffled, seed, tmp_path / str(seed))
        for importance in by_stage:
            intervals = [mean_ci(column)[1:] for column in importance.by_head.sum(0).T]
            excluded += [low > 0 or high < 0 for low, high in intervals]
        alarms.append(adjust_p(np.concatenate([importance.random_p for importance in by_stage])).min() <= 0.05)
    assert np.mean(excluded) > 0.5
    assert sum(alarms) <= 4  # of 20; more have a probability of 0.3 % if that of each is 5 %
    (tmp_path / "trained").mkdir()
    trained = importance_in(network, 0, tmp_path / "trained")
    assert (adjust_p(np.concatenate([importance.random_p for importance in trained])) <= 0.05).mean() > 0.1
