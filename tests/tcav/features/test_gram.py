"""Tests of encoding and products: batching, padding, pooling and spilling do not change results."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.support.devices import device_environment
from tests.support.typed import compile_count, present, set_stages
from vtcav_jax import tap as taps
from vtcav_jax.runtime import Runtime
from vtcav_jax.tcav.features import encode as feature_encoding
from vtcav_jax.tcav.features import feature_store
from vtcav_jax.tcav.features.encode import DEFAULT_ENCODING, EncodeConfig, encode
from vtcav_jax.tcav.features.feature_store import features_from_array
from vtcav_jax.tcav.features.gram import Gram, center_kernel, compute_gram
from vtcav_jax.tcav.features.microbatches import ClipBatches, in_memory, map_batches

STAGES = ("first", "second", "pool")
SHAPE = (4, 4, 6, 3)


def network(parameters, video, tap=taps.identity_tap):
    x = tap("first", jnp.tanh(video @ parameters[0]))
    x = tap("second", jnp.sin(x @ parameters[1]))
    x = tap("pool", jnp.square(x).mean((1, 2, 3)))
    return jnp.tanh(x @ parameters[2])


set_stages(network, STAGES)


@pytest.fixture
def model():
    keys = jax.random.split(jax.random.key(0), 3)
    return Partial(network, [jax.random.normal(k, s) for k, s in zip(keys, [(3, 8), (8, 6), (6, 5)])])


@pytest.fixture
def videos():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, *SHAPE)).astype(np.float32) for n in (11, 7)]


def encoded(model, videos, config=DEFAULT_ENCODING, classes=(1, 4), stages=STAGES, **more):
    return encode(model, in_memory(videos[0]), in_memory(videos[1]), classes, stages, config, **more)


def grams(out, **more):
    classes = out.scores.shape[1]
    return {stage: compute_gram(out.examples[stage], out.gradients[stage], classes, **more) for stage in out.examples}


def assert_same(left, right, rtol=1e-5):
    for stage, ours in left.items():
        for name in ("kernel", "cross", "gradients"):
            a, b = getattr(ours, name), getattr(right[stage], name)
            np.testing.assert_allclose(a, b, atol=rtol * np.abs(b).max(), err_msg=f"{stage} {name}")


@pytest.mark.slow
def test_products_match_tapped_activations(model, videos):
    examples, targets = videos
    out = encoded(model, videos, EncodeConfig(batch_size=4))
    _, activations = taps.activations(model, examples, STAGES)
    by_class = taps.gradients_for_classes(model, targets, [1, 4], STAGES)
    np.testing.assert_allclose(out.scores, by_class.logits[:, np.array([1, 4])], rtol=1e-5)
    for stage, gram in grams(out).items():
        x = np.asarray(activations[stage], np.float64).reshape(11, -1)
        g = np.asarray(by_class.gradients[stage], np.float64).reshape(2, 7, -1)
        x -= x.mean(0)
        np.testing.assert_allclose(gram.kernel, x @ x.T, atol=1e-5 * np.abs(x @ x.T).max())
        np.testing.assert_allclose(gram.cross, g @ x.T, atol=1e-5 * np.abs(g @ x.T).max())
        np.testing.assert_allclose(gram.gradients, g @ g.swapaxes(1, 2), atol=1e-6 * (g**2).sum(-1).max())
        np.testing.assert_allclose(gram.gradient_norms, np.linalg.norm(g, axis=-1), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("config", [DEFAULT_ENCODING, EncodeConfig("space", "margin", "integrated", 3)])
def test_batches_padding_order_and_portions_do_not_matter(model, videos, config):
    usual = grams(encoded(model, videos, config))
    assert_same(grams(encoded(model, videos, replace(config, batch_size=3, classes_per_pass=1))), usual)
    padded = [
        [(np.concatenate([v[:2], v[:1]]), np.array([True, True, False])), (v[2:], np.ones(len(v) - 2, bool))]
        for v in videos
    ]
    portions = [ClipBatches(len(v), SHAPE, lambda parts=parts: parts) for v, parts in zip(videos, padded)]
    assert_same(grams(encode(model, portions[0], portions[1], (1, 4), STAGES, replace(config, batch_size=5))), usual)
    order = np.random.default_rng(1).permutation(11)
    shuffled = grams(encoded(model, [videos[0][order], videos[1]], config))
    straight = {
        stage: Gram(gram.kernel[np.ix_(order, order)], gram.cross[:, :, order], gram.gradients)
        for stage, gram in usual.items()
    }
    assert_same(shuffled, straight)


def test_classes_can_differ_between_targets(model, videos):
    table = np.array([[1, 4]] * 4 + [[0, 1]] * 3)
    mixed, first, second = (grams(encoded(model, videos, classes=c)) for c in (table, [1, 4], [0, 1]))
    for stage in STAGES:
        expected = np.concatenate([first[stage].cross[:, :4], second[stage].cross[:, 4:]], 1)
        np.testing.assert_allclose(mixed[stage].cross, expected, atol=1e-5 * np.abs(expected).max())


def test_a_target_function_is_a_combination_of_logits(model, videos):
    """Compare each score's gradient with the logits' gradients weighted by the score's derivatives."""
    logits = np.asarray(network(model.args[0], jnp.asarray(videos[1])), np.float64)
    each = grams(encoded(model, videos, classes=range(5)))["second"].cross
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    others = np.where(np.eye(5, dtype=bool)[:, None], -np.inf, logits[None]).argmax(-1)  # class, target
    for name, shares in {
        "log_prob": np.eye(5)[:, None] - probabilities,
        "margin": np.eye(5)[:, None] - np.eye(5)[others],
    }.items():
        cross = grams(encoded(model, videos, EncodeConfig(score_fn=name), range(5)))["second"].cross
        expected = np.einsum("cnk,knm->cnm", shares, each)
        np.testing.assert_allclose(cross, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "shapes"),
    [("space", ((4, 8), (4, 6))), ("time", ((4, 6, 8), (4, 6, 6))), ("all", ((8,), (6,)))],
)
def test_pooled_derivatives_are_steps_at_every_position(model, videos, pool, shapes, float64):
    model = jax.tree.map(lambda a: a.astype(jnp.float64), model)
    videos = [v.astype(np.float64) for v in videos]
    out = encoded(model, videos, EncodeConfig(pool))
    assert [out.examples[stage].shape for stage in STAGES] == [*shapes, (6,)]
    rng = np.random.default_rng(0)
    for stage in STAGES:
        move = rng.normal(size=out.examples[stage].shape)
        wide = {"space": (..., None, None, slice(None)), "time": (None,), "all": ()}[pool] if stage != "pool" else ()
        up, down = (taps.steered_logits(model, videos[1], stage, move[wide], eps) for eps in (1e-5, -1e-5))
        slope = np.asarray(up - down)[:, np.array([1, 4])].T / 2e-5
        ours = present(out.gradients[stage].memory).reshape(2, 7, -1) @ move.ravel()
        np.testing.assert_allclose(ours, slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("mesh", [None, jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("b",))])
