"""Vectors with their features: moves that are made against derivatives, controls, what a later stage sees of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vtcav_jax import tap as taps
from vtcav_jax.tcav.features.encode import Reading, encode
from vtcav_jax.tcav.features.gram import gram
from vtcav_jax.tcav.features.microbatches import Work, held
from vtcav_jax.tcav.stats.scores import derivatives, scores
from vtcav_jax.tcav.stats.vectors import fit, labels
from vtcav_jax.tcav.steering.steer import carried, changes, exported, steer

SHAPE = (4, 3, 3, 4)


def network(weights, video, tap=taps.identity_tap):
    x = tap("early", jnp.tanh(video))
    x = tap("late", jnp.sin(x @ weights[0]))
    return jnp.tanh(x.mean((1, 2, 3)) @ weights[1])


network.stages = ("early", "late")


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


SIGNED = labels(range(15), range(15, 30), 30)[None]


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["none", "space", "all"])
def test_small_moves_are_the_derivative_and_exported_vectors_are_the_vectors(model, clips, pool):
    reading = Reading(pool, micro_batch=4)
    out = encode(model, *map(held, clips), [0, 2], "early", reading)
    found = gram(out.examples["early"], out.gradients["early"], 2)
    vectors = fit(found.kernel, SIGNED)
    units = exported(out.examples["early"], vectors)
    np.testing.assert_allclose(np.linalg.norm(units), 1, rtol=1e-5)
    eps, work = 1e-2, Work()
    moves = np.concatenate([eps * units, -eps * units])
    change = changes(model, held(clips[1]), [0, 2], "early", moves, reading, work=work)
    along = derivatives(found, vectors.unit)[:, :, 0]
    np.testing.assert_allclose((change[0] - change[1]) / (2 * eps), along, atol=2e-3 * np.abs(along).max())
    assert work.forwards == 9 * 3


def test_steering_beats_random_directions_where_the_class_uses_the_concept(clips):
    def sees_one_channel(video, tap=taps.identity_tap):
        return jnp.tanh(tap("early", video).mean((1, 2, 3)))

    out = encode(sees_one_channel, *map(held, clips), [1, 3], "early")
    found = gram(out.examples["early"], out.gradients["early"], 2)
    vectors = fit(found.kernel, SIGNED)
    result = steer(sees_one_channel, held(clips[1]), [1, 3], "early", out.examples["early"], found, SIGNED, vectors)
    assert result.change.shape == (1, 2, 2, 9) and result.controls.shape == (1, 19, 2, 2, 9)
    gap = clips[0][:15].mean(0) - clips[0][15:].mean(0)
    w = out.examples["early"].combined(vectors.unit)[0]
    np.testing.assert_allclose(result.units, (gap * w).sum(), rtol=1e-5)
    np.testing.assert_allclose(result.p[0, :, 0], 1 / 20)  # class 1 is the channel that the concept raises
    assert (result.p[0, :, 1] > 1 / 20).all()
    change = result.change.mean(-1)[0]
    assert change[0, 0] < 0 < change[1, 0] and scores(found, vectors).sign_count[0, 0] == 1


def test_what_a_later_stage_sees_of_a_vector(model, clips):
    out = encode(model, *map(held, clips), [0], ("early", "late"), Reading("space"))
    kernels = {stage: gram(out.examples[stage], out.gradients[stage]).kernel for stage in ("early", "late")}
    units = {stage: exported(out.examples[stage], fit(kernels[stage], SIGNED)) for stage in kernels}
    seen = carried(model, held(clips[1]), "early", "late", units["early"], Reading("space", micro_batch=5))
    assert seen.shape == units["late"].shape == (1, 4, 6)
    video, move = jnp.asarray(clips[1]), units["early"][0][:, None, None]
    late = [
        taps.activations(Partial(shifted, model, jnp.asarray(eps * move)), video, "late")[1]["late"]
        for eps in (1e-2, -1e-2)
    ]
    slope = np.asarray(late[0] - late[1]).mean((0, 2, 3)) / 2e-2
    np.testing.assert_allclose(seen[0], slope, atol=1e-3 * np.abs(slope).max())
    cosine = (seen * units["late"]).sum() / np.linalg.norm(seen)
    assert cosine > 0.5  # the concept is passed on


def shifted(model, move, video, tap=taps.identity_tap):
    return model(video, lambda name, value: tap(name, value + move[None] if name == "early" else value))
