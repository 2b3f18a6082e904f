"""Tests of steering: moves compared with derivatives, random controls, and propagation to a later stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.support.typed import set_stages
from vtcav_jax import tap as taps
from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.features.encode import EncodeConfig, encode
from vtcav_jax.tcav.features.gram import compute_gram
from vtcav_jax.tcav.features.microbatches import in_memory
from vtcav_jax.tcav.stats.scores import derivatives, tcav_scores
from vtcav_jax.tcav.stats.vectors import fit, label_vector
from vtcav_jax.tcav.steering.steer import propagate_direction, score_changes, steer, unit_vectors

SHAPE = (4, 3, 3, 4)


def network(weights, video, tap=taps.identity_tap):
    x = tap("early", jnp.tanh(video))
    x = tap("late", jnp.sin(x @ weights[0]))
    return jnp.tanh(x.mean((1, 2, 3)) @ weights[1])


set_stages(network, ("early", "late"))


@pytest.fixture
def model():
    keys = jax.random.split(jax.random.key(1))
    return Partial(network, [jax.random.normal(keys[0], (4, 6)) / 2, jax.random.normal(keys[1], (6, 3))])


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    examples, targets = (rng.normal(size=(n, *SHAPE)).astype(np.float32) for n in (30, 9))
    examples[:15, ..., 1] += 1
    return examples, targets


SIGNED = label_vector(range(15), range(15, 30), 30)[None]


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["none", "space", "all"])
def test_small_moves_match_derivatives_and_unit_vectors_their_coefficients(model, clips, pool):
    config = EncodeConfig(pool, batch_size=4)
    out = encode(model, in_memory(clips[0]), in_memory(clips[1]), [0, 2], "early", config)
    gram = compute_gram(out.examples["early"], out.gradients["early"], 2)
    vectors = fit(gram.kernel, SIGNED)
    units = unit_vectors(out.examples["early"], vectors)
    np.testing.assert_allclose(np.linalg.norm(units), 1, rtol=1e-5)
    eps, runtime = 1e-2, Runtime.single_device()
    moves = np.concatenate([eps * units, -eps * units])
    change = score_changes(model, in_memory(clips[1]), [0, 2], "early", moves, config, runtime=runtime)
    along = derivatives(gram, vectors.unit)[:, :, 0]
    np.testing.assert_allclose((change[0] - change[1]) / (2 * eps), along, atol=2e-3 * np.abs(along).max())
    assert runtime.passes.forwards == 9 * 3


def test_steering_beats_random_directions_where_the_class_uses_the_concept(clips):
    def sees_one_channel(video, tap=taps.identity_tap):
        return jnp.tanh(tap("early", video).mean((1, 2, 3)))

    out = encode(sees_one_channel, in_memory(clips[0]), in_memory(clips[1]), [1, 3], "early")
    gram = compute_gram(out.examples["early"], out.gradients["early"], 2)
    vectors = fit(gram.kernel, SIGNED)
    result = steer(sees_one_channel, in_memory(clips[1]), [1, 3], "early", out.examples["early"], gram, SIGNED, vectors)
    assert result.score_change.shape == (1, 2, 2, 9) and result.control_changes.shape == (1, 19, 2, 2, 9)
    gap = clips[0][:15].mean(0) - clips[0][15:].mean(0)
    w = out.examples["early"].linear_combination(vectors.unit)[0]
    np.testing.assert_allclose(result.unit_lengths, (gap * w).sum(), rtol=1e-5)
    np.testing.assert_allclose(result.p[0, :, 0], 1 / 20)  # class 1 is the channel that the concept raises
    assert (result.p[0, :, 1] > 1 / 20).all()
    change = result.score_change.mean(-1)[0]
    assert change[0, 0] < 0 < change[1, 0] and tcav_scores(gram, vectors).sign_count[0, 0] == 1


def test_directions_propagate_to_a_later_stage(model, clips):
    out = encode(model, in_memory(clips[0]), in_memory(clips[1]), [0], ("early", "late"), EncodeConfig("space"))
    kernels = {stage: compute_gram(out.examples[stage], out.gradients[stage]).kernel for stage in ("early", "late")}
    units = {stage: unit_vectors(out.examples[stage], fit(kernels[stage], SIGNED)) for stage in kernels}
    passed = propagate_direction(
        model, in_memory(clips[1]), "early", "late", units["early"], EncodeConfig("space", batch_size=5)
    )
    assert passed.shape == units["late"].shape == (1, 4, 6)
    video, move = jnp.asarray(clips[1]), units["early"][0][:, None, None]
    late = [
        taps.activations(Partial(shifted, model, jnp.asarray(eps * move)), video, "late")[1]["late"]
        for eps in (1e-2, -1e-2)
    ]
    slope = np.asarray(late[0] - late[1]).mean((0, 2, 3)) / 2e-2
    np.testing.assert_allclose(passed[0], slope, atol=1e-3 * np.abs(slope).max())
    cosine = (passed * units["late"]).sum() / np.linalg.norm(passed)
    assert cosine > 0.5  # the concept is passed on


def shifted(model, move, video, tap=taps.identity_tap):
    return model(video, lambda name, value: tap(name, value + move[None] if name == "early" else value))