def test_activations_far_from_0_keep_their_precision(mesh):
    """Compare float32 products with float64 ones for a mean of 1000 times the spread."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(60, 3000)) + 1e3 * rng.normal(size=3000)).astype(np.float32)
    g = rng.normal(size=(9, 3000)).astype(np.float32)
    gram = compute_gram(
        replace(feature_store.features_from_array(x), width=512),
        replace(feature_store.features_from_array(g), width=512),
        mesh=mesh,
    )
    exact = x.astype(np.float64)
    for weights in (np.ones(60), np.r_[np.ones(30), np.zeros(30)], rng.random(60)):
        middle = exact - weights @ exact / weights.sum()
        ours = center_kernel(gram.kernel, weights)
        np.testing.assert_allclose(ours, middle @ middle.T, atol=2e-6 * np.abs(middle @ middle.T).max())
        a = rng.normal(size=60) * weights
        a -= weights * a.sum() / weights.sum()
        size = np.linalg.norm(a @ middle) * np.linalg.norm(g, axis=1)
        assert (np.abs(gram.cross[0] @ a - g.astype(np.float64) @ (a @ middle)) < 2e-6 * size).all()


def test_spilling_changes_nothing(model, videos, tmp_path):
    usual = encoded(model, videos)
    spilled = encoded(model, videos, EncodeConfig(budget=20_000), spill=tmp_path)
    assert usual.examples["first"].memory is not None
    assert [spilled.examples[stage].memory is None for stage in STAGES] == [True, True, False]
    assert (tmp_path / "examples/first/block_00000.npy").exists() and len(spilled.examples["first"].columns) > 1
    assert_same(grams(spilled), grams(usual), 1e-6)
    a = np.random.default_rng(0).normal(size=(2, 11))
    ours, theirs = (out.examples["first"].linear_combination(a) for out in (spilled, usual))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"more than the budget of 1.86e-05 GiB; pass a folder"):
        encoded(model, videos, EncodeConfig(budget=20_000))


def test_each_clip_and_gradient_is_computed_once(model, videos):
    """Count the clips that the network receives; each program is compiled once."""
    clip_sums = []

    def counting(parameters, video, tap=taps.identity_tap):
        jax.debug.callback(lambda v: clip_sums.extend(np.asarray(v).sum((1, 2, 3, 4)).tolist()), video)
        return network(parameters, video, tap)

    model = Partial(counting, *model.args)
    out = encoded(model, videos, EncodeConfig(batch_size=4), [0, 1, 4])
    jax.effects_barrier()
    sums = np.concatenate([v.sum((1, 2, 3, 4), dtype=np.float64) for v in videos])
    times = [(np.abs(np.array(clip_sums) - s) < 1e-3).sum() for s in sums]
    # The last micro-batches of examples and targets are padded with their last clip
    assert times == [1] * 10 + [2] + [1] * 6 + [2] and len(clip_sums) == 20
    assert (out.passes.forwards, out.passes.backwards) == (18, 21)
    programs = compile_count(feature_encoding._activations), compile_count(feature_encoding._gradients)
    encoded(model, videos, EncodeConfig(batch_size=4, budget=10**6), [2, 3, 0])
    assert (compile_count(feature_encoding._activations), compile_count(feature_encoding._gradients)) == programs


def test_layers_after_the_deepest_stage_are_not_computed(model, videos):
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("b",))

    def flops(stage):
        jitted: Any = feature_encoding._activations
        program = jitted.lower(model, videos[0], (stage,), DEFAULT_ENCODING, mesh).compile()
        return program.cost_analysis()["flops"]

    positions = 11 * 4 * 4 * 6
    assert flops("first") < 2 * 3 * 8 * positions * 1.3 < flops("second")


def test_out_of_memory_halves_the_micro_batch(capsys):
    sizes = []

    def run(videos):
        sizes.append(len(videos))
        if len(videos) > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return videos.sum((1, 2, 3, 4))

    videos = np.random.default_rng(0).normal(size=(10, *SHAPE)).astype(np.float32)
    runtime = Runtime.single_device()
    out = [o[:real] for _, real, o in map_batches(run, in_memory(videos), (), "clips", 8, runtime)]
    np.testing.assert_allclose(np.concatenate(out), videos.sum((1, 2, 3, 4)), rtol=1e-4, atol=1e-4)
    assert sizes == [8, 4, 2, 2, 2, 2, 2] and runtime.passes.batch_size == 2
    assert "continuing with 2 clips" in capsys.readouterr().err
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        list(map_batches(partial(_never, []), in_memory(videos), (), "clips", 8, runtime))


def _never(_, videos):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: whatever the size")


SCRIPT = """
import sys, jax, numpy as np
from tests.tcav.features import test_gram as t
from vtcav_jax.runtime import Runtime
from jax.tree_util import Partial
keys = jax.random.split(jax.random.key(0), 3)
model = Partial(t.network, [jax.random.normal(k, s) for k, s in zip(keys, [(3, 8), (8, 6), (6, 5)])])
rng = np.random.default_rng(0)
videos = [rng.normal(size=(n, *t.SHAPE)).astype(np.float32) for n in (11, 7)]
runtime = Runtime.local()
out = t.encoded(model, videos, t.EncodeConfig(batch_size=5), runtime=runtime)
grams = t.grams(out, mesh=runtime.mesh)
names = ("kernel", "cross", "gradients")
arrays = {f"{stage}.{name}": getattr(gram, name) for stage, gram in grams.items() for name in names}
np.savez(sys.argv[1], devices=jax.device_count(), **arrays)
"""


@pytest.mark.slow
def test_four_devices_give_what_one_gives(model, videos, tmp_path):
    path = tmp_path / "four.npz"
    subprocess.run([sys.executable, "-c", SCRIPT, str(path)], env=device_environment(4), check=True)
    with np.load(path) as four:
        assert four["devices"] == 4
        names = ("kernel", "cross", "gradients")
        loaded = {stage: Gram(*(four[f"{stage}.{name}"] for name in names)) for stage in STAGES}
    assert_same(loaded, grams(encoded(model, videos)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, v: encoded(m, v, stages="poool"), r"no stage named 'poool' \(did you mean pool\?\)"),
        (lambda m, v: encoded(m, v, classes=[5, 7]), "5 classes, 0 to 4; there is no class 5, 7"),
        (lambda m, v: encoded(m, v, classes=[0.5]), "classes must be integers"),
        (lambda m, v: encoded(m, v, classes=np.zeros((3, 1), int)), "one row for each of 7 targets, got 3"),
        (lambda m, v: encoded(m, [v[0][:, :2], v[1]]), "must have the same shape and dtype"),
        (
            lambda m, v: EncodeConfig("spac", "logits", batch_size=0),
            "pool: .* none, space.*score_fn: .*batch_size: .* at least 1",
        ),
        (
            lambda m, v: encode(m, ClipBatches(9, SHAPE, in_memory(v[0]).batches), in_memory(v[1]), [0], "pool"),
            "expected 9 concept",
        ),
        (
            lambda m, v: encode(m, ClipBatches(12, SHAPE, in_memory(v[0]).batches), in_memory(v[1]), [0], "pool"),
            "12 .*clips, got 11",
        ),
        (
            lambda m, v: compute_gram(features_from_array(v[0]), features_from_array(v[1]), 2),
            "7 gradients cannot be divided equally",
        ),
        (
            lambda m, v: compute_gram(features_from_array(v[0]), features_from_array(v[1][:, :2])),
            "must be of the same stage",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_expected_values(model, videos, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, videos)


def test_stages_without_a_grid_have_no_space():
    def tokens(video, tap=taps.identity_tap):
        return tap("x", video.reshape(len(video), -1, 3)).mean(1)

    video = np.zeros((2, *SHAPE), np.float32)
    with pytest.raises(ValueError, match=r"x: an activation of shape .96, 3. per clip has no space and time axes"):
        encode(tokens, in_memory(video), in_memory(video), [0], "x", EncodeConfig("space"))
    assert encode(tokens, in_memory(video), in_memory(video), [0], "x", EncodeConfig("all")).examples["x"].shape == (3,)
