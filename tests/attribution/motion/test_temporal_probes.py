"""Scores of clips with edited time, compared with the network's logits clip by clip."""

import jax.numpy as jnp
import numpy as np
import pytest

from vtcav_jax import attribution
from vtcav_jax.attribution import targets
from vtcav_jax.attribution.motion import temporal_probes
from vtcav_jax.worlds import handwired_network


@pytest.fixture(scope="module")
def dots():
    """Clips of the analytic world, with a few dots that appear and disappear."""
    clips, labels = handwired_network.binary_clips(3, 5, frames=6, size=12, dots=10, density=0.02)
    return clips, targets.Class(labels)


def class_logits(clips, labels):
    return np.asarray(handwired_network.MOTION_PAIRS(jnp.asarray(clips)))[np.arange(3), labels]


def test_probe_scores_equal_the_network(dots):
    clips, target = dots
    probe = attribution.temporal_probe(handwired_network.MOTION_PAIRS, clips, target, shuffles=3, seed=4)
    assert (probe.score >= 50).all() and (probe.score_baseline == 0).all()  # ten dots, five steps, and chance
    np.testing.assert_allclose(probe.score, class_logits(clips, target.classes))
    np.testing.assert_allclose(probe.score_reversed, class_logits(clips[:, ::-1].copy(), target.classes))
    np.testing.assert_allclose(probe.score_half_rate, class_logits(clips[:, [0, 0, 2, 2, 4, 4]], target.classes))
    frozen = np.stack([class_logits(np.repeat(clips[:, i : i + 1], 6, 1), target.classes) for i in range(6)], 1)
    np.testing.assert_allclose(probe.scores_frozen, frozen)
    random = np.random.default_rng(4)
    shuffled = [class_logits(clips[:, random.permutation(6)], target.classes) for _ in range(3)]
    np.testing.assert_allclose(probe.scores_shuffled, np.stack(shuffled, 1))
    np.testing.assert_allclose(probe.drop_frozen, 1 - frozen.mean(1) / probe.score, rtol=1e-5)
    np.testing.assert_allclose(probe.drop_shuffled, 1 - np.mean(shuffled, 0) / probe.score, rtol=1e-5)
    assert (probe.drop_shuffled > 0.5).all()
    nothing = attribution.temporal_probe(handwired_network.MOTION_PAIRS, clips, target, baseline=None, shuffles=1)
    assert (nothing.score_baseline == 0).all()


def test_drop_is_nan_without_a_rise():
    drops = temporal_probes.relative_drop(*np.array([[2.0, 1.0, 1.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]))
    np.testing.assert_allclose(drops, [0.5, np.nan, np.nan])


def test_errors_say_what_was_expected(dots):
    clips, target = dots
    with pytest.raises(ValueError, match="at least one shuffled order"):
        attribution.temporal_probe(handwired_network.MOTION_PAIRS, clips, target, shuffles=0)
    with pytest.raises(ValueError, match="at least two frames"):
        attribution.temporal_probe(handwired_network.MOTION_PAIRS, clips[:, :1], target)
